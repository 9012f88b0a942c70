//! Reading and writing sysctls through descriptors that are held open.

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
    held: BTreeMap<SysctlKey, TrackedKey>,
    /// `None` until [`Self::listen`].
    watcher: Option<Result<SysctlWatcher, Errno>>,
    paths_checked: Option<Instant>,
    buffer: Box<[u8; BUFFER]>,
}

/// Longer than any value that is taken ([`Value::parse`]).
const BUFFER: usize = 4096;

/// What is read at first. The kernel allocates and clears as much as is asked for, each time, and
/// only lists are longer than this.
const USUAL: usize = 128;

/// How often the path of each key is looked up again: a mount over it changes nothing on the
/// descriptor that is held open.
const CHECK_PATHS: Duration = Duration::from_secs(1);

/// How long a file may be empty before that is its content.
const BEING_WRITTEN: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct TrackedKey {
    path: PathBuf,
    file: Option<OpenFile>,
    raw: Vec<u8>,
    seen: Seen,
    /// Since when looks have found an empty file.
    emptied: Option<Instant>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    /// Files of the kernel stay the same until they are gone, and then say so. Files of a directory
    /// that stands for it can be replaced: their path is checked at each look.
    of_kernel: bool,
    identity: (u64, u64),
    /// Kept to end with the file. `None` where a change of it rings no bell.
    watch: Option<Watch>,
}

/// How changes are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeDetection {
    /// At once where the writer shares this mount of procfs; else by the next look.
    Inotify,
    /// By the next look. The error is what the kernel answered to the wish for events.
    Polling(Errno),
}

impl Sysctls {
    /// Nothing is looked at yet.
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

    /// Sets what is looked at; descriptors of the rest are closed.
    pub fn track(&mut self, keys: &BTreeSet<SysctlKey>) {
        self.held.retain(|key, _| keys.contains(key));
        for key in keys {
            if !self.held.contains_key(key) {
                let path = self.root.join(key.path());
                self.held.insert(key.clone(), TrackedKey::new(path));
            }
        }
    }

    /// Reads all, and says whether anything differs from the last time.
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
            // Half a watcher would not be told from a whole one.
            self.watcher = Some(Err(errno));
        }
        changed
    }

    /// Lets the keys ring when they are written, and returns what rings, where there is such a thing.
    pub(crate) fn listen(&mut self) -> Option<&SysctlWatcher> {
        let watcher = self.watcher.get_or_insert_with(SysctlWatcher::new);
        watcher.as_ref().ok()
    }

    /// How changes are noticed; `None` where nobody listens.
    #[must_use]
    pub fn change_detection(&self) -> Option<ChangeDetection> {
        Some(match self.watcher.as_ref()? {
            Ok(_) => ChangeDetection::Inotify,
            Err(errno) => ChangeDetection::Polling(*errno),
        })
    }

    /// What the last look brought.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<SysctlKey, Seen> {
        let seen = |(key, held): (&SysctlKey, &TrackedKey)| (key.clone(), held.seen.clone());
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
        .custom_flags(nonblocking())
        .open(path)?;
    // In one write: the kernel parses each write for itself.
    let mut line = format!("{}\n", content.as_str()).into_bytes();
    let length = line.len();
    if !of_kernel {
        // Nor is a file in its place ever empty, whenever this process is killed: what is longer is written over.
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

/// So that a pipe in a file's place is an error and not a wait for ever.
fn nonblocking() -> i32 {
    OFlags::NONBLOCK.bits().cast_signed()
}

/// The error's number; EIO for those that the standard library makes up.
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

    /// Reads it, and says whether it differs from the last time.
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
            // The kernel writes at least a newline. A file of a directory that is being written has
            // been truncated: a later look will see what comes.
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
        // A sysctl whose module went away answers ENOENT on a descriptor that was held; the one that
        // came back in its place has to be opened anew.
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

    /// Lets it ring when it is written, once it could be read.
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
