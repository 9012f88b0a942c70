//! How changes that may do harm reach the nodes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, also outside their #[test] functions"
)]

mod cluster;

use cluster::rollout::{SOMAXCONN, condition, fine, fixed, settled, want};
use cluster::timeline::{Effect, Timeline, holds, is_canary};
use cluster::{Cluster, name_of};
use nettune_planner::Write;
use serde_json::{Value, json};

#[test]
fn a_fixed_value_goes_to_one_node_then_to_as_many_as_have_passed() {
    let mut timeline = settled(12, fine);
    want(&mut timeline, 2);
    let mut reached = Vec::new();
    for _ in 0..6 {
        timeline.step(60);
        reached.push(timeline.holding(SOMAXCONN, "2"));
    }
    assert_eq!(reached, [1, 2, 4, 8, 12, 12]);
    assert_eq!(condition(&timeline.cluster, "Ready").1, "AllNodesReady");
    assert!(timeline.cluster.decide().is_empty());
}

#[test]
fn each_kernel_gets_a_node_before_any_kernel_gets_a_second() {
    let mut cluster = Cluster::default();
    for index in 0..12 {
        // The old kernel is at the end of the alphabet.
        let kernel = if index == 9 { "5.4.0-150" } else { "6.1.0-18" };
        cluster.put_node(index, json!({"ready": "True", "kernel": kernel}));
    }
    cluster.apply_tuning("default", fixed(1, json!({"type": "AllAtOnce"})));
    let mut timeline = Timeline::new(cluster, fine);
    timeline.step(10);
    want(&mut timeline, 2);
    timeline.step(60);
    timeline.step(60);
    let second = &timeline.cluster.profiles[&name_of(9)].spec;
    assert!(holds(second, SOMAXCONN, "2") && second.canary);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 2);
}

#[test]
fn all_at_once_writes_every_node_in_one_decision_without_canaries() {
    let mut timeline = settled(20, fine);
    timeline
        .cluster
        .apply_tuning("default", fixed(2, json!({"type": "AllAtOnce"})));
    timeline.step(1);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 20);
    assert!(
        timeline
            .cluster
            .profiles
            .values()
            .all(|profile| !profile.spec.canary)
    );
}

#[test]
fn all_at_once_writes_a_raised_limit_and_a_fixed_value_together() {
    let mut timeline = settled(3, fine);
    let mut both = fixed(2, json!({"type": "AllAtOnce"}));
    both["conntrack"] = json!({"minEntries": 524_288});
    timeline.cluster.apply_tuning("default", both);
    timeline.run(60, 1);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 3);
    assert_eq!(
        timeline.holding("net.netfilter.nf_conntrack_max", "524288"),
        3
    );
    let profiles = timeline.cluster.profiles.values();
    let written: Vec<_> = profiles
        .map(|profile| profile.metadata.generation)
        .collect();
    assert_eq!(written, [Some(2); 3]);
}

#[test]
fn a_paused_rollout_starts_no_more_nodes_and_resumes_where_it_was() {
    let mut timeline = settled(8, fine);
    want(&mut timeline, 2);
    timeline.step(60);
    timeline.step(10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 2);
    timeline
        .cluster
        .apply_tuning("default", fixed(2, json!({"paused": true})));
    timeline.run(600, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 2);
    assert_eq!(
        condition(&timeline.cluster, "Progressing"),
        (
            "False".to_owned(),
            "Paused".to_owned(),
            "6 nodes waiting: rollout.paused is set".to_owned()
        )
    );
    want(&mut timeline, 2);
    timeline.step(10);
    assert_eq!(
        timeline.holding(SOMAXCONN, "2"),
        4,
        "two have passed: two more"
    );
    timeline.run(600, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 8);
}

#[test]
fn a_change_in_the_middle_starts_a_new_rollout_without_a_backlog() {
    let mut timeline = settled(16, fine);
    want(&mut timeline, 2);
    timeline.run(180, 60);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 4);
    want(&mut timeline, 3);
    timeline.step(60);
    assert_eq!(timeline.holding(SOMAXCONN, "3"), 1);
    timeline.run(600, 60);
    assert_eq!(timeline.holding(SOMAXCONN, "3"), 16);
}

#[test]
fn a_new_leader_waits_again_and_continues() {
    let mut timeline = settled(8, fine);
    want(&mut timeline, 2);
    timeline.step(60);
    timeline.step(50);
    timeline.cluster.fail_over();
    timeline.step(50);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 2, "two are watched again");
    timeline.step(20);
    timeline.step(10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 4);
    timeline.run(600, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 8);
}

