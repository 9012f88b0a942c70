//! Reads sysctls through descriptors that are held open, and writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nettune_sizing::{InvalidValue, SysctlKey, Value};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::kernel::inotify::{SysctlWatcher, Watch};
use crate::kernel::proc_file::is_of_kernel;
use nettune_reconcile::observed::{Content, Seen};

/// Where the kernel's files are. In a pod `/proc/sys` is read-only and the host's is mounted elsewhere;
/// for files that are only read, the pod's own `/proc` is the same.
#[derive(Debug, Clone)]
pub struct Roots {
    /// The path of `/proc/sys`.
    pub sysctl: PathBuf,
    /// The path of `/proc`.
    pub proc: PathBuf,
}

/// The sysctls that are read.
#[derive(Debug)]
pub struct Sysctls {
    root: PathBuf,
    held: BTreeMap<SysctlKey, TrackedKey>,
    /// `None` until [`Self::listen`].
    watcher: Option<Result<SysctlWatcher, Errno>>,
    paths_checked: Option<Instant>,
    buffer: Box<[u8; BUFFER]>,
}

/// Longer than any valid value ([`Value::parse`]).
const BUFFER: usize = 4096;

/// The size of the first read. The kernel allocates and clears as much as is requested each time, and only
/// lists are longer.
const USUAL: usize = 128;

/// How often the path of each key is looked up again: a mount over it changes nothing on the
/// descriptor that is held open.
const CHECK_PATHS: Duration = Duration::from_secs(1);

/// How long a file may be empty before that counts as its content.
const BEING_WRITTEN: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct TrackedKey {
    path: PathBuf,
    file: Option<OpenFile>,
    raw: Vec<u8>,
    seen: Seen,
    /// Since when reads have found an empty file.
    emptied: Option<Instant>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    /// The kernel's files stay valid until they are gone, and then return an error. Files of a directory
    /// that stands in for it can be replaced: their path is checked at each read.
    of_kernel: bool,
    identity: (u64, u64),
    /// `None` if changes of it cause no event.
    watch: Option<Watch>,
}

/// How changes are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeDetection {
    /// At once if the writer uses the same mount of procfs; otherwise at the next read.
    Inotify,
    /// At the next read. The error says why inotify is unavailable.
    Polling(Errno),
}

impl Sysctls {
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            held: BTreeMap::new(),
            watcher: None,
            paths_checked: None,
            buffer: Box::new([0; BUFFER]),
        }
    }

    /// Sets which keys are read; descriptors of all others are closed.
    pub fn track(&mut self, keys: &BTreeSet<SysctlKey>) {
        self.held.retain(|key, _| keys.contains(key));
        for key in keys {
            if !self.held.contains_key(key) {
                let path = self.root.join(key.path());
                self.held.insert(key.clone(), TrackedKey::new(path));
            }
        }
    }

    /// Reads all keys, and returns whether anything differs from the last read.
    pub fn read(&mut self) -> bool {
        let check_path = self
            .paths_checked
            .is_none_or(|at| at.elapsed() >= CHECK_PATHS);
        if check_path {
            self.paths_checked = Some(Instant::now());
        }
        let watcher = match &self.watcher {
            Some(Ok(watcher)) => Some(watcher),
            _ => None,
        };
        let mut failed = None;
        let mut changed = false;
        for held in self.held.values_mut() {
            changed |= held.look(&mut self.buffer, check_path);
            if let Some(watcher) = watcher
                && let Err(errno) = held.watch(watcher)
            {
                failed = Some(errno);
            }
        }
        if let Some(errno) = failed {
            // A partial watch would look like a complete one.
            self.watcher = Some(Err(errno));
        }
        changed
    }

    /// Starts to watch the keys for writes; `None` if inotify is unavailable.
    pub(crate) fn listen(&mut self) -> Option<&SysctlWatcher> {
        let watcher = self.watcher.get_or_insert_with(SysctlWatcher::new);
        watcher.as_ref().ok()
    }

    /// How changes are noticed; `None` before it watches the keys.
    #[must_use]
    pub(crate) fn change_detection(&self) -> Option<ChangeDetection> {
        Some(match self.watcher.as_ref()? {
            Ok(_) => ChangeDetection::Inotify,
            Err(errno) => ChangeDetection::Polling(*errno),
        })
    }

    /// The result of the last read.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<SysctlKey, Seen> {
        let seen = |(key, held): (&SysctlKey, &TrackedKey)| (key.clone(), held.seen.clone());
        self.held.iter().map(seen).collect()
    }

    /// The number that the last read of a key found.
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
    /// With the kernel's error.
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
        .custom_flags(nonblocking())
        .open(path)?;
    // In one write: the kernel parses each write for itself.
    let mut line = format!("{}\n", content.as_str()).into_bytes();
    let length = line.len();
    if !of_kernel {
        // A kill must not leave a file in its place empty, so it is overwritten and truncated afterwards.
        let before = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        line.resize(length.max(before.min(BUFFER)), b'\n');
    }
    if file.write(&line)? != line.len() {
        return Err(Errno::IO.into());
    }
    if !of_kernel {
        file.set_len(u64::try_from(length).unwrap_or(u64::MAX))?;
    }
    Ok(())
}

