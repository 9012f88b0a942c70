//! Wakes the agent when another process writes a sysctl: inotify on the files that are held open.
//!
//! An event only triggers a look. Writers through another mount of procfs (each container has its own)
//! and writers that use netlink cause no event; the look every 100 ms finds them.

use std::fmt;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::inotify::{
    self, CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, remove_watch,
};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many events may wake the agent between two ticks: a process that writes without a pause costs
/// a look each time, and from then on the next tick finds what it wrote.
const MAX_WAKES: u32 = 20;

/// About 250 events per read.
const BUFFER: usize = 4096;

/// One inotify instance.
#[derive(Debug, Clone)]
pub(crate) struct SysctlWatcher(Arc<OwnedFd>);

/// A watched file; dropping this ends the watch.
pub(crate) struct Watch {
    watcher: SysctlWatcher,
    descriptor: i32,
}

impl SysctlWatcher {
    /// # Errors
    /// EMFILE where the uid has all its instances (128 by default), ENOSYS or EPERM in some sandboxes.
    pub(crate) fn new() -> Result<Self, Errno> {
        let instance = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self(Arc::new(instance)))
    }

    /// Watches a file by its descriptor: the watch is on what is held open, also when something else
    /// has taken its path, and dropping caches does not remove it.
    pub(crate) fn watch(&self, file: &File, of_kernel: bool) -> Result<Watch, Errno> {
        let events = if of_kernel {
            WatchFlags::MODIFY
        } else {
            // At the end of the write: before it, the file is empty.
            WatchFlags::CLOSE_WRITE
        };
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(Watch {
            descriptor: add_watch(&self.0, path, events)?,
            watcher: self.clone(),
        })
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.descriptor).finish()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The watch holds the kernel's inode. The kernel has removed it already if the inode is gone.
        let _gone = remove_watch(&self.watcher.0, self.descriptor);
    }
}

/// The events of a watcher, for an async loop.
#[derive(Debug)]
pub(crate) struct Events {
    instance: Option<AsyncFd<Arc<OwnedFd>>>,
    left: u32,
}

impl Events {
    /// Has to be called in a runtime. Without a watcher there are no events.
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe, as not every type keeps its descriptor open: this one does"
    )]
    pub(crate) fn new(watcher: Option<&SysctlWatcher>) -> io::Result<Self> {
        let instance = watcher
            .map(|watcher| AsyncFd::with_interest(Arc::clone(&watcher.0), Interest::READABLE))
            .transpose()?;
        Ok(Self {
            instance,
            left: MAX_WAKES,
        })
    }

    /// A tick: events may wake the agent again.
    pub(crate) fn tick(&mut self) {
        self.left = MAX_WAKES;
    }

    /// Waits until a file was written. Cancel safe.
    pub(crate) async fn written(&mut self) {
        loop {
            let Some(instance) = self.instance.as_ref().filter(|_| self.left > 0) else {
                return std::future::pending().await;
            };
            let Ok(mut guard) = instance.readable().await else {
                // The runtime is ending.
                return std::future::pending().await;
            };
            if let Ok(Ok(true)) = guard.try_io(|instance| take_events(instance.get_ref())) {
                self.left -= 1;
                return;
            }
        }
    }
}

/// Takes one buffer of events, and says whether one of them is more than the end of a watch.
fn take_events(instance: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut reader = Reader::new(instance, &mut buffer);
    let mut is_written = false;
    loop {
        is_written |= !reader.next()?.events().contains(ReadFlags::IGNORED);
        if reader.is_buffer_empty() {
            return Ok(is_written);
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
    async fn a_write_wakes_once_and_the_end_of_a_watch_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let watcher = SysctlWatcher::new().unwrap();
        let watch = watcher.watch(file.as_file(), false).unwrap();
        let mut events = Events::new(Some(&watcher)).unwrap();
        fs::write(file.path(), "1").unwrap();
        assert_eq!(timeout(SOON, events.written()).await, Ok(()));
        drop(watch);
        fs::write(file.path(), "2").unwrap();
        assert!(timeout(SOON, events.written()).await.is_err());
    }

    #[tokio::test]
    async fn a_writer_without_a_pause_wakes_at_most_twenty_times_per_tick() {
        let files: Vec<_> = (0..2)
            .map(|_| tempfile::NamedTempFile::new().unwrap())
            .collect();
        let watcher = SysctlWatcher::new().unwrap();
        let watch = |file: &tempfile::NamedTempFile| watcher.watch(file.as_file(), true).unwrap();
        let _watches: Vec<_> = files.iter().map(watch).collect();
        // Two files in turn: the kernel merges an event that equals the last one.
        let scribble = |times| {
            for _ in 0..times {
                for mut file in files.iter().map(tempfile::NamedTempFile::as_file) {
                    file.write_all(b"1").unwrap();
                }
            }
        };
        let mut events = Events::new(Some(&watcher)).unwrap();
        let mut wakes = 0;
        scribble(5000);
        while timeout(Duration::from_millis(50), events.written())
            .await
            .is_ok()
        {
            wakes += 1;
        }
        // What is left of the queue stays there for the next tick.
        assert_eq!(wakes, MAX_WAKES);
        events.tick();
        assert_eq!(timeout(SOON, events.written()).await, Ok(()));
    }

    #[tokio::test]
    async fn without_a_watcher_nothing_wakes() {
        let mut events = Events::new(None).unwrap();
        assert!(timeout(SOON / 10, events.written()).await.is_err());
    }
}
