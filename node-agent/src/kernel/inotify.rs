//! The watcher: inotify on the files that are held open, so that a writer is answered at once.
//!
//! It only says that there is something to look at; what there is, the look finds out. Writers
//! through another mount of procfs (each container has its own) and those that use netlink ring no
//! bell: for them everything is looked at ten times a second anyway.

use std::fmt;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::inotify::{
    self, CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, remove_watch,
};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ticks::readiness;

/// How often it may ring between two ticks: somebody who writes without a pause costs a look each
/// time, and is answered by the next tick from then on.
const MOST_RINGS: u32 = 20;

/// Some 250 events at a time.
const BUFFER: usize = 4096;

/// How often a buffer is filled before the look: a writer that is faster than this must not keep the
/// agent from it.
const MOST_BUFFERS: u32 = 4;

/// One inotify instance.
#[derive(Debug, Clone)]
pub(crate) struct SysctlWatcher(Arc<OwnedFd>);

/// What a ring says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// Nothing that matters.
    Nothing,
    /// A file was written.
    Written,
    /// A file may not be where it was, or events were lost: the paths have to be looked up again.
    Moved,
}

/// A file that rings when it is written, for as long as this is kept.
pub(crate) struct Watch {
    watcher: SysctlWatcher,
    descriptor: i32,
}

impl SysctlWatcher {
    /// A watcher that nothing rings yet.
    ///
    /// # Errors
    /// EMFILE where the uid has all its instances (128 by default), ENOSYS or EPERM in some sandboxes.
    pub(crate) fn new() -> Result<Self, Errno> {
        let instance = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self(Arc::new(instance)))
    }

    /// Lets a file ring. It is watched by its descriptor: the watch is on what is held open, also when
    /// something else has taken its path, and caches that are dropped do not take it away.
    pub(crate) fn watch(&self, file: &File, of_kernel: bool) -> Result<Watch, Errno> {
        let events = if of_kernel {
            WatchFlags::MODIFY
        } else {
            // At the end of the write: before it, the file is empty.
            WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF
        };
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(Watch {
            descriptor: add_watch(&self.0, path, events)?,
            watcher: self.clone(),
        })
    }

    /// Takes what has rung since the last time, and says whether that is all.
    pub(crate) fn answer(&self) -> (Event, bool) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut ring = Event::Nothing;
        let mut filled = 0;
        loop {
            if reader.is_buffer_empty() {
                filled += 1;
                if filled > MOST_BUFFERS {
                    return (ring, false);
                }
            }
            match reader.next() {
                Ok(event) => ring = ring.max(meaning(event.events())),
                Err(Errno::INTR) => {}
                Err(_) => return (ring, true),
            }
        }
    }
}

fn meaning(events: ReadFlags) -> Event {
    let moved =
        ReadFlags::ATTRIB | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::QUEUE_OVERFLOW;
    if events.intersects(moved) {
        Event::Moved
    } else if events.intersects(ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE) {
        Event::Written
    } else {
        // The end of a watch (IN_IGNORED), which the agent itself has mostly asked for.
        Event::Nothing
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.descriptor).finish()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It holds the kernel's inode. The kernel has ended it already where the inode is gone.
        let _gone = remove_watch(&self.watcher.0, self.descriptor);
    }
}

/// The watcher in an async loop.
#[derive(Debug)]
pub(crate) struct Events {
    watcher: Option<(SysctlWatcher, AsyncFd<Arc<OwnedFd>>)>,
    left: u32,
}

impl Events {
    /// Has to be called in a runtime. Without a watcher it never rings.
    pub(crate) fn new(watcher: Option<&SysctlWatcher>) -> std::io::Result<Self> {
        let with_readiness = |watcher: &SysctlWatcher| {
            let ready = readiness(Arc::clone(&watcher.0), Interest::READABLE)?;
            Ok::<_, std::io::Error>((watcher.clone(), ready))
        };
        Ok(Self {
            watcher: watcher.map(with_readiness).transpose()?,
            left: MOST_RINGS,
        })
    }

    /// A tick: it may ring again.
    pub(crate) fn tick(&mut self) {
        self.left = MOST_RINGS;
    }

