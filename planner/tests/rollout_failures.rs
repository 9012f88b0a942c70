//! Rollouts in which nodes fail: where they stop, and when they continue.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, also outside their #[test] functions"
)]

mod cluster;

use cluster::Cluster;
use cluster::rollout::{SOMAXCONN, at_two, condition, fine, fixed, settled, want};
use cluster::timeline::{Effect, Timeline, holds};
use nettune_crds::NodeNetworkProfileSpec;
use proptest::prelude::*;
use serde_json::json;

#[test]
fn a_raised_limit_reaches_all_nodes_even_while_a_rollout_is_stopped() {
    let mut timeline = settled(4, at_two(Effect::Fails));
    want(&mut timeline, 2);
    timeline.run(300, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 1);
    let mut raised = fixed(2, json!({}));
    raised["conntrack"] = json!({"minEntries": 524_288});
    timeline.cluster.apply_tuning("default", raised);
    timeline.step(10);
    let max = "net.netfilter.nf_conntrack_max";
    assert_eq!(timeline.holding(max, "524288"), 4);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 1);
    assert_eq!(condition(&timeline.cluster, "Ready").1, "RolloutStopped");
}

#[test]
fn a_value_that_disconnects_nodes_stops_in_the_first_wave() {
    let mut timeline = settled(100, at_two(Effect::CutsOff));
    want(&mut timeline, 2);
    timeline.run(3600, 10);
    assert_eq!(timeline.damaged.len(), 1, "{:?}", timeline.damaged);
    let (status, reason, message) = condition(&timeline.cluster, "Ready");
    assert_eq!((&*status, &*reason), ("False", "RolloutStopped"));
    assert_eq!(
        message,
        "1 of 1 updated node failed: node-0 (Node is no longer Ready). maxFailed is 5%; \
         99 nodes waiting until the tuning changes or the failed nodes recover"
    );
    assert_eq!(
        condition(&timeline.cluster, "Progressing"),
        (
            "False".to_owned(),
            "RolloutStopped".to_owned(),
            "99 nodes waiting: too many nodes failed".to_owned()
        )
    );
}

#[test]
fn a_value_that_disconnects_one_kind_of_node_stops_in_the_first_wave_with_that_kind() {
    // Every node from the seventeenth on.
    let mut timeline = settled(64, |node, spec| {
        let index: usize = node.strip_prefix("node-").unwrap().parse().unwrap();
        if holds(spec, SOMAXCONN, "2") && index >= 16 {
            Effect::CutsOff
        } else {
            Effect::Fine
        }
    });
    timeline
        .cluster
        .apply_tuning("default", fixed(2, json!({"minReadySeconds": 50})));
    timeline.run(3600, 5);
    // Names are in order of the alphabet: node-0, node-1, node-10, … node-16 is the ninth.
    assert!(timeline.damaged.len() <= 8, "{:?}", timeline.damaged);
    assert_eq!(condition(&timeline.cluster, "Ready").1, "RolloutStopped");
}

#[test]
fn the_message_of_a_stopped_rollout_names_key_and_error() {
    let mut timeline = settled(30, at_two(Effect::Fails));
    timeline
        .cluster
        .apply_tuning("default", fixed(2, json!({"maxFailed": 11})));
    timeline.run(300, 10);
    let (_, reason, message) = condition(&timeline.cluster, "Ready");
    assert_eq!(reason, "RolloutStopped");
    assert!(
        message.starts_with(
            "12 of 12 updated nodes failed: node-0 (net.core.somaxconn: EINVAL); node-1 ("
        ),
        "{message}"
    );
    assert!(
        message.ends_with(
            "; and 2 more. maxFailed is 11; 18 nodes waiting until the tuning changes or the failed nodes recover"
        ),
        "{message}"
    );
}

