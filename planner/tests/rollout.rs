//! How changes that may do harm reach the nodes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, also outside their #[test] functions"
)]

mod cluster;

use cluster::timeline::{Effect, Timeline, holds, is_trial};
use cluster::{Cluster, name_of};
use nettune_crds::NodeNetworkProfileSpec;
use nettune_planner::Write;
use proptest::prelude::*;
use serde_json::{Value, json};

const SOMAXCONN: &str = "net.core.somaxconn";

fn fine(_: &str, _: &NodeNetworkProfileSpec) -> Effect {
    Effect::Fine
}

/// A tuning with a fixed value, and this rollout.
fn fixed(value: u32, rollout: Value) -> Value {
    json!({"sysctls": [{"name": SOMAXCONN, "value": value.to_string()}], "rollout": rollout})
}

/// Ready nodes that all hold 1, and no rollout under way.
fn settled<E>(count: usize, effect: E) -> Timeline<E>
where
    E: Fn(&str, &NodeNetworkProfileSpec) -> Effect,
{
    let mut cluster = Cluster::with_ready_nodes(count);
    cluster.apply_tuning("default", fixed(1, json!({"type": "AllAtOnce"})));
    let mut timeline = Timeline::new(cluster, effect);
    timeline.step(10);
    assert_eq!(timeline.holding(SOMAXCONN, "1"), count);
    timeline
}

/// Another value, by the rollout that is the default.
fn want<E>(timeline: &mut Timeline<E>, value: u32) {
    let tuning = fixed(value, json!({}));
    timeline.cluster.apply_tuning("default", tuning);
}

