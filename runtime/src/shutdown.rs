//! The end of the process, asked for by SIGTERM or SIGINT.

use std::time::Duration;

use tokio::signal::unix::{self, Signal, SignalKind};
use tokio::sync::watch;

/// How long parts have to finish by themselves before the process ends without them. Together with
/// what comes before and after it stays below the two seconds that are promised.
const GRACE: Duration = Duration::from_millis(1500);

/// A handle that every part of the process holds, and that says when to end.
#[derive(Debug, Clone)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
}

/// The signals cannot be listened to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen to {signal}")]
pub struct ShutdownError {
    signal: &'static str,
    #[source]
    source: std::io::Error,
}

/// Listens to SIGTERM and SIGINT from now on. When one comes, every clone of the handle says so,
/// and 1.5 s later the process ends with code 0 whatever its parts still do.
///
/// # Errors
/// When a signal cannot be listened to.
pub fn signal() -> Result<Shutdown, ShutdownError> {
    let listen = |kind, name| {
        unix::signal(kind).map_err(|source| ShutdownError {
            signal: name,
            source,
        })
    };
    let terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    let (request, requested) = watch::channel(false);
    tokio::spawn(wait(terminate, interrupt, request));
    Ok(Shutdown { requested })
}

async fn wait(mut terminate: Signal, mut interrupt: Signal, request: watch::Sender<bool>) {
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal, "ending");
    // A thread, since a part that hangs may hang the runtime.
    std::thread::spawn(|| {
        std::thread::sleep(GRACE);
        tracing::warn!("some parts did not end in time; ending without them");
        std::process::exit(0);
    });
    request.send_replace(true);
    request.closed().await;
}

impl Shutdown {
    /// Waits until the end is asked for; at once where it already was.
    pub async fn requested(&mut self) {
        // The sender lives until the request; a lost one can only mean that the runtime ends.
        let _ended = self.requested.wait_for(|requested| *requested).await;
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// A handle and what asks for the end through it, for a process that has other reasons to end
    /// than signals, and for tests.
    #[must_use]
    pub fn manual() -> (watch::Sender<bool>, Self) {
        let (request, requested) = watch::channel(false);
        (request, Self { requested })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_hears_of_the_end_also_when_it_asks_late() {
        let (request, mut one) = Shutdown::manual();
        let mut other = one.clone();
        assert!(!one.is_requested());
        request.send_replace(true);
        one.requested().await;
        other.requested().await;
        assert!(other.is_requested());
    }
}
