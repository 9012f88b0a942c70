//! Limits that are lowered: patiently, in waves, and never below what a node uses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, also outside their #[test] functions"
)]

mod cluster;

use std::time::Duration;

use cluster::timeline::{Effect, Timeline};
use cluster::{Cluster, name_of};
use nettune_crds::NodeNetworkProfileSpec;
use proptest::prelude::*;
use serde_json::json;

const THRESH3: &str = "net.ipv4.neigh.default.gc_thresh3";
const CONNTRACK: &str = "net.netfilter.nf_conntrack_max";

fn fine(_: &str, _: &NodeNetworkProfileSpec) -> Effect {
    Effect::Fine
}

/// A cluster that was sized for a thousand nodes and is asked for fewer.
fn large(count: usize) -> Timeline<fn(&str, &NodeNetworkProfileSpec) -> Effect> {
    let mut cluster = Cluster::with_ready_nodes(count);
    cluster.apply_tuning("default", sized_for(5000));
    let mut timeline = Timeline::new(cluster, fine as fn(&str, &_) -> _);
    timeline.run(120, 10);
    assert_eq!(timeline.holding(THRESH3, "32768"), count);
    timeline
}

fn sized_for(nodes: u32) -> serde_json::Value {
    json!({"neighbors": {"sizeForNodes": nodes}})
}

#[test]
fn a_limit_is_lowered_when_less_has_been_wanted_for_an_hour_and_then_in_waves() {
    let mut timeline = large(4);
    timeline.cluster.apply_tuning("default", sized_for(1));
    timeline.run(3590, 10);
    assert_eq!(timeline.holding(THRESH3, "32768"), 4);
    let progressing = &timeline.cluster.status("default").conditions;
    let progressing = nettune_crds::conditions::find(progressing, "Progressing").unwrap();
    assert_eq!(
        progressing.message,
        "no changes in progress; larger limits stay on 4 nodes until smaller ones have been desired for 3600 s"
    );
    timeline.run(30, 10);
    assert_eq!(timeline.holding(THRESH3, "8192"), 1);
    timeline.run(300, 10);
    assert_eq!(timeline.holding(THRESH3, "8192"), 4);
    assert!(timeline.cluster.decide().is_empty());
}

#[test]
fn the_leader_wakes_itself_when_the_hour_is_over() {
    let mut timeline = large(1);
    timeline.cluster.apply_tuning("default", sized_for(1));
    let since = timeline.cluster.time;
    timeline.step(1);
    let hour = since + Duration::from_secs(3600);
    assert_eq!(
        timeline.cluster.look().wake_at,
        Some(nettune_planner::Mono::at(hour))
    );
}

#[test]
fn a_cluster_that_breathes_changes_nothing() {
    let mut timeline = large(3);
    let before = timeline.writes_to_all();
    for _ in 0..24 {
        timeline.cluster.apply_tuning("default", sized_for(1500));
        timeline.run(3500, 100);
        timeline.cluster.apply_tuning("default", sized_for(5000));
        timeline.run(200, 100);
    }
    assert_eq!(timeline.writes_to_all(), before);
}

#[test]
fn autoscaled_nodes_around_a_power_of_two_rewrite_no_profile() {
    let mut cluster = Cluster::with_ready_nodes(1300);
    cluster.apply_tuning("default", json!({"neighbors": {}}));
    let mut timeline = Timeline::new(cluster, fine);
    timeline.step(10);
    let wanted = timeline.cluster.wanted("node-0", THRESH3);
    let before = timeline.cluster.writes_to("node-0");
    let mut differs = false;
    for round in 0..6 {
        for index in 600..1300 {
            if round % 2 == 0 {
                timeline.cluster.nodes.remove(&name_of(index));
                timeline.cluster.profiles.remove(&name_of(index));
            } else {
                timeline.cluster.put_node(index, json!({"ready": "True"}));
            }
        }
        timeline.run(1800, 600);
        let status = &timeline.cluster.status("default").gc_thresh3;
        differs |= status.as_deref() != Some(&wanted);
    }
    assert!(
        differs,
        "the model asks for less at times, or nothing is tested"
    );
    assert_eq!(timeline.cluster.writes_to("node-0"), before);
}

#[test]
fn a_smaller_size_that_changes_waits_anew() {
    let mut timeline = large(1);
    timeline.cluster.apply_tuning("default", sized_for(1));
    timeline.run(3000, 100);
    timeline.cluster.apply_tuning("default", sized_for(1500));
    timeline.run(3500, 100);
    assert_eq!(timeline.holding(THRESH3, "32768"), 1);
    timeline.run(300, 100);
    assert_eq!(timeline.holding(THRESH3, "16384"), 1);
}

#[test]
fn a_new_leader_waits_the_hour_again() {
    let mut timeline = large(1);
    timeline.cluster.apply_tuning("default", sized_for(1));
    timeline.run(3500, 100);
    timeline.cluster.fail_over();
    timeline.run(3500, 100);
    assert_eq!(timeline.holding(THRESH3, "32768"), 1);
    timeline.run(300, 100);
    assert_eq!(timeline.holding(THRESH3, "8192"), 1);
}

#[test]
fn patience_is_the_tunings_to_set() {
    let mut timeline = large(2);
    let mut spec = sized_for(1);
    spec["resize"] = json!({"shrinkAfterSeconds": 0});
    spec["rollout"] = json!({"type": "AllAtOnce"});
    timeline.cluster.apply_tuning("default", spec);
    timeline.step(1);
    assert_eq!(timeline.holding(THRESH3, "8192"), 2);
}

