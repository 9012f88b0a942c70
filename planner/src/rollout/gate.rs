//! The rollout of one tuning: which of its nodes were written, have failed or wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use nettune_crds::Rollout;

/// The maximum number of failed nodes that are named.
pub(crate) const MOST_NAMED: usize = 10;

/// The rollouts of one tuning, over all its groups.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) tuning: Arc<str>,
    pub(crate) rule: Rollout,
    /// Whether no rollout was in progress at the last decision.
    pub(crate) was_resting: bool,
    /// Nodes of this rollout that are canaries, have passed or have failed.
    pub(crate) written: u32,
    pub(crate) failed: u32,
    pub(crate) in_flight: u32,
    /// Waiting nodes, including those that are admitted now.
    pub(crate) waiting: u32,
    /// The first few that failed, and why.
    pub(crate) named: Vec<(Arc<str>, Arc<str>)>,
}

impl Gate {
    pub(crate) fn new(tuning: Arc<str>, rule: Rollout, resting: &BTreeSet<Arc<str>>) -> Self {
        Self {
            was_resting: resting.contains(&tuning),
            tuning,
            rule,
            written: 0,
            failed: 0,
            in_flight: 0,
            waiting: 0,
            named: Vec::new(),
        }
    }

    /// Whether more than `maxFailed` nodes have failed.
    pub(crate) fn is_stopped(&self) -> bool {
        !self.rule.all_at_once && self.failed > self.rule.max_failed.of(self.written)
    }

    /// Whether no further node is written.
    pub(crate) fn is_closed(&self) -> bool {
        self.rule.paused || self.is_stopped()
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.waiting == 0 && self.in_flight == 0
    }
}

/// The standing of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    InFlight,
    Passed,
    Failed(Arc<str>),
}
