//! Nodes that no tuning has any more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, also outside their #[test] functions"
)]

mod cluster;

use cluster::Cluster;
use cluster::timeline::{Effect, Timeline};
use nettune_crds::NodeNetworkProfileSpec;
use nettune_planner::Write;
use serde_json::{Value, json};

type Agents = fn(&str, &NodeNetworkProfileSpec) -> Effect;

fn fine(_: &str, _: &NodeNetworkProfileSpec) -> Effect {
    Effect::Fine
}

/// Ready nodes whose tuning says how they are released.
fn settled(count: usize, policy: &str) -> Timeline<Agents> {
    let mut cluster = Cluster::with_ready_nodes(count);
    cluster.apply_tuning("default", restored(policy, json!({})));
    let mut timeline = Timeline::new(cluster, fine as Agents);
    timeline.step(10);
    timeline
}

fn restored(policy: &str, rollout: Value) -> Value {
    json!({"conntrack": {}, "releasePolicy": policy, "rollout": rollout})
}

fn releasing(timeline: &Timeline<Agents>) -> usize {
    let profiles = timeline.cluster.profiles.values();
    profiles.filter(|profile| profile.spec.release).count()
}

#[test]
fn originals_go_back_in_waves() {
    let mut timeline = settled(8, "Restore");
    timeline.cluster.tunings.clear();
    let mut reached = Vec::new();
    for _ in 0..4 {
        timeline.step(60);
        reached.push(releasing(&timeline));
    }
    assert_eq!(reached, [1, 2, 4, 8]);
    assert_eq!(
        timeline.cluster.profiles.len(),
        8,
        "what has passed is still to be seen"
    );
    timeline.step(60);
    assert!(timeline.cluster.profiles.is_empty());
}

#[test]
fn retained_values_stay_where_they_are_and_no_release_is_asked_for() {
    let mut timeline = settled(8, "Retain");
    timeline.cluster.tunings.clear();
    let writes = timeline.cluster.turn();
    assert_eq!(writes.len(), 8);
    assert!(
        writes
            .iter()
            .all(|write| matches!(write, Write::DeleteProfile { .. }))
    );
}

#[test]
fn a_mistaken_prune_is_taken_back_at_once_wherever_it_has_come() {
    let mut timeline = settled(8, "Restore");
    timeline.cluster.tunings.clear();
    timeline.step(60);
    timeline.step(10);
    assert_eq!(releasing(&timeline), 2);
    timeline
        .cluster
        .apply_tuning("default", restored("Restore", json!({})));
    timeline.step(10);
    assert_eq!(releasing(&timeline), 0);
    assert_eq!(timeline.cluster.profiles.len(), 8);
}

#[test]
fn a_release_that_cuts_a_node_off_goes_no_further() {
    let mut timeline = settled(20, "Restore");
    timeline.cluster.tunings.clear();
    timeline.step(10);
    timeline.cluster.set_ready("node-0", "Unknown");
    timeline.run(1200, 10);
    assert_eq!(releasing(&timeline), 1);
    assert_eq!(timeline.cluster.profiles.len(), 20);
}

#[test]
fn a_tuning_that_lives_on_says_how_its_nodes_leave() {
    let mut timeline = settled(4, "Restore");
    let mut odd = restored("Restore", json!({"paused": true}));
    odd["nodeSelector"] = json!({"matchLabels": {"even": "false"}});
    timeline.cluster.apply_tuning("default", odd.clone());
    timeline.run(600, 10);
    assert_eq!(releasing(&timeline), 0, "paused");
    odd["rollout"] = json!({"type": "AllAtOnce"});
    timeline.cluster.apply_tuning("default", odd);
    timeline.step(10);
    assert_eq!(
        timeline.cluster.profiles.keys().collect::<Vec<_>>(),
        ["node-1", "node-3"]
    );
}

#[test]
fn an_agent_that_is_gone_keeps_its_profile_and_holds_nobody_up() {
    let mut timeline = settled(3, "Restore");
    let mut nobody = restored("Restore", json!({"maxFailed": "100%"}));
    nobody["nodeSelector"] = json!({"matchLabels": {"even": "none"}});
    timeline.cluster.apply_tuning("default", nobody);
    // Its agent takes nothing from here on.
    timeline.deafen("node-1");
    timeline.run(1200, 10);
    assert_eq!(
        timeline.cluster.profiles.keys().collect::<Vec<_>>(),
        ["node-1"]
    );
    assert_eq!(
        timeline.cluster.status("default").nodes.unwrap().releasing,
        1
    );
    assert!(timeline.cluster.decide().is_empty());
}

#[test]
fn the_profile_of_a_node_that_came_back_under_its_name_is_not_released_but_goes() {
    let mut timeline = settled(1, "Restore");
    timeline.cluster.tunings.clear();
    timeline
        .cluster
        .put_node(0, json!({"uid": "another", "ready": "True"}));
    let writes = timeline.cluster.turn();
    assert!(
        matches!(writes[..], [Write::DeleteProfile { .. }]),
        "{writes:?}"
    );
}

#[test]
fn a_tuning_that_cannot_be_read_moves_no_value() {
    let mut timeline = settled(3, "Restore");
    timeline.cluster.apply_tuning(
        "default",
        json!({"conntrack": {"connectionsPerPod": 0}, "rollout": {"maxFailed": "lots"}}),
    );
    let writes = timeline.cluster.turn();
    assert!(
        matches!(writes[..], [Write::TuningStatus { .. }]),
        "{writes:?}"
    );
    timeline.run(7200, 100);
    assert_eq!(
        (releasing(&timeline), timeline.cluster.profiles.len()),
        (0, 3)
    );
}
