//! Files below `/proc` that are read completely: counters and lists.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The most that is read of any file: a row of about 150 bytes for each of 1,700 CPUs.
const MOST_BYTES: usize = 256 * 1024;

/// The size of the first read: enough for 25 CPUs.
const FIRST_BYTES: usize = 4096;

/// A file that is held open, so that reading it takes one or two system calls.
#[derive(Debug)]
pub(crate) struct ProcFile {
    path: PathBuf,
    file: Option<File>,
}

impl ProcFile {
    /// Opened when it is first read.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Whether the last read was of a file of the kernel, and not of a directory that stands in for it.
    pub(crate) const fn is_of_kernel(&self) -> bool {
        self.file.is_some()
    }

    /// Its text, at most [`MOST_BYTES`]; `None` if it cannot be read.
    pub(crate) fn read<'a>(&mut self, buffer: &'a mut Vec<u8>) -> Option<Cow<'a, str>> {
        let held = self.file.take();
        // After its module is unloaded a file returns an error; the new one must be opened.
        let length = match held.and_then(|file| Some((fill(&file, buffer).ok()?, file))) {
            Some((length, file)) => {
                self.file = Some(file);
                length
            }
            None => {
                let file = File::open(&self.path).ok()?;
                let length = fill(&file, buffer).ok()?;
                // Files of a directory that stands in for /proc can be replaced.
                let of_kernel = is_of_kernel(&file).unwrap_or(false);
                self.file = of_kernel.then_some(file);
                length
            }
        };
        Some(String::from_utf8_lossy(buffer.get(..length)?))
    }
}

/// Reads a file from its start. Its size is 0 below /proc.
fn fill(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        if length == buffer.len() {
            if length >= MOST_BYTES {
                return Ok(length);
            }
            buffer.resize((length * 2).clamp(FIRST_BYTES, MOST_BYTES), 0);
        }
        let room = buffer.get_mut(length..).unwrap_or_default();
        match file.read_at(room, length as u64)? {
            0 => return Ok(length),
            read => length += read,
        }
    }
}

/// Reads at most [`MOST_BYTES`] of a file.
pub(crate) fn read_bounded(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MOST_BYTES as u64)
        .read_to_end(&mut bytes)?;
    // Callers that parse rows skip a truncated one.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a file is on procfs, and not in a directory that stands in for it.
pub(crate) fn is_of_kernel(file: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(file)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read_bounded(&path).unwrap().len(), MOST_BYTES);
        assert!(read_bounded(&dir.path().join("none")).is_err());
    }
}
