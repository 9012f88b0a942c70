//! A tick at a steady pace, for as little work as there can be.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer of the kernel's. One of tokio's wakes the process twice for each tick, and goes through the
/// kernel twice more to set itself: together that cost more than looking at 40 sysctls.
#[derive(Debug)]
pub(crate) struct Ticks(AsyncFd<Arc<OwnedFd>>);

impl Ticks {
    /// Ticks from one period on. Has to be called in a runtime.
    pub(crate) fn every(period: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let period = Timespec::try_from(period).map_err(|_| Errno::INVAL)?;
        let times = Itimerspec {
            it_interval: period,
            it_value: period,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        Ok(Self(readiness(timer.into(), Interest::READABLE)?))
    }

    /// Waits for the next tick; those that were missed are one. Dropped before its end it has taken
    /// nothing.
    pub(crate) async fn tick(&mut self) {
        loop {
            let Ok(mut guard) = self.0.readable().await else {
                // The runtime is ending.
                return std::future::pending().await;
            };
            // How often it has ticked since the last read, as a u64.
            let mut missed = [0; 8];
            let read = rustix::io::read(self.0.get_ref(), &mut missed);
            guard.clear_ready();
            if read.is_ok() {
                return;
            }
        }
    }
}

/// Lets a task wait until a descriptor is ready. Has to be called in a runtime.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe, as not every type keeps its descriptor open: this one does"
)]
pub(crate) fn readiness(
    descriptor: Arc<OwnedFd>,
    interest: Interest,
) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    AsyncFd::with_interest(descriptor, interest)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn ticks_keep_their_pace_and_missed_ones_are_one() {
        let period = Duration::from_millis(20);
        let start = Instant::now();
        let mut ticks = Ticks::every(period).unwrap();
        ticks.tick().await;
        ticks.tick().await;
        assert!(start.elapsed() >= 2 * period);
        std::thread::sleep(5 * period);
        ticks.tick().await;
        // At most one more has come in the meantime.
        let start = Instant::now();
        ticks.tick().await;
        ticks.tick().await;
        assert!(start.elapsed() >= period / 2);
    }
}