/// So that a pipe in a file's place is an error instead of blocking.
fn nonblocking() -> i32 {
    OFlags::NONBLOCK.bits().cast_signed()
}

/// The error's number; EIO for errors of the standard library.
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl TrackedKey {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            raw: Vec::new(),
            seen: Seen::Missing,
            emptied: None,
        }
    }

    /// Reads it, and returns whether it differs from the last read.
    fn look(&mut self, buffer: &mut [u8; BUFFER], check_path: bool) -> bool {
        match self.read(buffer, check_path) {
            Ok(length) => self.take(buffer.get(..length).unwrap_or_default()),
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

    fn take(&mut self, text: &[u8]) -> bool {
        if text.is_empty() {
            // The kernel returns at least a newline. A file in a directory that stands in for it may be
            // truncated while it is being written: a later read sees the content.
            let since = *self.emptied.get_or_insert_with(Instant::now);
            if since.elapsed() < BEING_WRITTEN {
                return false;
            }
        } else {
            self.emptied = None;
        }
        if text == self.raw && matches!(self.seen, Seen::Content(_)) {
            return false;
        }
        let seen = parse(text);
        self.raw.clear();
        self.raw.extend_from_slice(text);
        self.set(seen)
    }

    fn set(&mut self, seen: Seen) -> bool {
        let differs = self.seen != seen;
        self.seen = seen;
        differs
    }

    fn read(&mut self, buffer: &mut [u8; BUFFER], check_path: bool) -> io::Result<usize> {
        // After its module is unloaded, reading the descriptor returns ENOENT; the new file must be
        // opened.
        if let Some(opened) = &self.file
            && opened.is_current(&self.path, check_path)
            && let Ok(length) = opened.read(buffer)
        {
            return Ok(length);
        }
        let opened = OpenFile::open(&self.path)?;
        let length = opened.read(buffer)?;
        self.file = Some(opened);
        Ok(length)
    }

    /// Watches it for writes, once it could be read.
    fn watch(&mut self, watcher: &SysctlWatcher) -> Result<(), Errno> {
        if let Some(opened) = &mut self.file
            && opened.watch.is_none()
        {
            opened.watch = Some(watcher.watch(&opened.file, opened.of_kernel)?);
        }
        Ok(())
    }
}

impl OpenFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblocking())
            .open(path)?;
        let of_kernel = is_of_kernel(&file)?;
        let identity = identity(&file.metadata()?);
        Ok(Self {
            file,
            of_kernel,
            identity,
            watch: None,
        })
    }

    fn read(&self, buffer: &mut [u8; BUFFER]) -> io::Result<usize> {
        let (usual, _) = buffer.split_at_mut(USUAL);
        match self.file.read_at(usual, 0)? {
            USUAL => self.file.read_at(buffer, 0),
            length => Ok(length),
        }
    }

    fn is_current(&self, path: &Path, check_path: bool) -> bool {
        let is_there =
            || std::fs::metadata(path).is_ok_and(|file| identity(&file) == self.identity);
        (self.of_kernel && !check_path) || is_there()
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn parse(raw: &[u8]) -> Seen {
    let Ok(text) = std::str::from_utf8(raw) else {
        return Seen::Garbled("not text".to_owned());
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
