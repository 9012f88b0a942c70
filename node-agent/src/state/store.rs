//! The state directory: saved so that a kill at any moment leaves the old state or the new one.
//!
//! There are three files, two of them only briefly: `state.json.tmp` is being written, `state.json.new`
//! is complete and the newest that any process of this boot finds, and `state.json` also survives a
//! power loss. Between the second and the third is the flush to disk, which takes longer than
//! everything else: it waits until the kernel has its values (`docs/design/0011-deferred-flush.md`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::kernel::sysctl::errno;
use crate::state::format::{self, Read, Undecodable, VERSION};
use nettune_reconcile::effect::Persisted;

/// The state directory of one node in one boot.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    node: String,
    boot_id: String,
}

/// The state found at startup.
#[derive(Debug)]
pub struct Loaded {
    /// What is still valid in this boot.
    pub persisted: Persisted,
    /// The name of another node that the state belongs to: its profile is not applied here.
    pub other_node: Option<String>,
    pub set_aside: Option<SetAside>,
}

/// A state that could not be used and was set aside for inspection.
#[derive(Debug)]
pub struct SetAside {
    pub reason: UnusableState,
    /// Its new path; `None` if it could not be moved.
    pub kept_as: Option<PathBuf>,
    /// Why it was not moved, or why its replacement would not survive a power loss.
    pub unsaved: Option<SaveError>,
}

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableState {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is truncated, overwritten, or another file.
    #[error("{} is not the state of a nettune agent", path.display())]
    Foreign {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// A newer agent wrote it.
    #[error("{} has version {version}; this agent supports {VERSION}", path.display())]
    Newer { path: PathBuf, version: u32 },
}

/// The state could not be saved.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {}", path.display())]
pub struct SaveError {
    attempt: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SaveError {
    let path = path.to_owned();
    move |source| SaveError {
        attempt,
        path,
        source,
    }
}

impl SaveError {
    /// The system's error.
    #[must_use]
    pub fn errno(&self) -> Errno {
        errno(&self.source)
    }
}

const FLUSHED: &str = "state.json";
const NOTED: &str = "state.json.new";
const UNFINISHED: &str = "state.json.tmp";
const ASIDE: &str = "state.json.bad";

/// How many unusable states are kept: a disk that corrupts one at each start must not fill up.
const MOST_ASIDE: u32 = 10;

/// A profile has at most 128 keys with 2 KiB of text each, and each key a record.
const MOST_BYTES: u64 = 4 << 20;

/// Attempts to read a state before it is set aside: for half a second, so that startup is not delayed
/// for long.
const TRIES: u32 = 6;

/// The pause between two attempts.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

impl StateDir {
    #[must_use]
    pub fn new(dir: &Path, node: &str, boot_id: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            node: node.to_owned(),
            boot_id: boot_id.to_owned(),
        }
    }

    /// Reads what an earlier process saved. From another boot only the profile is used; from another node,
    /// nothing. An unusable state is set aside: then the kernel may hold nettune's values, and originals
    /// are unknown in this boot.
    #[must_use]
    pub fn load(&self) -> Loaded {
        let (file, reason) = match self.read_with_retries() {
            Ok((persisted, other_node)) => {
                return Loaded {
                    persisted,
                    other_node,
                    set_aside: None,
                };
            }
            Err(unusable) => unusable,
        };
        // A power loss may corrupt what was not flushed; the profile before it still exists then.
        let (other, older) = match file {
            NOTED => (FLUSHED, self.read_file(FLUSHED).ok().flatten()),
            _ => (NOTED, None),
        };
        let persisted = Persisted {
            originals_lost: true,
            source: older.and_then(|(older, _)| older.source),
            ..Persisted::default()
        };
        // First written under the other name: after a kill in between, either the unusable state is still
        // found, or a state that says that originals were lost.
        let set_aside = self.write(&persisted, other).and_then(|()| {
            let (from, aside) = (self.dir.join(file), self.name_aside());
            fs::rename(&from, &aside).map_err(failed("set aside", &from))?;
            Ok(aside)
        });
        let (kept_as, unsaved) = match set_aside {
            Ok(aside) => {
                let saved = self.note(&persisted).and_then(|()| self.flush());
                (Some(aside), saved.err())
            }
            Err(error) => (None, Some(error)),
        };
        Loaded {
            persisted,
            other_node: None,
            set_aside: Some(SetAside {
                reason,
                kept_as,
                unsaved,
            }),
        }
    }

    /// An unused name; if all are taken, the last one.
    fn name_aside(&self) -> PathBuf {
        let free = |path: &PathBuf| {
            let found = fs::symlink_metadata(path);
            found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let first = self.dir.join(ASIDE);
        let numbered = |number: u32| self.dir.join(format!("{ASIDE}.{number}"));
        let further = (1..MOST_ASIDE).map(numbered);
        let mut all = std::iter::once(first).chain(further);
        all.find(free).unwrap_or_else(|| numbered(MOST_ASIDE - 1))
    }

    /// Like [`load`](Self::load), but sets nothing aside.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn peek(&self) -> Result<Persisted, UnusableState> {
        let read = self.read().map_err(|(_, unusable)| unusable);
        read.map(|(persisted, _)| persisted)
    }

    /// A read error says nothing about the content and may be temporary: too many open files, a disk that
    /// comes back.
    fn read_with_retries(&self) -> Result<Read, (&'static str, UnusableState)> {
        for _ in 1..TRIES {
            match self.read() {
                Err((_, UnusableState::Read { .. })) => thread::sleep(BETWEEN_TRIES),
                other => return other,
            }
        }
        self.read()
    }

    /// The newest state; an error comes with its file.
    fn read(&self) -> Result<Read, (&'static str, UnusableState)> {
        for name in [NOTED, FLUSHED] {
            match self.read_file(name) {
                Ok(Some(read)) => return Ok(read),
                Ok(None) => {}
                Err(unusable) => return Err((name, unusable)),
            }
        }
        Ok(Read::default())
    }

    fn read_file(&self, name: &str) -> Result<Option<Read>, UnusableState> {
        let path = self.dir.join(name);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(UnusableState::Read { path, source }),
        }
        match format::decode(&bytes, &self.node, &self.boot_id) {
            Ok(read) => Ok(Some(read)),
            Err(Undecodable::Foreign(source)) => Err(UnusableState::Foreign { path, source }),
            Err(Undecodable::Newer { version }) => Err(UnusableState::Newer { path, version }),
        }
    }

    /// Saves the state for every process of this boot: written to another file, then renamed. A power
    /// loss may undo it until [`flush`](Self::flush), but then the kernel has lost its values as well.
    ///
    /// # Errors
    /// When any of these fails; the last state stays.
    pub fn note(&self, persisted: &Persisted) -> Result<(), SaveError> {
        self.write(persisted, NOTED)
    }

    fn write(&self, persisted: &Persisted, name: &str) -> Result<(), SaveError> {
        let unfinished = self.dir.join(UNFINISHED);
        let bytes = format::encode(persisted, &self.node, &self.boot_id)
            .map_err(|error| failed("encode", &unfinished)(error.into()))?;
        fs::create_dir_all(&self.dir).map_err(failed("create", &self.dir))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .map_err(failed("create", &unfinished))?;
        file.write_all(&bytes)
            .map_err(failed("write", &unfinished))?;
        let path = self.dir.join(name);
        fs::rename(&unfinished, &path).map_err(failed("replace", &path))
    }

    /// Makes what was noted last survive a loss of power: flushed, put in the place of the last such
    /// state in one step, and the directory flushed. Says whether there was anything to flush.
    ///
    /// # Errors
    /// When any of these fails; what was noted is still there then, for this boot.
    pub fn flush(&self) -> Result<bool, SaveError> {
        let (noted, flushed) = (self.dir.join(NOTED), self.dir.join(FLUSHED));
        let file = match File::open(&noted) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file.map_err(failed("open", &noted))?,
        };
        file.sync_all().map_err(failed("flush", &noted))?;
        fs::rename(&noted, &flushed).map_err(failed("replace", &flushed))?;
        let dir = File::open(&self.dir).map_err(failed("open", &self.dir))?;
        dir.sync_all().map_err(failed("flush", &self.dir))?;
        Ok(true)
    }
}