#[test]
fn a_stopped_rollout_continues_when_the_tuning_changes() {
    let mut timeline = settled(8, at_two(Effect::Fails));
    want(&mut timeline, 2);
    timeline.run(300, 10);
    assert_eq!(condition(&timeline.cluster, "Ready").1, "RolloutStopped");
    want(&mut timeline, 3);
    timeline.run(600, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "3"), 8);
    assert_eq!(condition(&timeline.cluster, "Ready").1, "AllNodesReady");
}

#[test]
fn a_stopped_rollout_continues_when_the_failed_node_recovers_or_is_deleted() {
    for recovers in [true, false] {
        let broken = std::cell::Cell::new(true);
        let mut timeline = settled(4, |node, spec| {
            if broken.get() && node == "node-0" && holds(spec, SOMAXCONN, "2") {
                Effect::CutsOff
            } else {
                Effect::Fine
            }
        });
        want(&mut timeline, 2);
        timeline.run(300, 10);
        assert_eq!(condition(&timeline.cluster, "Ready").1, "RolloutStopped");
        broken.set(false);
        if recovers {
            timeline.heal("node-0");
        } else {
            timeline.cluster.nodes.remove("node-0");
        }
        timeline.run(600, 10);
        let left = if recovers { 4 } else { 3 };
        assert_eq!(timeline.holding(SOMAXCONN, "2"), left);
        assert!(timeline.cluster.decide().is_empty());
    }
}

#[test]
fn a_rollout_continues_up_to_max_failed_nodes() {
    for (max_failed, holding) in [
        (json!(1), 12),
        (json!("50%"), 12),
        (json!(0), 1),
        (json!("0%"), 1),
    ] {
        let mut timeline = settled(12, |node, spec| {
            if node == "node-0" && holds(spec, SOMAXCONN, "2") {
                Effect::Fails
            } else {
                Effect::Fine
            }
        });
        let rollout = json!({"maxFailed": max_failed, "minReadySeconds": 10});
        timeline.cluster.apply_tuning("default", fixed(2, rollout));
        timeline.run(300, 10);
        // Half of one node is none: it stops there, whatever comes later.
        let expected = if max_failed == "50%" { 1 } else { holding };
        assert_eq!(timeline.holding(SOMAXCONN, "2"), expected, "{max_failed}");
    }
}

#[test]
fn an_agent_that_misses_the_node_deadline_has_failed() {
    let mut cluster = Cluster::with_ready_nodes(3);
    cluster.apply_tuning("default", fixed(1, json!({"type": "AllAtOnce"})));
    let mut timeline = Timeline::new(cluster, fine);
    timeline.step(10);
    let mut cluster = timeline.cluster;
    cluster.apply_tuning("default", fixed(2, json!({"nodeDeadlineSeconds": 90})));
    cluster.settle();
    assert_eq!(condition(&cluster, "Progressing").1, "RollingOut");
    let wake = cluster.look().wake_at.unwrap();
    cluster.time += std::time::Duration::from_secs(90);
    assert_eq!(wake, nettune_planner::Mono::at(cluster.time));
    cluster.settle();
    let (_, reason, message) = condition(&cluster, "Ready");
    assert_eq!(reason, "RolloutStopped");
    assert!(
        message.contains("node-0 (agent did not report Ready within 90 s)"),
        "{message}"
    );
}

#[test]
fn nodes_written_by_an_earlier_rollout_do_not_count_in_the_next() {
    let reuse = "net.ipv4.vs.conn_reuse_mode";
    // A hundred nodes of an old kernel hold 0, twenty of a new one 1.
    let mut cluster = Cluster::default();
    for index in 0..120 {
        let kernel = if index < 100 { "5.4.0-1" } else { "6.1.0-18" };
        cluster.put_node(index, json!({"ready": "True", "kernel": kernel}));
    }
    cluster.apply_tuning("default", json!({"ipvs": {}}));
    let mut timeline = Timeline::new(cluster, |node, spec| {
        let index: usize = node.strip_prefix("node-").unwrap().parse().unwrap();
        if index >= 100 && holds(spec, reuse, "0") {
            Effect::Fails
        } else {
            Effect::Fine
        }
    });
    timeline.run(1200, 10);
    assert_eq!(timeline.holding(reuse, "0"), 100);
    assert_eq!(timeline.holding(reuse, "1"), 20);
    // This changes the twenty alone.
    let disabled = json!({"ipvs": {"connReuseMode": "Disabled"}});
    timeline.cluster.apply_tuning("default", disabled);
    timeline.run(1200, 10);
    let failed = timeline.damaged.len();
    assert_eq!(
        failed, 1,
        "a hundred that passed before do not make up for it"
    );
}

