//! Shutdown on SIGTERM or SIGINT.

use std::time::Duration;

use tokio::signal::unix::{self, Signal, SignalKind};
use tokio::sync::watch;

/// How long tasks have to finish before the process exits without them. The documented limit is two seconds in
/// total.
const GRACE: Duration = Duration::from_millis(1500);

/// Tells tasks when to end. Clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot handle {signal}")]
pub struct ShutdownError {
    signal: &'static str,
    #[source]
    source: std::io::Error,
}

/// Requests shutdown on SIGTERM or SIGINT. 1.5 s later the process exits with code 0, whatever still runs.
///
/// # Errors
/// When a signal handler cannot be installed.
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
    tracing::info!(signal, "shutting down");
    // A thread, since a task that hangs may block the runtime.
    std::thread::spawn(|| {
        std::thread::sleep(GRACE);
        tracing::warn!("some tasks did not finish in time; exiting");
        std::process::exit(0);
    });
    request.send_replace(true);
    request.closed().await;
}

impl Shutdown {
    /// Waits until shutdown is requested.
    pub async fn requested(&mut self) {
        // The sender lives until the request. Without it the runtime ends.
        let _ended = self.requested.wait_for(|requested| *requested).await;
    }

    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// A handle and the sender that requests its shutdown, for tests and for processes that end without a
    /// signal.
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
    async fn every_clone_sees_the_request_even_late() {
        let (request, mut one) = Shutdown::manual();
        let mut other = one.clone();
        assert!(!one.is_requested());
        request.send_replace(true);
        one.requested().await;
        other.requested().await;
        assert!(other.is_requested());
    }
}
