//! Counts the nodes of each tuning for its status.

use std::collections::BTreeMap;
use std::sync::Arc;

use nettune_crds::NodesCount;

use crate::assign::Assignment;
use crate::cluster::profile::Reported;
use crate::cluster::state::ClusterState;
use crate::release::{ReleasingNode, Stage};
use crate::rollout::changes::{Change, Changes};
use crate::rollout::gate::MOST_NAMED;
use crate::rollout::rollouts::Rollouts;
use crate::rollout::transition::Step;

/// The counts of all tunings.
pub(crate) struct Tallies<'a> {
    /// In the order of the gates.
    pub(crate) by_gate: Vec<Tally>,
    /// The frozen nodes, by the name of the tuning that wrote their profile.
    frozen: BTreeMap<&'a str, Tally>,
}

/// Counts the nodes of every tuning. `unresponsive` agents come by gate.
pub(crate) fn count<'a>(
    cluster: &ClusterState,
    assignment: &Assignment<'a>,
    changes: &Changes<'_>,
    releases: &[ReleasingNode<'_>],
    rollouts: &Rollouts<'_>,
    unresponsive: &BTreeMap<usize, i32>,
) -> Tallies<'a> {
    let mut by_gate: Vec<Tally> = Vec::new();
    by_gate.resize_with(rollouts.gates.len(), Tally::default);
    for (claim, tally) in assignment.claims.iter().zip(&mut by_gate) {
        tally.count.selected = claim.selected;
    }
    for change in &changes.existing {
        if let Some(tally) = by_gate.get_mut(change.gate) {
            tally.change(change, cluster);
        }
    }
    for new in &changes.new_nodes {
        if let Some(tally) = by_gate.get_mut(new.gate) {
            tally.refuse(new.name, cluster);
        }
    }
    for releasing in releases {
        if let Some(tally) = by_gate.get_mut(releasing.gate) {
            tally.count.releasing += i32::from(releasing.stage != Stage::Released);
        }
    }
    for (gate, count) in unresponsive {
        if let Some(tally) = by_gate.get_mut(*gate) {
            tally.count.unresponsive = *count;
        }
    }
    let mut frozen: BTreeMap<&str, Tally> = BTreeMap::new();
    for node in &assignment.frozen {
        if let Some(normalized) = &node.profile.normalized {
            let tally = frozen.entry(&normalized.tuning).or_default();
            tally.count.selected += 1;
            tally.holding(node.name, node.reported());
        }
    }
    Tallies { by_gate, frozen }
}

impl Tallies<'_> {
    /// The nodes of a tuning that cannot be used: they are frozen or released.
    pub(crate) fn of_unusable(&self, tuning: &str, rollouts: &Rollouts<'_>) -> NodesCount {
        let frozen = self.frozen.get(tuning);
        let mut count = frozen.map(|tally| tally.count).unwrap_or_default();
        let gate = rollouts.by_tuning.get(tuning);
        if let Some(released) = gate.and_then(|gate| self.by_gate.get(*gate)) {
            count.releasing = released.count.releasing;
            count.unresponsive = released.count.unresponsive;
        }
        count
    }
}

/// The nodes of one tuning, counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) count: NodesCount,
    /// Nodes whose profile is being written.
    pub(crate) outdated: i32,
    /// Nodes that wait for their wave.
    pub(crate) waiting: i32,
    /// Nodes that keep larger limits for now.
    pub(crate) shrinking: i32,
    /// Nodes whose agent has not answered yet.
    pub(crate) unanswered: i32,
    /// Nodes whose profile the API server rejects.
    pub(crate) refused: i32,
    /// The first rejection.
    pub(crate) refusal: Option<(Arc<str>, Arc<str>)>,
    /// The first few that failed, with their agents' messages.
    pub(crate) failed: Vec<(Arc<str>, Arc<str>)>,
}

impl Tally {
    /// Counts a node whose last write was rejected, if it was.
    fn refuse(&mut self, name: &Arc<str>, cluster: &ClusterState) {
        let Some(why) = cluster.refused.get(name) else {
            return;
        };
        self.refused += 1;
        if self.refusal.as_ref().is_none_or(|(first, _)| name < first) {
            self.refusal = Some((Arc::clone(name), Arc::clone(why)));
        }
    }

    /// Counts a change by its next step.
    fn change(&mut self, change: &Change<'_>, cluster: &ClusterState) {
        let Change { node, rule, .. } = change;
        self.shrinking += i32::from(change.is_shrink_delayed);
        match change.transition.step {
            Step::Hold => {
                self.holding(node.name, node.reported());
                return;
            }
            Step::Wait if !rule.all_at_once || rule.paused => self.waiting += 1,
            Step::Wait | Step::Write(_) => self.outdated += 1,
        }
        self.refuse(node.name, cluster);
    }

    /// Counts a node with an up-to-date profile, by what its agent reports.
    fn holding(&mut self, name: &Arc<str>, reported: Option<&Reported>) {
        let Some(reported) = reported else {
            self.unanswered += 1;
            return;
        };
        self.count.ready += i32::from(reported.ready);
        self.count.drifted += i32::from(reported.drifted);
        if let Some(failure) = &reported.failure {
            self.count.failed += 1;
            if self.failed.len() < MOST_NAMED {
                self.failed.push((Arc::clone(name), Arc::clone(failure)));
            }
        }
    }
}
