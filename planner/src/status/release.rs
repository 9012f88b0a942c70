//! Releases that no tuning's status reports, because the tuning or the profile is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::state::ClusterState;
use crate::release::{ReleasingNode, Stage};
use crate::rollout::gate::MOST_NAMED;
use crate::rollout::rollouts::Rollouts;
use crate::status::tally::Tallies;
use crate::status::tuning as status;

/// What a stopped release of a deleted tuning waits for.
const UNTIL_GONE: &str = "the failed nodes recover, are deleted or are selected by a tuning";

/// The release of one tuning's nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseReport {
    /// The tuning's name; the tuning may be gone.
    pub tuning: Arc<str>,
    /// Nodes whose originals are not restored yet, if the tuning is gone. A tuning that exists counts them in
    /// its status.
    pub releasing: i32,
    /// Nodes on which a sysctl could not be restored, that are not Ready any more, or whose agent has not
    /// answered in time.
    pub failed: i32,
    /// Those with an unresponsive agent.
    pub unresponsive: i32,
    /// Why no further node is released, if so.
    pub stopped: Option<String>,
    /// Single nodes to report, ten at most.
    pub nodes: Vec<ReportedNode>,
}

/// A node whose release did not go as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedNode {
    /// The node's name.
    pub node: Arc<str>,
    /// The Node's uid.
    pub uid: Arc<str>,
    /// Whether its release has failed and holds up others. Otherwise its profile is deleted, although some
    /// values were not restored.
    pub failed: bool,
    /// What the agent reports, or what is known of it.
    pub why: Arc<str>,
}

/// The releases of deleted tunings, and the released nodes on which some values were not restored.
pub(crate) fn report_releases(
    cluster: &ClusterState,
    releases: &[ReleasingNode<'_>],
    rollouts: &Rollouts<'_>,
    tallies: &Tallies<'_>,
) -> Vec<ReleaseReport> {
    let mut all: BTreeMap<&Arc<str>, ReleaseReport> = BTreeMap::new();
    for ReleasingNode { gate, node, .. } in released(releases) {
        let left = node.reported().and_then(|reported| reported.left.as_ref());
        let (Some(gate), Some(why)) = (rollouts.gates.get(*gate), left) else {
            continue;
        };
        let release_reports = entry(&mut all, &gate.tuning);
        if release_reports.nodes.len() < MOST_NAMED {
            release_reports.nodes.push(ReportedNode {
                node: Arc::clone(node.name),
                uid: Arc::clone(&node.node.uid),
                failed: false,
                why: Arc::clone(why),
            });
        }
    }
    for (gate, tally) in rollouts.gates.iter().zip(&tallies.by_gate) {
        if tally.count.releasing == 0 || cluster.tunings.contains_key(&gate.tuning) {
            continue;
        }
        let release_reports = entry(&mut all, &gate.tuning);
        release_reports.releasing = tally.count.releasing;
        release_reports.failed = i32::try_from(gate.failed).unwrap_or(i32::MAX);
        release_reports.unresponsive = tally.count.unresponsive;
        let is_stopped = gate.is_stopped() && gate.waiting > 0;
        release_reports.stopped = is_stopped.then(|| status::stopped(gate, UNTIL_GONE));
        for (node, why) in &gate.named {
            let uid = cluster.nodes.get(node).map(|node| Arc::clone(&node.uid));
            release_reports.nodes.push(ReportedNode {
                node: Arc::clone(node),
                uid: uid.unwrap_or_default(),
                failed: true,
                why: Arc::clone(why),
            });
        }
    }
    all.into_values().collect()
}

fn released<'r, 'a>(
    releases: &'r [ReleasingNode<'a>],
) -> impl Iterator<Item = &'r ReleasingNode<'a>> {
    let released = |releasing: &&ReleasingNode<'_>| releasing.stage == Stage::Released;
    releases.iter().filter(released)
}

fn entry<'m, 'g>(
    all: &'m mut BTreeMap<&'g Arc<str>, ReleaseReport>,
    tuning: &'g Arc<str>,
) -> &'m mut ReleaseReport {
    all.entry(tuning).or_insert_with(|| ReleaseReport {
        tuning: Arc::clone(tuning),
        releasing: 0,
        failed: 0,
        unresponsive: 0,
        stopped: None,
        nodes: Vec::new(),
    })
}
