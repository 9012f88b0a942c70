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
use nettune_planner::{ReleaseReport, Write};
use proptest::prelude::*;
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

fn releasing(timeline: &Timeline<impl Fn(&str, &NodeNetworkProfileSpec) -> Effect>) -> usize {
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
fn the_end_of_an_agent_is_said_on_the_profile_that_it_leaves_behind() {
    let mut timeline = settled(3, "Restore");
    timeline.cluster.tunings.clear();
    timeline.deafen("node-1");
    timeline.run(1200, 10);
    let conditions = &timeline.cluster.profiles["node-1"]
        .status
        .as_ref()
        .unwrap()
        .conditions;
    let ready = nettune_crds::conditions::find(conditions, "Ready").unwrap();
    assert_eq!(
        (&*ready.status, &*ready.reason),
        ("Unknown", "AgentUnresponsive")
    );
    let decision = timeline.cluster.look();
    assert!(decision.writes.is_empty(), "{:?}", decision.writes);
    let [report] = &decision.release_reports[..] else {
        panic!("{:?}", decision.release_reports)
    };
    assert_eq!(&*report.tuning, "default");
    // The third node waits: the second that was begun is the first that failed.
    assert_eq!(
        (report.releasing, report.failed, report.unresponsive),
        (2, 1, 1)
    );
    assert_eq!(
        report.stopped.as_deref(),
        Some(
            "1 of 2 updated nodes failed: node-1 (agent did not report Ready within 120 s). \
             maxFailed is 5%; 1 node waiting until the failed nodes recover, are deleted or are selected by a tuning"
        )
    );
}

#[test]
fn a_key_that_cannot_be_put_back_stops_the_release_and_its_profile_stays() {
    let fails: Agents = |node, spec| {
        if spec.release && node == "node-0" {
            Effect::Fails
        } else {
            Effect::Fine
        }
    };
    let mut cluster = Cluster::with_ready_nodes(4);
    cluster.apply_tuning("default", restored("Restore", json!({})));
    let mut timeline = Timeline::new(cluster, fails);
    timeline.step(10);
    timeline.cluster.tunings.clear();
    timeline.run(1200, 10);
    assert_eq!(releasing(&timeline), 1);
    assert_eq!(timeline.cluster.profiles.len(), 4);
    let reports = timeline.cluster.look().release_reports;
    let [
        ReleaseReport {
            failed: 1,
            stopped: Some(_),
            nodes,
            ..
        },
    ] = &reports[..]
    else {
        panic!("{reports:?}")
    };
    assert_eq!(
        (&*nodes[0].node, &*nodes[0].uid, nodes[0].failed),
        ("node-0", "node-0", true)
    );
    assert_eq!(
        &*nodes[0].why,
        "0 of 1 sysctls are restored; net.core.somaxconn: EINVAL"
    );
    // It is mended by hand: the agent says so, and the others follow.
    for type_ in ["Ready", "Released"] {
        timeline
            .cluster
            .report("node-0", type_, "True", "Restored", "");
    }
    timeline.run(1200, 10);
    assert!(timeline.cluster.profiles.is_empty());
    assert!(timeline.cluster.look().release_reports.is_empty());
}

#[test]
fn what_was_left_on_a_node_is_told_before_its_profile_goes() {
    let mut timeline = settled(2, "Restore");
    timeline.cluster.tunings.clear();
    timeline.step(10);
    let left = "0 of 1 sysctls are restored; net.core.somaxconn: left: another process has set 7";
    for type_ in ["Ready", "Released"] {
        timeline
            .cluster
            .report("node-0", type_, "True", "PartiallyRestored", left);
    }
    let reports = timeline.cluster.look().release_reports;
    let nodes: Vec<_> = reports[0]
        .nodes
        .iter()
        .map(|node| (&*node.node, node.failed, &*node.why))
        .collect();
    assert_eq!(nodes, [("node-0", false, left)]);
    assert_eq!(reports[0].stopped, None);
    timeline.run(1200, 10);
    assert!(timeline.cluster.profiles.is_empty());
}

#[test]
fn nothing_is_told_of_releases_that_go_as_asked() {
    let mut timeline = settled(8, "Restore");
    assert!(timeline.cluster.look().release_reports.is_empty());
    timeline.cluster.tunings.clear();
    for _ in 0..100 {
        for report in timeline.cluster.look().release_reports {
            assert_eq!(
                (
                    report.failed,
                    report.unresponsive,
                    report.stopped,
                    report.nodes
                ),
                (0, 0, None, vec![])
            );
        }
        timeline.step(10);
    }
    assert!(timeline.cluster.profiles.is_empty());
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

/// What happens to a cluster that is released.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// Nothing, for this many seconds.
    Pass(u64),
    /// The tuning is deleted.
    Delete,
    /// It is applied again.
    Apply,
    /// It becomes one that cannot be used.
    Spoil,
    /// Another leader takes over.
    FailOver,
    /// The agent of this node goes.
    Deafen(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (1_u64..200).prop_map(Happening::Pass),
        2 => Just(Happening::Delete),
        1 => Just(Happening::Apply),
        1 => Just(Happening::Spoil),
        1 => Just(Happening::FailOver),
        1 => (0_usize..12).prop_map(Happening::Deafen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_release_goes_no_further_than_it_may_and_no_profile_goes_before_its_agents_word(
        count in 1_usize..12,
        bad in proptest::collection::vec(0_u8..5, 12),
        happenings in proptest::collection::vec(happening(), 1..20),
    ) {
        let effect = {
            let bad = bad.clone();
            move |node: &str, spec: &NodeNetworkProfileSpec| {
                let index: usize = node.strip_prefix("node-").unwrap().parse().unwrap();
                match (spec.release, bad[index]) {
                    (true, 0) => Effect::Fails,
                    (true, 1) => Effect::CutsOff,
                    _ => Effect::Fine,
                }
            }
        };
        let mut cluster = Cluster::with_ready_nodes(count);
        let tuning = || restored("Restore", json!({}));
        cluster.apply_tuning("default", tuning());
        let mut timeline = Timeline::new(cluster, effect);
        timeline.step(10);
        let mut deaf = std::collections::BTreeSet::new();
        for happening in happenings {
            match happening {
                Happening::Pass(seconds) => {
                    for _ in 0..seconds.div_ceil(20) {
                        let before: Vec<_> = timeline.cluster.profiles.keys().cloned().collect();
                        timeline.step(20);
                        for node in before {
                            let index: usize = node.strip_prefix("node-").unwrap().parse().unwrap();
                            let gone = !timeline.cluster.profiles.contains_key(&node);
                            prop_assert!(!gone || bad[index] > 1, "{node} has not released");
                        }
                    }
                }
                Happening::Delete => timeline.cluster.tunings.clear(),
                Happening::Apply => timeline.cluster.apply_tuning("default", tuning()),
                Happening::Spoil => {
                    timeline.cluster.apply_tuning("default", json!({"rollout": {"maxFailed": "lots"}}));
                    let before = timeline.writes_to_all();
                    let asked = releasing(&timeline);
                    timeline.run(600, 20);
                    prop_assert_eq!((timeline.writes_to_all(), releasing(&timeline)), (before, asked));
                }
                Happening::FailOver => timeline.cluster.fail_over(),
                Happening::Deafen(index) if index < count => {
                    timeline.deafen(&cluster::name_of(index));
                    deaf.insert(index);
                }
                Happening::Deafen(_) => {}
            }
            // Five in a hundred of fewer than twenty are none: the first that fails is the last but
            // those under way, and no more are under way than have passed.
            let damaged = timeline.damaged.len();
            let passed = count - damaged;
            prop_assert!(damaged <= 1 + passed, "{damaged} of {count}");
        }
        // Taken back, whatever had come.
        timeline.cluster.apply_tuning("default", tuning());
        timeline.run(600, 20);
        prop_assert_eq!(releasing(&timeline), 0);
        prop_assert_eq!(timeline.cluster.profiles.len(), count);
        // Deleted once more: all that can be released is, or it says why not.
        timeline.cluster.tunings.clear();
        timeline.run(3600, 20);
        let healthy = (0..count).all(|index| bad[index] > 1 && !deaf.contains(&index));
        if healthy {
            prop_assert!(timeline.cluster.profiles.is_empty());
        } else if !timeline.cluster.profiles.is_empty() {
            let reports = timeline.cluster.look().release_reports;
            prop_assert!(matches!(&reports[..], [report] if report.releasing > 0), "{reports:?}");
        }
        let at_rest = timeline.writes;
        timeline.run(600, 20);
        prop_assert_eq!(timeline.writes, at_rest, "it comes to rest");
    }
}
