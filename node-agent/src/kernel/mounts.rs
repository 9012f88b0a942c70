//! Changes of this process's mounts: one over a sysctl leads its path to another file, and the
//! descriptor that is held open shows nothing of it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ticks::readiness;

/// The kernel tells of each change of the mounts on this file (proc(5)). To look up the paths of 40
/// sysctls each second instead costs as much as to read them twice.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Tells when the mounts have changed.
#[derive(Debug)]
pub(crate) struct Mounts(Option<AsyncFd<Arc<OwnedFd>>>);

impl Mounts {
    /// From now on. Where the file is not there nothing rings. Has to be called in a runtime.
    pub(crate) fn watch() -> io::Result<Self> {
        Self::of(Path::new(MOUNTS))
    }

    fn of(path: &Path) -> io::Result<Self> {
        let Ok(file) = File::open(path) else {
            return Ok(Self(None));
        };
        readiness(Arc::new(file.into()), Interest::PRIORITY).map(|ready| Self(Some(ready)))
    }

    /// Whether it will tell.
    pub(crate) const fn ring(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until the mounts have changed since the last time.
    pub(crate) async fn changed(&mut self) {
        let Some(ready) = &self.0 else {
            return std::future::pending().await;
        };
        match ready.ready(Interest::PRIORITY).await {
            Ok(mut guard) => guard.clear_ready(),
            // The runtime is ending.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn nothing_rings_while_no_mount_changes() {
        // In a namespace of its own nothing else mounts; here others may, so only the end is bounded.
        let mut none = Mounts::of(Path::new("/does/not/exist")).unwrap();
        assert!(!none.ring());
        let waited = timeout(Duration::from_millis(20), none.changed()).await;
        assert!(waited.is_err());
        assert!(Mounts::watch().unwrap().ring());
    }
}
