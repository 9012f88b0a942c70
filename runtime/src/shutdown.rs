//! Shutdown on SIGTERM or SIGINT.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long tasks have to finish before the process exits without them. The documented limit is two seconds in
/// total.
const GRACE: Duration = Duration::from_millis(1500);

#[derive(Debug, thiserror::Error)]
#[error("cannot handle SIGTERM and SIGINT")]
pub struct ShutdownError(#[from] std::io::Error);

/// Returns a token that SIGTERM and SIGINT cancel. 1.5 s later the process exits with code 0, whatever still
/// runs.
///
/// # Errors
/// When a signal handler cannot be installed.
pub fn on_signal() -> Result<CancellationToken, ShutdownError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let requested = shutdown.clone();
    tokio::spawn(async move {
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
        requested.cancel();
    });
    Ok(shutdown)
}
