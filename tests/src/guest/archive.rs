//! An initramfs: a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const TRAILER: &str = "TRAILER!!!";

/// Writes an archive entry by entry, making the folders above each.
#[derive(Debug)]
pub(super) struct Archive<W> {
    out: W,
    folders: BTreeSet<String>,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            folders: BTreeSet::new(),
            inode: 0,
        }
    }

    /// Adds a folder and those above it; `path` is absolute.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let folder = &path[..end];
            if !folder.is_empty() && self.folders.insert(folder.to_owned()) {
                self.entry(folder, DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file; `mode` is its permissions.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        self.entry(path.trim_matches('/'), FILE | mode, content)
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        self.entry(path.trim_matches('/'), LINK, target.as_bytes())
    }

    /// Writes the end of the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.inode = 0;
        self.entry(TRAILER, 0, &[])?;
        self.out.flush()
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, name.to_owned());
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_large)?;
        // magic, inode, mode, uid, gid, links, mtime, size, major and minor of the device, of the special file, name
        // size, checksum
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        let header = fields.iter().fold(String::from("070701"), |header, field| {
            format!("{header}{field:08X}")
        });
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.out
            .write_all(padding(header.len() + name.len() + 1, 1))?;
        self.out.write_all(content)?;
        self.out.write_all(padding(content.len(), 0))
    }
}

/// Zeros up to the next multiple of four, after `least` that have to be there anyway.
fn padding(length: usize, least: usize) -> &'static [u8] {
    &[0; 4][..least + (4 - length % 4) % 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_once_and_before_their_content() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file("/etc/a/one", 0o644, b"1").unwrap();
        archive.file("/etc/a/two", 0o644, b"22").unwrap();
        archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let names = [
            "etc\0",
            "etc/a\0",
            "etc/a/one\0",
            "etc/a/two\0",
            "TRAILER!!!\0",
        ];
        let places: Vec<_> = names.iter().map(|name| text.find(name).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(text.matches("070701").count(), names.len());
        assert_eq!(bytes.len() % 4, 0);
    }
}
