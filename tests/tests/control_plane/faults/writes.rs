//! The writes of operators and agents, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use anyhow::ensure;
use nettune_tests::cluster::AGENT;
use nettune_tests::control_plane::audit::Request;

pub(super) const SPEC_CHANGED: &str = "operator: patch nodenetworkprofiles";
pub(super) const PROFILE_CREATED: &str = "operator: create nodenetworkprofiles";
pub(super) const PROFILE_DELETED: &str = "operator: delete nodenetworkprofiles";
pub(super) const TUNING_SAID: &str = "operator: update nodenetworktunings/status";
pub(super) const AGENT_SAID: &str = "agent: patch nodenetworkprofiles/status";

/// Requests as they came; printed, one on each line.
#[derive(Debug)]
pub(super) struct Writes(Vec<Request>);

impl Writes {
    pub(super) fn of(requests: Vec<Request>) -> Self {
        Self(requests)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Request> {
        self.0.iter()
    }

    /// Those that were done, counted by who wrote what.
    pub(super) fn counted(&self) -> BTreeMap<String, usize> {
        let mut counted = BTreeMap::new();
        for write in self.all().filter(|write| write.is_done()) {
            let who = if write.user == AGENT {
                "agent"
            } else {
                "operator"
            };
            let what = format!("{who}: {} {}", write.verb, write.resource);
            *counted.entry(what).or_default() += 1;
        }
        counted
    }

    /// How often something was done, such as [`SPEC_CHANGED`].
    pub(super) fn done(&self, what: &str) -> usize {
        self.counted().get(what).copied().unwrap_or(0)
    }

    /// Fails where something was done less or more often.
    pub(super) fn have(&self, times: RangeInclusive<usize>, what: &str) -> anyhow::Result<()> {
        let done = self.done(what);
        ensure!(
            times.contains(&done),
            "{done} times, not {times:?}: {what}, in {self}"
        );
        Ok(())
    }

    /// Fails where something was not done just so often.
    pub(super) fn have_just(&self, times: usize, what: &str) -> anyhow::Result<()> {
        self.have(times..=times, what)
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all().try_for_each(|write| write!(f, "\n{write}"))
    }
}
