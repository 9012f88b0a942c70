//! Nodes that a rollout has written: whether they pass.

use std::sync::Arc;

use nettune_crds::Rollout;

use crate::cluster::profile::ProfiledNode;
use crate::memory::{ByNode, Canary};
use crate::release::{ReleasingNode, Stage};
use crate::rollout::changes::Change;
use crate::rollout::gate::Standing;
use crate::rollout::rollouts::Rollouts;
use crate::rollout::transition::Step;
use crate::time::Clock;

/// Counts every canary into its rollout. Returns what to remember.
pub(crate) fn check_canaries<'a>(
    changes: &[Change<'a>],
    releases: &[ReleasingNode<'a>],
    remembered: &ByNode<Canary>,
    rollouts: &mut Rollouts<'a>,
    clock: &mut Clock,
) -> ByNode<Canary> {
    let mut canaries = Vec::new();
    let mut check = |node: ProfiledNode<'a>, gate: usize, group, ready, known: Option<&Canary>| {
        let Some(gate) = rollouts.gates.get(gate) else {
            return;
        };
        let (rule, was_resting) = (gate.rule, gate.was_resting);
        let (canary, standing) = evaluate(&rule, node, ready, known, was_resting, clock);
        rollouts.count(group, node, canary.settled, &standing);
        canaries.push((Arc::clone(node.name), canary));
    };
    // A canary whose limits are raised in addition stays a canary.
    let is_on_canary = |change: &&Change<'_>| {
        change.node.profile.canary && !matches!(change.transition.step, Step::Wait)
    };
    let mut known = remembered.cursor();
    for change in changes.iter().filter(is_on_canary) {
        let node = change.node;
        let ready = node.reported().is_some_and(|reported| reported.ready);
        let group = change.transition.group;
        check(node, change.gate, group, ready, known.get(node.name));
    }
    let is_on_canary = |releasing: &&ReleasingNode<'_>| {
        releasing.node.profile.canary && releasing.stage != Stage::Waiting
    };
    let mut known = remembered.cursor();
    for releasing in releases.iter().filter(is_on_canary) {
        let ReleasingNode {
            gate, group, node, ..
        } = *releasing;
        let released = releasing.stage == Stage::Released;
        check(node, gate, group, released, known.get(node.name));
    }
    canaries.into()
}

/// The standing of a canary, and what to remember of it.
fn evaluate(
    rule: &Rollout,
    node: ProfiledNode<'_>,
    ready: bool,
    remembered: Option<&Canary>,
    was_resting: bool,
    clock: &mut Clock,
) -> (Canary, Standing) {
    let profile = node.profile;
    let node_is_ready = node.node.ready.is_true();
    let ready = ready && node_is_ready;
    let remembered = remembered
        .filter(|canary| canary.profile == profile.uid && canary.generation == profile.generation);
    let canary = Canary {
        profile: Arc::clone(&profile.uid),
        generation: profile.generation,
        ready,
        since: remembered
            .filter(|canary| canary.ready == ready)
            .map_or(clock.now.mono, |canary| canary.since),
        settled: remembered.is_some_and(|canary| canary.settled || was_resting),
    };
    let failure = node
        .reported()
        .and_then(|reported| reported.failure.clone());
    let standing = if let Some(failure) = failure {
        Standing::Failed(failure)
    } else if !node_is_ready {
        Standing::Failed("Node is no longer Ready".into())
    } else if ready {
        if clock.has_passed(canary.since, rule.min_ready) {
            Standing::Passed
        } else {
            Standing::InFlight
        }
    } else if clock.has_passed(canary.since, rule.node_deadline) {
        let seconds = rule.node_deadline.as_secs();
        Standing::Failed(format!("agent did not report Ready within {seconds} s").into())
    } else {
        Standing::InFlight
    };
    (canary, standing)
}
