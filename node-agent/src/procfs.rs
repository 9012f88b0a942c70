//! Reading and writing sysctls through descriptors that are held open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nettune_sizing::{InvalidValue, SysctlKey, Value};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::live::{Content, Seen};

/// Where the kernel's files are. In a pod `/proc/sys` is read-only, and the host's is mounted
/// elsewhere; what only is read is the same in the pod's own `/proc`.
#[derive(Debug, Clone)]
pub struct Roots {
    /// What stands for `/proc/sys`.
    pub sysctl: PathBuf,
    /// What stands for `/proc`.
    pub proc: PathBuf,
}

/// The sysctls that are looked at.
#[derive(Debug)]
pub struct Sysctls {
    root: PathBuf,
    held: BTreeMap<SysctlKey, Held>,
}

/// Longer than any value that is taken ([`Value::parse`]).
const BUFFER: usize = 4096;

#[derive(Debug)]
struct Held {
    path: PathBuf,
    file: Option<Opened>,
    raw: Vec<u8>,
    seen: Seen,
}

#[derive(Debug)]
struct Opened {
    file: File,
    /// Files of the kernel stay the same until they are gone, and then say so. Files of a directory
    /// that stands for it can be replaced, and are truncated before they are written.
    of_kernel: bool,
}

impl Sysctls {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            held: BTreeMap::new(),
        }
    }

    /// Sets what is looked at; descriptors of the rest are closed.
    pub fn look_at(&mut self, keys: &BTreeSet<SysctlKey>) {
        self.held.retain(|key, _| keys.contains(key));
        for key in keys {
            if !self.held.contains_key(key) {
                let path = self.root.join(key.path());
                self.held.insert(key.clone(), Held::new(path));
            }
        }
    }

    /// Reads all, and says whether anything differs from the last time.
    pub fn look(&mut self) -> bool {
        let mut changed = false;
        for held in self.held.values_mut() {
            changed |= held.look();
        }
        changed
    }

    /// What the last look brought.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<SysctlKey, Seen> {
        let seen = |(key, held): (&SysctlKey, &Held)| (key.clone(), held.seen.clone());
        self.held.iter().map(seen).collect()
    }

    /// The number that the last look at one key brought, where it was one.
    #[must_use]
    pub fn number(&self, key: &SysctlKey) -> Option<u64> {
        match &self.held.get(key)?.seen {
            Seen::Content(content) => content.number(),
            _ => None,
        }
    }

    /// Writes one key.
    ///
    /// # Errors
    /// With what the kernel said.
    pub fn write(&self, key: &SysctlKey, content: &Content) -> Result<(), Errno> {
        let held = self.held.get(key);
        let path = match held {
            Some(held) => held.path.clone(),
            None => self.root.join(key.path()),
        };
        let of_kernel = held
            .and_then(|held| held.file.as_ref())
            .is_some_and(|opened| opened.of_kernel);
        write(&path, of_kernel, content).map_err(|error| errno(&error))
    }
}

fn write(path: &Path, of_kernel: bool, content: &Content) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .truncate(!of_kernel)
        .custom_flags(nonblocking())
        .open(path)?;
    // In one write: the kernel parses each write for itself.
    let line = format!("{}\n", content.as_str());
    match file.write(line.as_bytes())? {
        written if written == line.len() => Ok(()),
        _ => Err(Errno::IO.into()),
    }
}

/// So that a pipe in a file's place is an error and not a wait for ever.
fn nonblocking() -> i32 {
    OFlags::NONBLOCK.bits().cast_signed()
}

/// The error's number; EIO for those that the standard library makes up.
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl Held {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            raw: Vec::new(),
            seen: Seen::Missing,
        }
    }

    fn look(&mut self) -> bool {
        let mut buffer = [0; BUFFER];
        match self.read(&mut buffer) {
            Ok(text) if text == self.raw && matches!(self.seen, Seen::Content(_)) => false,
            Ok(text) => {
                let seen = parse(text);
                self.raw = text.to_vec();
                self.set(seen)
            }
            Err(error) => {
                self.file = None;
                let seen = match errno(&error) {
                    Errno::NOENT => Seen::Missing,
                    errno => Seen::Unreadable(errno),
                };
                self.set(seen)
            }
        }
    }

    fn set(&mut self, seen: Seen) -> bool {
        let differs = self.seen != seen;
        self.seen = seen;
        differs
    }

    fn read<'a>(&mut self, buffer: &'a mut [u8; BUFFER]) -> io::Result<&'a [u8]> {
        // A sysctl whose module went away answers ENOENT on a descriptor that was held; the one that
        // came back in its place has to be opened anew.
        if let Some(opened) = &self.file
            && opened.is_current()
            && let Ok(length) = opened.file.read_at(buffer, 0)
            && (length > 0 || opened.of_kernel)
        {
            return Ok(buffer.get(..length).unwrap_or_default());
        }
        let opened = Opened::open(&self.path)?;
        let length = opened.file.read_at(buffer, 0)?;
        self.file = Some(opened);
        Ok(buffer.get(..length).unwrap_or_default())
    }
}

impl Opened {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblocking())
            .open(path)?;
        let of_kernel = rustix::fs::fstatfs(&file)?.f_type == rustix::fs::PROC_SUPER_MAGIC;
        Ok(Self { file, of_kernel })
    }

    fn is_current(&self) -> bool {
        self.of_kernel
            || self
                .file
                .metadata()
                .is_ok_and(|metadata| metadata.nlink() > 0)
    }
}

fn parse(raw: &[u8]) -> Seen {
    let Ok(text) = std::str::from_utf8(raw) else {
        return Seen::Garbled("no text".to_owned());
    };
    match Value::parse(text.trim_end_matches('\n')) {
        Ok(value) => Seen::Content(value.into()),
        Err(InvalidValue::Empty) => Seen::Content(Content::Empty),
        Err(InvalidValue::TooLong { len }) => Seen::Garbled(format!("{len} bytes long")),
        Err(InvalidValue::Character { character }) => {
            Seen::Garbled(format!("not one line of text (it holds {character:?})"))
        }
    }
}
