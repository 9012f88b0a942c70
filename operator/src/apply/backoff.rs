//! Delays writes to single objects that failed or were undone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nettune_crds::NodeNetworkProfileSpec;
use nettune_planner::{Object, Write, eq_ignoring_reasons};
use tokio::time::Instant;

/// The first wait after a write that failed; doubles with each failure.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait. An object that needs the same write again within this, although it succeeded, is
/// delayed too: another client changes it.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A tuning's counts change with every node that answers; its status is written at most this often.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// The spec that a write sets; `None` for any write but an update of a profile.
pub(crate) type DesiredSpec = Option<Arc<NodeNetworkProfileSpec>>;

pub(crate) fn desired_spec(write: &Write) -> DesiredSpec {
    match write {
        Write::ReplaceProfile { spec, .. } => Some(Arc::clone(spec)),
        _ => None,
    }
}

/// When each object may be written again.
#[derive(Default)]
pub(crate) struct Backoffs(HashMap<Object, Backoff>);

struct Backoff {
    until: Instant,
    /// The wait after the next failure in a row.
    next: Duration,
    /// Only a write of this spec waits; another one is sent at once.
    spec: DesiredSpec,
}

impl Backoff {
    fn applies_to(&self, spec: &DesiredSpec) -> bool {
        match (&self.spec, spec) {
            (Some(before), Some(now)) => eq_ignoring_reasons(before, now),
            _ => true,
        }
    }
}

impl Backoffs {
    pub(crate) fn forget_old(&mut self, now: Instant) {
        self.0
            .retain(|_, backoff| now < backoff.until + LONGEST_WAIT);
    }

    /// Until when a write has to wait.
    pub(crate) fn until(&self, write: &Write, now: Instant) -> Option<Instant> {
        let backoff = self.0.get(&write.object())?;
        let waits = now < backoff.until && backoff.applies_to(&desired_spec(write));
        waits.then_some(backoff.until)
    }

    /// A write succeeded. The same one waits at least this long, and longer each time.
    pub(crate) fn succeeded(
        &mut self,
        object: Object,
        spec: DesiredSpec,
        least: Duration,
        now: Instant,
    ) {
        let before = self.0.get(&object);
        let (wait, next) = match (&object, before.filter(|before| before.applies_to(&spec))) {
            (Object::Tuning(_), _) => (STATUS_INTERVAL, SHORTEST_WAIT),
            (_, None) => (Duration::ZERO, SHORTEST_WAIT),
            (_, Some(before)) => (before.next, (before.next * 2).min(LONGEST_WAIT)),
        };
        let backoff = Backoff {
            until: now + wait.max(least),
            next: next.max((least * 2).min(LONGEST_WAIT)),
            spec,
        };
        self.0.insert(object, backoff);
    }

    /// The wait if a write fails now.
    pub(crate) fn next_wait(&self, object: &Object, spec: &DesiredSpec) -> Duration {
        let before = self.0.get(object);
        let before = before.filter(|before| before.applies_to(spec));
        before.map_or(SHORTEST_WAIT, |before| before.next)
    }

    pub(crate) fn failed(
        &mut self,
        object: Object,
        spec: DesiredSpec,
        wait: Duration,
        now: Instant,
    ) {
        let backoff = Backoff {
            until: now + wait,
            next: (wait * 2).min(LONGEST_WAIT),
            spec,
        };
        self.0.insert(object, backoff);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