#[test]
fn a_node_that_fails_after_its_rollout_is_over_does_not_stop_the_next() {
    let mut timeline = settled(12, fine);
    want(&mut timeline, 2);
    timeline.run(600, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 12);
    // Still marked as a canary, and the tuning wants of it what it holds.
    timeline.cluster.set_ready("node-0", "False");
    timeline.cluster.put_node(20, json!({"ready": "True"}));
    timeline.run(600, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 13);
}

#[test]
fn a_rollout_is_not_over_before_its_last_wave_has_passed() {
    let mut timeline = settled(2, |node, spec| {
        if node == "node-1" && holds(spec, SOMAXCONN, "2") {
            Effect::CutsOff
        } else {
            Effect::Fine
        }
    });
    want(&mut timeline, 2);
    timeline.step(60);
    timeline.step(10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 2);
    // No node waits, and the last one is disconnected, which does not show yet. Then a node joins.
    timeline.step(10);
    timeline.cluster.put_node(2, json!({"ready": "True"}));
    timeline.run(1200, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 2);
    assert_eq!(condition(&timeline.cluster, "Ready").1, "RolloutStopped");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn failures_stay_within_max_failed_and_one_wave(
        count in 1_usize..60,
        percent in 0_u32..30,
        bad in proptest::collection::vec(0_u8..4, 60),
        kernels in proptest::collection::vec(0_u8..3, 60),
        step in 5_u64..30,
        fail_over in proptest::option::of(0_usize..40),
    ) {
        let effect = move |node: &str, spec: &NodeNetworkProfileSpec| {
            let index: usize = node.strip_prefix("node-").unwrap().parse().unwrap();
            match (holds(spec, SOMAXCONN, "2"), bad[index]) {
                (true, 0) => Effect::Fails,
                (true, 1) => Effect::CutsOff,
                _ => Effect::Fine,
            }
        };
        let mut cluster = Cluster::default();
        for (index, kernel) in kernels.iter().enumerate().take(count) {
            let kernel = ["6.1.0-18", "5.4.0-150", "6.12.0-1"][usize::from(*kernel)];
            cluster.put_node(index, json!({"ready": "True", "kernel": kernel}));
        }
        cluster.apply_tuning("default", fixed(1, json!({"type": "AllAtOnce"})));
        let mut timeline = Timeline::new(cluster, effect);
        timeline.step(1);
        let rollout = json!({"maxFailed": format!("{percent}%"), "minReadySeconds": 60});
        timeline.cluster.apply_tuning("default", fixed(2, rollout));
        for round in 0..(3600 / step) {
            if fail_over == Some(usize::try_from(round).unwrap()) {
                timeline.cluster.fail_over();
            }
            timeline.step(step);
            let written = timeline.holding(SOMAXCONN, "2");
            let passed = written - timeline.damaged.len();
            let allowed = usize::try_from(percent).unwrap() * written / 100;
            // One more than allowed stops it, and what was in flight by then comes on top.
            prop_assert!(
                timeline.damaged.len() <= allowed + 1 + passed.max(1),
                "{} of {written}", timeline.damaged.len()
            );
            prop_assert!(timeline.largest_wave <= count.div_ceil(2).max(1));
        }
        let at_rest = timeline.writes;
        timeline.run(600, step);
        prop_assert_eq!(timeline.writes, at_rest, "it converges");
        if timeline.damaged.is_empty() {
            prop_assert_eq!(timeline.holding(SOMAXCONN, "2"), count);
        }
    }
}