    /// Waits for a ring that matters, and takes it. Dropped before its end it has taken nothing.
    pub(crate) async fn rung(&mut self) -> Event {
        loop {
            let Some((watcher, ready)) = self.watcher.as_ref().filter(|_| self.left > 0) else {
                return std::future::pending().await;
            };
            let Ok(mut guard) = ready.readable().await else {
                // The runtime is ending.
                return std::future::pending().await;
            };
            let (ring, is_all) = watcher.answer();
            if is_all {
                guard.clear_ready();
            }
            // What a look has answered already has cost a wake-up at most.
            if ring != Event::Nothing {
                self.left -= 1;
                return ring;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn a_write_rings_once_and_the_end_of_a_watch_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let watcher = SysctlWatcher::new().unwrap();
        let watch = watcher.watch(file.as_file(), false).unwrap();
        let mut events = Events::new(Some(&watcher)).unwrap();
        fs::write(file.path(), "1").unwrap();
        assert_eq!(timeout(SOON, events.rung()).await, Ok(Event::Written));
        drop(watch);
        fs::write(file.path(), "2").unwrap();
        assert!(timeout(SOON, events.rung()).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_another_takes_the_place_of_has_moved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "1").unwrap();
        let file = File::open(&path).unwrap();
        let watcher = SysctlWatcher::new().unwrap();
        let _watch = watcher.watch(&file, false).unwrap();
        let mut events = Events::new(Some(&watcher)).unwrap();
        fs::write(dir.path().join("b"), "2").unwrap();
        fs::rename(dir.path().join("b"), &path).unwrap();
        assert_eq!(timeout(SOON, events.rung()).await, Ok(Event::Moved));
    }

    #[tokio::test]
    async fn a_writer_without_a_pause_is_answered_so_often_and_then_by_the_tick() {
        let files: Vec<_> = (0..2)
            .map(|_| tempfile::NamedTempFile::new().unwrap())
            .collect();
        let watcher = SysctlWatcher::new().unwrap();
        let watch = |file: &tempfile::NamedTempFile| watcher.watch(file.as_file(), true).unwrap();
        let _watches: Vec<_> = files.iter().map(watch).collect();
        // Two files in turn: events that are equal to the last one are counted once.
        let scribble = |times| {
            for _ in 0..times {
                for mut file in files.iter().map(tempfile::NamedTempFile::as_file) {
                    file.write_all(b"1").unwrap();
                }
            }
        };
        let mut events = Events::new(Some(&watcher)).unwrap();
        let mut rings = 0;
        scribble(5000);
        while timeout(Duration::from_millis(50), events.rung())
            .await
            .is_ok()
        {
            rings += 1;
        }
        // What is left of the queue stays there for the next tick.
        assert!((1..=MOST_RINGS).contains(&rings), "{rings}");
        scribble(8000);
        assert!(
            timeout(SOON, async {
                while events.rung().await != Event::Nothing {}
            })
            .await
            .is_err()
        );
        events.tick();
        assert_eq!(timeout(SOON, events.rung()).await, Ok(Event::Written));
    }

    #[tokio::test]
    async fn a_queue_that_overflowed_means_look_at_everything() {
        let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let files: Vec<_> = (0..2)
            .map(|_| tempfile::NamedTempFile::new().unwrap())
            .collect();
        let watcher = SysctlWatcher::new().unwrap();
        let watch = |file: &tempfile::NamedTempFile| watcher.watch(file.as_file(), true).unwrap();
        let _watches: Vec<_> = files.iter().map(watch).collect();
        for _ in 0..=most / 2 {
            for mut file in files.iter().map(tempfile::NamedTempFile::as_file) {
                file.write_all(b"1").unwrap();
            }
        }
        let mut events = Events::new(Some(&watcher)).unwrap();
        let lost = async {
            while events.rung().await != Event::Moved {
                events.tick();
            }
        };
        assert!(timeout(10 * SOON, lost).await.is_ok());
    }

    #[tokio::test]
    async fn without_a_doorbell_nothing_rings() {
        let mut events = Events::new(None).unwrap();
        assert!(timeout(SOON / 10, events.rung()).await.is_err());
    }
}