/// The reason and the message of a tuning's condition.
fn condition(cluster: &Cluster, type_: &str) -> (String, String, String) {
    let conditions = &cluster.status("default").conditions;
    let found = nettune_crds::conditions::find(conditions, type_).expect(type_);
    (
        found.status.clone(),
        found.reason.clone(),
        found.message.clone(),
    )
}

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
fn a_raised_limit_goes_to_all_at_once_also_while_a_rollout_is_stopped() {
    let mut timeline = settled(4, |_, spec| match holds(spec, SOMAXCONN, "2") {
        true => Effect::Fails,
        false => Effect::Fine,
    });
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
fn every_kernel_is_visited_before_a_second_node_of_one_that_was() {
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
fn a_value_that_cuts_nodes_off_stops_at_the_first_wave() {
    let mut timeline = settled(100, |_, spec| match holds(spec, SOMAXCONN, "2") {
        true => Effect::CutsOff,
        false => Effect::Fine,
    });
    want(&mut timeline, 2);
    timeline.run(3600, 10);
    assert_eq!(timeline.damaged.len(), 1, "{:?}", timeline.damaged);
    let (status, reason, message) = condition(&timeline.cluster, "Ready");
    assert_eq!((&*status, &*reason), ("False", "RolloutStopped"));
    assert_eq!(
        message,
        "1 of the 1 nodes written failed: node-0 (its Node is not Ready any more). maxFailed is 5%: \
         99 nodes wait until the tuning changes or these recover"
    );
    assert_eq!(
        condition(&timeline.cluster, "Progressing"),
        (
            "False".to_owned(),
            "RolloutStopped".to_owned(),
            "99 nodes wait: too many nodes failed".to_owned()
        )
    );
}

#[test]
fn a_value_that_cuts_off_one_kind_of_node_stops_within_the_wave_that_meets_it() {
    // Every node from the seventeenth on.
    let mut timeline = settled(64, |node, spec| {
        let index: usize = node.strip_prefix("node-").unwrap().parse().unwrap();
        match holds(spec, SOMAXCONN, "2") && index >= 16 {
            true => Effect::CutsOff,
            false => Effect::Fine,
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
fn a_stop_names_the_key_and_what_the_kernel_said() {
    let mut timeline = settled(30, |_, spec| match holds(spec, SOMAXCONN, "2") {
        true => Effect::Fails,
        false => Effect::Fine,
    });
    timeline
        .cluster
        .apply_tuning("default", fixed(2, json!({"maxFailed": 11})));
    timeline.run(300, 10);
    let (_, reason, message) = condition(&timeline.cluster, "Ready");
    assert_eq!(reason, "RolloutStopped");
    assert!(
        message.starts_with(
            "12 of the 12 nodes written failed: node-0 (net.core.somaxconn: EINVAL); node-1 ("
        ),
        "{message}"
    );
    assert!(
        message.ends_with(
            "; and 2 more. maxFailed is 11: 18 nodes wait until the tuning changes or these recover"
        ),
        "{message}"
    );
}

#[test]
fn a_stopped_rollout_goes_on_when_the_tuning_changes() {
    let mut timeline = settled(8, |_, spec| match holds(spec, SOMAXCONN, "2") {
        true => Effect::Fails,
        false => Effect::Fine,
    });
    want(&mut timeline, 2);
    timeline.run(300, 10);
    assert_eq!(condition(&timeline.cluster, "Ready").1, "RolloutStopped");
    want(&mut timeline, 3);
    timeline.run(600, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "3"), 8);
    assert_eq!(condition(&timeline.cluster, "Ready").1, "AllNodesReady");
}

#[test]
fn a_stopped_rollout_goes_on_when_the_failed_node_recovers_or_goes() {
    for recovers in [true, false] {
        let broken = std::cell::Cell::new(true);
        let mut timeline = settled(4, |node, spec| {
            match broken.get() && node == "node-0" && holds(spec, SOMAXCONN, "2") {
                true => Effect::CutsOff,
                false => Effect::Fine,
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
fn maxfailed_lets_so_many_fail() {
    for (max_failed, holding) in [
        (json!(1), 12),
        (json!("50%"), 12),
        (json!(0), 1),
        (json!("0%"), 1),
    ] {
        let mut timeline = settled(12, |node, spec| {
            match node == "node-0" && holds(spec, SOMAXCONN, "2") {
                true => Effect::Fails,
                false => Effect::Fine,
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
fn an_agent_that_does_not_answer_in_time_has_failed() {
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
        message.contains("node-0 (its agent has not said for 90 s that it is ready)"),
        "{message}"
    );
}

#[test]
fn all_at_once_reaches_every_node_in_one_decision_and_marks_none() {
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
fn all_at_once_writes_a_raised_limit_and_a_fixed_value_in_one() {
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
fn a_paused_rollout_begins_no_further_node_and_goes_on_where_it_was() {
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
            "6 nodes wait: rollout.paused is set".to_owned()
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
fn a_new_leader_waits_again_and_goes_on() {
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
fn a_new_node_gets_everything_unless_the_rollout_goes_no_further() {
    let spec = |rollout: Value| {
        let mut spec = fixed(2, rollout);
        spec["conntrack"] = json!({});
        spec
    };
    let mut timeline = settled(4, |_, spec| match holds(spec, SOMAXCONN, "2") {
        true => Effect::Fails,
        false => Effect::Fine,
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
fn a_ready_node_without_a_profile_gets_its_limits_at_once_and_the_rest_in_its_turn() {
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
fn what_an_earlier_rollout_has_written_does_not_count_in_the_next() {
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
        match index >= 100 && holds(spec, reuse, "0") {
            true => Effect::Fails,
            false => Effect::Fine,
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
    assert_eq!(failed, 1, "a hundred that passed before do not excuse it");
}

#[test]
fn a_node_that_fails_when_its_rollout_is_long_over_does_not_stop_the_next() {
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
        match node == "node-1" && holds(spec, SOMAXCONN, "2") {
            true => Effect::CutsOff,
            false => Effect::Fine,
        }
    });
    want(&mut timeline, 2);
    timeline.step(60);
    timeline.step(10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 2);
    // Nobody waits, and the last one is cut off, which does not show yet. Then somebody joins.
    timeline.step(10);
    timeline.cluster.put_node(2, json!({"ready": "True"}));
    timeline.run(1200, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 2);
    assert_eq!(condition(&timeline.cluster, "Ready").1, "RolloutStopped");
}

#[test]
fn what_has_passed_in_an_earlier_rollout_is_experience_for_the_next() {
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
fn a_node_that_was_on_trial_before_is_watched_anew() {
    let mut timeline = settled(8, fine);
    want(&mut timeline, 2);
    timeline.run(600, 10);
    // All of them were on canary, and all have been Ready for long: that is no word on this value.
    want(&mut timeline, 3);
    timeline.step(50);
    assert_eq!(timeline.holding(SOMAXCONN, "3"), 1);
    timeline.step(20);
    assert_eq!(timeline.holding(SOMAXCONN, "3"), 1);
    timeline.step(10);
    assert_eq!(timeline.holding(SOMAXCONN, "3"), 2);
}

#[test]
fn a_profile_that_was_made_anew_is_another_trial_at_the_same_generation() {
    let mut timeline = settled(4, fine);
    want(&mut timeline, 2);
    timeline.step(50);
    timeline.step(20);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 1);
    // Deleted and written again, by hand from a backup, between two decisions.
    let profile = timeline.cluster.profiles.get_mut("node-0").unwrap();
    profile.metadata.uid = Some("another".into());
    timeline.step(50);
    assert_eq!(timeline.holding(SOMAXCONN, "2"), 1, "its time begins anew");
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
        .filter(is_trial)
        .collect();
    assert!(
        matches!(&trials[..], [Write::ReplaceProfile { node, .. }] if &**node == "node-0"),
        "{trials:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn damage_stays_within_what_is_allowed_and_the_wave(
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
        prop_assert_eq!(timeline.writes, at_rest, "it comes to rest");
        if timeline.damaged.is_empty() {
            prop_assert_eq!(timeline.holding(SOMAXCONN, "2"), count);
        }
    }
}