#[test]
fn while_a_limit_is_kept_other_changes_go_on() {
    let mut timeline = large(2);
    let mut spec = sized_for(1);
    spec["sysctls"] = json!([{"name": "net.core.somaxconn", "value": "4096"}]);
    timeline.cluster.apply_tuning("default", spec);
    timeline.run(300, 10);
    assert_eq!(timeline.holding("net.core.somaxconn", "4096"), 2);
    assert_eq!(timeline.holding(THRESH3, "32768"), 2);
    let kept = &timeline.cluster.profiles["node-0"].spec.sysctls;
    let kept = kept.iter().find(|sysctl| sysctl.name == THRESH3).unwrap();
    assert!(
        kept.reason.starts_with(
            "32768 kept until a smaller value has been desired for 3600 s; 8192 desired: "
        ),
        "{}",
        kept.reason
    );
    timeline.run(3600, 10);
    assert_eq!(timeline.holding(THRESH3, "8192"), 2);
}

#[test]
fn nothing_shrinks_below_twice_what_a_node_uses() {
    let mut cluster = Cluster::with_ready_nodes(2);
    let conntrack =
        |most: u32| json!({"conntrack": {"maxEntries": most}, "resize": {"shrinkAfterSeconds": 0}});
    cluster.apply_tuning("default", conntrack(1_048_576));
    let mut timeline = Timeline::new(cluster, fine);
    timeline.run(60, 10);
    assert_eq!(timeline.holding(CONNTRACK, "262144"), 2);
    timeline.cluster.used("node-0", None, Some(65_536));
    timeline.cluster.apply_tuning("default", conntrack(65_536));
    timeline.run(600, 10);
    assert_eq!(timeline.cluster.wanted("node-1", CONNTRACK), "65536");
    assert_eq!(timeline.cluster.wanted("node-0", CONNTRACK), "262144");
    // It uses less: now it may follow.
    timeline.cluster.used("node-0", None, Some(16_384));
    timeline.run(600, 10);
    assert_eq!(timeline.cluster.wanted("node-0", CONNTRACK), "65536");
}

/// What gc_thresh3 is for a tuning that is sized for so many nodes.
const SIZES: [(u32, u64); 4] = [(1, 8192), (1500, 16_384), (5000, 32_768), (10_000, 65_536)];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_limit_is_never_below_what_was_wanted_within_the_last_hour(
        count in 1_usize..6,
        wishes in proptest::collection::vec((0_usize..SIZES.len(), 1_u64..50), 1..12),
        fail_over in proptest::option::of(0_usize..12),
    ) {
        const STEP: u64 = 120;
        let mut cluster = Cluster::with_ready_nodes(count);
        cluster.apply_tuning("default", sized_for(SIZES[0].0));
        let mut timeline = Timeline::new(cluster, fine);
        timeline.step(STEP);
        // What was wanted at each step, the last one last.
        let mut wanted = Vec::new();
        let mut last = SIZES[0].1;
        for (index, (wish, steps)) in wishes.into_iter().enumerate() {
            if fail_over == Some(index) {
                timeline.cluster.fail_over();
            }
            let (nodes, size) = SIZES[wish];
            timeline.cluster.apply_tuning("default", sized_for(nodes));
            last = size;
            for _ in 0..steps {
                wanted.push(size);
                timeline.step(STEP);
                let hour = wanted.len().saturating_sub(usize::try_from(3600 / STEP).unwrap());
                let most = *wanted[hour..].iter().max().unwrap();
                for node in timeline.cluster.profiles.keys() {
                    let held: u64 = timeline.cluster.wanted(node, THRESH3).parse().unwrap();
                    prop_assert!(held >= most, "{node} holds {held}, {most} was wanted");
                }
            }
        }
        timeline.run(3600 + 120 * 6, STEP);
        prop_assert_eq!(timeline.holding(THRESH3, &last.to_string()), count);
        prop_assert!(timeline.cluster.decide().is_empty());
    }

    #[test]
    fn whatever_is_wanted_a_limit_stays_twice_above_what_the_node_uses(
        used in proptest::collection::vec(1_u32..16, 1..5),
        wishes in proptest::collection::vec(0_u32..5, 1..8),
    ) {
        let conntrack =
            |most: u32| json!({"conntrack": {"maxEntries": most}, "resize": {"shrinkAfterSeconds": 0}});
        let mut cluster = Cluster::with_ready_nodes(used.len());
        cluster.apply_tuning("default", conntrack(262_144));
        let mut timeline = Timeline::new(cluster, fine);
        timeline.run(60, 10);
        prop_assert_eq!(timeline.holding(CONNTRACK, "262144"), used.len());
        // Up to half of what they hold.
        for (index, share) in used.iter().enumerate() {
            timeline.cluster.used(&name_of(index), None, Some(i64::from(*share) * 8192));
        }
        for wish in wishes {
            timeline.cluster.apply_tuning("default", conntrack(262_144 >> wish));
            timeline.run(600, 30);
            for (index, share) in used.iter().enumerate() {
                let held: u64 = timeline.cluster.wanted(&name_of(index), CONNTRACK).parse().unwrap();
                prop_assert!(held >= u64::from(*share) * 8192 * 2, "{held} for a use of {share} × 8192");
            }
        }
    }
}
