//! Whether this process may write, and the task that holds the Lease.

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::RunError;
use crate::leader::lease::{Candidate, LeaseLost, WriteDeadline};

/// Whether a write may be started.
#[derive(Clone)]
pub(crate) enum Writable {
    /// There is no other operator.
    Always,
    /// While the Lease is certainly held.
    Until(watch::Receiver<WriteDeadline>),
}

impl Writable {
    pub(crate) fn now(&self) -> bool {
        match self {
            Self::Always => true,
            Self::Until(deadline) => deadline.borrow().is_some_and(|at| Instant::now() < at),
        }
    }
}

pub(crate) struct Leadership {
    pub(crate) writable: Writable,
    holder: Option<Holder>,
}

/// The task that holds the Lease. Dropping `stop` asks it to release the Lease.
struct Holder {
    task: JoinHandle<Result<(), LeaseLost>>,
    stop: oneshot::Sender<()>,
}

impl Leadership {
    /// Without a candidate this is the only operator.
    pub(crate) fn new(candidate: Option<Candidate>) -> Self {
        let Some(candidate) = candidate else {
            return Self {
                writable: Writable::Always,
                holder: None,
            };
        };
        let (stop, stopped) = oneshot::channel();
        let (sender, deadline) = watch::channel(None);
        let task = tokio::spawn(candidate.run(sender, stopped));
        Self {
            writable: Writable::Until(deadline),
            holder: Some(Holder { task, stop }),
        }
    }

    /// Waits until the Lease is acquired or renewed.
    ///
    /// # Errors
    /// When the Lease is lost.
    pub(crate) async fn changed(&mut self) -> Result<(), RunError> {
        let (Writable::Until(deadline), Some(holder)) = (&mut self.writable, &mut self.holder)
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            Ok(()) = deadline.changed() => Ok(()),
            ended = &mut holder.task => {
                ended.map_err(|_| RunError::LeaseEnded)??;
                Err(RunError::LeaseEnded)
            }
        }
    }

    pub(crate) async fn release(self) {
        if let Some(Holder { task, stop }) = self.holder {
            drop(stop);
            let _ = task.await;
        }
    }
}