#[test]
fn a_node_that_is_not_ready_comes_last_and_is_not_counted() {
    let mut timeline = settled(5, fine);
    timeline.cluster.set_ready("node-0", "False");
    want(&mut timeline, 2);
    timeline.step(60);
    assert!(holds(
        &timeline.cluster.profiles["node-1"].spec,
        SOMAXCONN,
        "2"
    ));
    assert!(holds(
        &timeline.cluster.profiles["node-0"].spec,
        SOMAXCONN,
        "1"
    ));
    timeline.run(600, 10);
    let last = &timeline.cluster.profiles["node-0"].spec;
    assert!(holds(last, SOMAXCONN, "2") && !last.canary);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 5);
}

#[test]
fn a_new_node_gets_everything_unless_the_rollout_is_stopped() {
    let spec = |rollout: Value| {
        let mut spec = fixed(2, rollout);
        spec["conntrack"] = json!({});
        spec
    };
    let mut timeline = settled(4, |_, spec| {
        if holds(spec, SOMAXCONN, "2") {
            Effect::Fails
        } else {
            Effect::Fine
        }
    });
    timeline.cluster.apply_tuning("default", spec(json!({})));
    timeline.cluster.put_node(10, json!({}));
    timeline.step(10);
    assert!(holds(
        &timeline.cluster.profiles["node-10"].spec,
        SOMAXCONN,
        "2"
    ));
    timeline.step(10);
    assert_eq!(condition(&timeline.cluster, "Ready").1, "RolloutStopped");
    timeline.cluster.put_node(11, json!({}));
    timeline.step(10);
    let new = &timeline.cluster.profiles["node-11"].spec;
    assert_eq!(new.sysctls.len(), 2, "only its limits: {new:?}");
}

#[test]
fn a_ready_node_without_a_profile_gets_its_limits_at_once_and_the_rest_in_turn() {
    let mut cluster = Cluster::with_ready_nodes(3);
    let mut spec = fixed(2, json!({}));
    spec["conntrack"] = json!({});
    cluster.apply_tuning("default", spec);
    let writes = cluster.turn();
    assert_eq!(writes.len(), 4, "a status and three profiles");
    assert!(
        cluster
            .profiles
            .values()
            .all(|profile| profile.spec.sysctls.len() == 2)
    );
    let mut timeline = Timeline::new(cluster, fine);
    timeline.step(60);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 1);
    timeline.run(300, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 3);
}

#[test]
fn nodes_that_passed_in_an_earlier_rollout_allow_a_larger_first_wave() {
    let mut timeline = settled(8, fine);
    want(&mut timeline, 2);
    timeline.run(600, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 8);
    // Ready nodes that join: eight have passed with these values, so eight may go at once.
    for index in 20..36 {
        timeline.cluster.put_node(index, json!({"ready": "True"}));
    }
    timeline.step(10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 16);
    timeline.run(120, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 24);
}

#[test]
fn a_node_that_was_a_canary_before_is_watched_again() {
    let mut timeline = settled(8, fine);
    want(&mut timeline, 2);
    timeline.run(600, 10);
    // All of them were canaries and have been Ready for long: that says nothing about this value.
    want(&mut timeline, 3);
    timeline.step(50);
    assert_eq!(timeline.holding(SOMAXCONN, "3"), 1);
    timeline.step(20);
    assert_eq!(timeline.holding(SOMAXCONN, "3"), 1);
    timeline.step(10);
    assert_eq!(timeline.holding(SOMAXCONN, "3"), 2);
}

#[test]
fn a_recreated_profile_is_another_canary_at_the_same_generation() {
    let mut timeline = settled(4, fine);
    want(&mut timeline, 2);
    timeline.step(50);
    timeline.step(20);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 1);
    // Deleted and written again, by hand from a backup, between two decisions.
    let profile = timeline.cluster.profiles.get_mut("node-0").unwrap();
    profile.metadata.uid = Some("another".into());
    timeline.step(50);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 1, "its wait starts again");
    timeline.step(20);
    timeline.step(10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 2);
}

#[test]
fn a_node_whose_write_is_late_keeps_its_place() {
    let mut timeline = settled(4, fine);
    want(&mut timeline, 2);
    let first = timeline.cluster.look();
    timeline.cluster.memory = first.memory;
    // Before the write is seen, a node comes that would be the first by its name.
    let mut node = timeline.cluster.nodes["node-3"].clone();
    node.metadata.name = Some("a-node".into());
    let mut profile = timeline.cluster.profiles["node-3"].clone();
    profile.metadata.name = Some("a-node".into());
    timeline.cluster.nodes.insert("a-node".into(), node);
    timeline.cluster.profiles.insert("a-node".into(), profile);
    let trials: Vec<_> = timeline
        .cluster
        .decide()
        .into_iter()
        .filter(is_canary)
        .collect();
    assert!(
        matches!(&trials[..], [Write::ReplaceProfile { node, .. }] if &**node == "node-0"),
        "{trials:?}"
    );
}
