//! Decisions over small clusters: objects in, writes out, no API server and no async.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, also outside their #[test] functions"
)]

mod cluster;

use cluster::{Cluster, name_of};
use nettune_crds::{Mode, NodeNetworkTuningStatus};
use nettune_planner::Write;
use serde_json::json;

fn condition<'a>(status: &'a NodeNetworkTuningStatus, type_: &str) -> (&'a str, &'a str, &'a str) {
    let found = nettune_crds::conditions::find(&status.conditions, type_).expect(type_);
    (&found.status, &found.reason, &found.message)
}

#[test]
fn every_linux_node_gets_a_profile_and_then_nothing_is_left_to_do() {
    let mut cluster = Cluster::with_nodes(3);
    cluster.apply_tuning(
        "default",
        json!({"neighbors": {}, "conntrack": {}, "ipvs": {}}),
    );
    cluster.settle();
    assert_eq!(cluster.profiles.len(), 3);
    assert!(cluster.decide().is_empty());
    assert_eq!(
        cluster.wanted("node-0", "net.ipv4.neigh.default.gc_thresh3"),
        "8192"
    );
}

#[test]
fn without_a_tuning_nothing_is_written() {
    assert!(Cluster::with_nodes(3).decide().is_empty());
}

#[test]
fn a_cluster_that_grows_rewrites_profiles_only_when_a_value_differs() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning(
        "default",
        json!({"neighbors": {}, "conntrack": {}, "ipvs": {}}),
    );
    cluster.settle();
    // Every size between is covered by the model's own tests; here it is the writes that count.
    let mut rewrites = 0;
    let mut count = 1;
    while count < 5000 {
        let grown = (count * 3 / 2 + 1).min(5000);
        for index in count..grown {
            cluster.put_node(index, json!({}));
        }
        count = grown;
        let before = cluster.writes_to("node-0");
        cluster.settle();
        rewrites += cluster.writes_to("node-0") - before;
    }
    assert!(rewrites <= 5, "{rewrites} rewrites");
    assert!(
        rewrites >= 1,
        "a cluster of 5000 nodes is not sized like one of 1"
    );
    assert_eq!(
        cluster.wanted("node-0", "net.ipv4.neigh.default.gc_thresh3"),
        "65536"
    );
}

#[test]
fn a_reason_alone_rewrites_nothing() {
    let mut cluster = Cluster::with_nodes(3);
    cluster.apply_tuning("default", json!({"neighbors": {}}));
    cluster.settle();
    cluster.put_node(3, json!({}));
    let writes = cluster.decide();
    let touched: Vec<_> = writes
        .iter()
        .filter(|write| !matches!(write, Write::TuningStatus { .. }))
        .collect();
    assert!(
        matches!(touched[..], [Write::CreateProfile { .. }]),
        "{touched:?}"
    );
}

#[test]
fn the_highest_priority_has_a_node_then_the_older_then_the_smaller_uid() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning("b-first", json!({"conntrack": {}}));
    cluster.apply_tuning("a-later", json!({"conntrack": {}}));
    cluster.settle();
    assert_eq!(cluster.profiles["node-0"].spec.tuning, "b-first");
    cluster.apply_tuning("important", json!({"conntrack": {}, "priority": 1}));
    cluster.settle();
    assert_eq!(cluster.profiles["node-0"].spec.tuning, "important");
    cluster.tunings.remove("important");
    cluster
        .tunings
        .get_mut("a-later")
        .unwrap()
        .metadata
        .creation_timestamp = cluster.tunings["b-first"]
        .metadata
        .creation_timestamp
        .clone();
    cluster.tunings.get_mut("a-later").unwrap().metadata.uid = Some("0".into());
    cluster.settle();
    assert_eq!(cluster.profiles["node-0"].spec.tuning, "a-later");
}

#[test]
fn a_tuning_says_which_lower_ones_it_hides() {
    let mut cluster = Cluster::with_nodes(3);
    cluster.apply_tuning("base", json!({"neighbors": {}, "conntrack": {}}));
    cluster.apply_tuning(
        "upper",
        json!({"priority": 5, "conntrack": {}, "nodeSelector": {"matchLabels": {"even": "true"}}}),
    );
    cluster.settle();
    let (status, _, message) = condition(cluster.status("upper"), "Overlapping");
    assert_eq!(
        (status, message),
        (
            "True",
            "takes precedence over base on 2 nodes (neighbors, conntrack)"
        )
    );
    assert_eq!(condition(cluster.status("base"), "Overlapping").0, "False");
}

#[test]
fn a_node_that_changes_hands_keeps_its_profile() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning(
        "one",
        json!({"conntrack": {}, "nodeSelector": {"matchLabels": {"pool": "a"}}}),
    );
    cluster.apply_tuning(
        "two",
        json!({"conntrack": {}, "nodeSelector": {"matchLabels": {"pool": "b"}}}),
    );
    cluster.put_node(0, json!({"labels": {"pool": "a"}}));
    cluster.settle();
    let uid = cluster.profiles["node-0"].metadata.uid.clone();
    cluster.put_node(0, json!({"labels": {"pool": "b"}}));
    cluster.settle();
    assert_eq!(cluster.profiles["node-0"].spec.tuning, "two");
    assert_eq!(cluster.profiles["node-0"].metadata.uid, uid);
}

#[test]
fn retain_deletes_the_profile_and_leaves_the_values() {
    let mut cluster = Cluster::with_nodes(2);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    cluster.tunings.remove("default");
    let writes = cluster.decide();
    assert_eq!(writes.len(), 2);
    assert!(
        writes
            .iter()
            .all(|write| matches!(write, Write::DeleteProfile { .. }))
    );
}

#[test]
fn restore_waits_for_the_agents_word_before_it_deletes() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning(
        "default",
        json!({"conntrack": {}, "releasePolicy": "Restore"}),
    );
    cluster.settle();
    cluster.report("node-0", "Ready", "True", "Applied", "");
    // Deleted: what the policy was is on the profile.
    cluster.tunings.remove("default");
    cluster.settle();
    assert!(cluster.profiles["node-0"].spec.release);
    let sysctls = &cluster.profiles["node-0"].spec.sysctls;
    assert!(!sysctls.is_empty() && sysctls.iter().all(|sysctl| !sysctl.reason.is_empty()));
    assert!(cluster.decide().is_empty(), "the agent has not answered");
    cluster.report("node-0", "Released", "True", "Restored", "");
    cluster.settle();
    assert!(cluster.profiles.is_empty());
}

#[test]
fn a_release_is_taken_back_when_a_tuning_selects_the_node_again() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning(
        "default",
        json!({"conntrack": {}, "releasePolicy": "Restore"}),
    );
    cluster.settle();
    cluster.tunings.remove("default");
    cluster.settle();
    cluster.apply_tuning("next", json!({"conntrack": {}}));
    cluster.settle();
    assert!(!cluster.profiles["node-0"].spec.release);
    assert_eq!(cluster.profiles["node-0"].spec.tuning, "next");
}

#[test]
fn a_tuning_from_an_older_schema_freezes_its_nodes_and_stops_nothing_else() {
    let mut cluster = Cluster::with_nodes(2);
    cluster.apply_tuning(
        "good",
        json!({"conntrack": {}, "nodeSelector": {"matchLabels": {"even": "true"}}}),
    );
    cluster.apply_tuning(
        "bad",
        json!({"conntrack": {}, "nodeSelector": {"matchLabels": {"even": "false"}}}),
    );
    cluster.settle();
    cluster.apply_tuning(
        "bad",
        json!({
            "sysctls": [{"name": "kernel.panic", "value": "1"}],
            "nodeSelector": {"matchLabels": {"even": "false"}}
        }),
    );
    cluster.apply_tuning(
        "good",
        json!({
            "conntrack": {"minEntries": 524288}, "nodeSelector": {"matchLabels": {"even": "true"}}
        }),
    );
    cluster.settle();
    let (status, reason, message) = condition(cluster.status("bad"), "Ready");
    assert_eq!((status, reason), ("False", "InvalidTuning"));
    assert!(message.contains("kernel.panic"), "{message}");
    assert_eq!(cluster.profiles["node-1"].spec.tuning, "bad");
    assert_eq!(
        cluster.wanted("node-0", "net.netfilter.nf_conntrack_max"),
        "524288"
    );
}

#[test]
fn a_profile_that_was_deleted_by_hand_is_written_again() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    cluster.profiles.clear();
    assert!(
        cluster
            .decide()
            .iter()
            .any(|write| matches!(write, Write::CreateProfile { .. }))
    );
}

#[test]
fn a_profile_whose_node_is_gone_is_deleted_with_its_uid() {
    let mut cluster = Cluster::with_nodes(2);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    let uid = cluster.profiles["node-1"].metadata.uid.clone();
    cluster.nodes.remove("node-1");
    let deleted = cluster.decide().into_iter().find_map(|write| match write {
        Write::DeleteProfile { node, uid, .. } => Some((node.to_string(), uid.to_string())),
        _ => None,
    });
    assert_eq!(deleted, Some(("node-1".into(), uid.unwrap())));
}

#[test]
fn a_node_that_came_back_under_its_old_name_starts_anew() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    cluster.report("node-0", "Ready", "True", "Applied", "");
    cluster.settle();
    let old = cluster.profiles["node-0"].metadata.uid.clone();
    cluster.put_node(0, json!({"uid": "another"}));
    cluster.settle();
    assert_ne!(cluster.profiles["node-0"].metadata.uid, old);
    assert_eq!(cluster.status("default").nodes.unwrap().ready, 0);
}

#[test]
fn a_tuning_is_ready_when_every_agent_says_so_for_this_generation_and_boot() {
    let mut cluster = Cluster::with_nodes(2);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    assert_eq!(
        condition(cluster.status("default"), "Ready").1,
        "NodesNotReady"
    );
    assert_eq!(
        condition(cluster.status("default"), "Progressing").0,
        "True"
    );
    cluster.report("node-0", "Ready", "True", "Applied", "");
    cluster.report("node-1", "Ready", "True", "Applied", "");
    cluster.settle();
    assert_eq!(
        condition(cluster.status("default"), "Ready").1,
        "AllNodesReady"
    );
    assert_eq!(
        condition(cluster.status("default"), "Progressing").0,
        "False"
    );
    // The node reboots: what its agent said is about the boot before.
    cluster.put_node(0, json!({"bootID": "next"}));
    cluster.settle();
    assert_eq!(cluster.status("default").nodes.unwrap().ready, 1);
    // A new generation: what agents said is about the one before.
    cluster.apply_tuning("default", json!({"conntrack": {"minEntries": 524288}}));
    cluster.settle();
    assert_eq!(cluster.status("default").nodes.unwrap().ready, 0);
}

#[test]
fn failures_are_counted_and_named() {
    let mut cluster = Cluster::with_nodes(12);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    for index in 0..12 {
        cluster.report(&name_of(index), "Ready", "False", "Failed", "EROFS");
    }
    cluster.settle();
    let (status, reason, message) = condition(cluster.status("default"), "Ready");
    assert_eq!((status, reason), ("False", "NodesFailed"));
    assert!(
        message.contains("node-0 (EROFS)") && message.ends_with("and 2 more"),
        "{message}"
    );
    assert_eq!(cluster.status("default").nodes.unwrap().failed, 12);
}

#[test]
fn the_mode_goes_into_every_profile() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning("default", json!({"conntrack": {}, "mode": "Observe"}));
    cluster.settle();
    assert_eq!(cluster.profiles["node-0"].spec.mode, Mode::Observe);
}

#[test]
fn what_an_agent_has_seen_changes_the_size_of_its_node_alone() {
    let mut cluster = Cluster::with_nodes(2);
    cluster.apply_tuning("default", json!({"neighbors": {}}));
    cluster.settle();
    cluster.see(
        "node-0",
        json!({"initialNetworkNamespace": true, "ipv6": false, "modules": []}),
    );
    cluster.settle();
    let has_ipv6 = |cluster: &Cluster, node: &str| {
        cluster.profiles[node]
            .spec
            .sysctls
            .iter()
            .any(|sysctl| sysctl.name.starts_with("net.ipv6"))
    };
    assert!(!has_ipv6(&cluster, "node-0"));
    assert!(has_ipv6(&cluster, "node-1"));
}

#[test]
fn windows_and_virtual_nodes_are_left_out() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.put_node(1, json!({"os": "windows"}));
    cluster.put_node(2, json!({"labels": {"type": "virtual-kubelet"}}));
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    assert_eq!(cluster.profiles.keys().collect::<Vec<_>>(), ["node-0"]);
    assert_eq!(cluster.status("default").cluster.unwrap().nodes, 2);
}

#[test]
fn growth_and_readiness_are_told_once() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning("default", json!({"neighbors": {}}));
    cluster.settle();
    cluster.report("node-0", "Ready", "True", "Applied", "");
    let told = |writes: &[Write]| -> Vec<&'static str> {
        writes
            .iter()
            .filter_map(|write| match write {
                Write::TuningStatus { announcements, .. } => Some(announcements),
                _ => None,
            })
            .flatten()
            .map(|announcement| announcement.reason)
            .collect()
    };
    assert_eq!(told(&cluster.decide()), ["AllNodesReady"]);
    cluster.settle();
    cluster.report("node-0", "Drifted", "True", "ValuesDiffer", "");
    assert_eq!(
        cluster.decide().len(),
        1,
        "the count of drifted nodes has changed"
    );
    assert!(told(&cluster.decide()).is_empty());
    cluster.apply_tuning("default", json!({"neighbors": {"sizeForNodes": 5000}}));
    assert_eq!(told(&cluster.decide()), ["Resized"]);
}

const INVALID: &str = "kernel.panic";

/// A tuning that only an older schema let in, with this selector and priority.
fn invalid(even: &str, priority: i32) -> serde_json::Value {
    json!({
        "sysctls": [{"name": INVALID, "value": "1"}],
        "priority": priority,
        "nodeSelector": {"matchLabels": {"even": even}}
    })
}

#[test]
fn a_frozen_node_stays_frozen_also_without_its_profile() {
    let mut cluster = Cluster::with_nodes(2);
    cluster.apply_tuning("low", json!({"conntrack": {}}));
    cluster.apply_tuning("high", invalid("true", 5));
    cluster.settle();
    assert_eq!(cluster.profiles.keys().collect::<Vec<_>>(), ["node-1"]);
}

#[test]
fn a_frozen_tuning_still_counts_what_its_agents_say() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    cluster.report("node-0", "Ready", "True", "Applied", "");
    cluster.settle();
    cluster.apply_tuning("default", invalid("true", 0));
    cluster.settle();
    assert_eq!(cluster.status("default").nodes.unwrap().ready, 1);
    assert_eq!(
        condition(cluster.status("default"), "Progressing").0,
        "Unknown"
    );
}

#[test]
fn a_tuning_that_others_hide_completely_says_so_itself() {
    let mut cluster = Cluster::with_nodes(2);
    cluster.apply_tuning("low", json!({"conntrack": {}}));
    cluster.apply_tuning("high", json!({"conntrack": {}, "priority": 1}));
    cluster.settle();
    let (status, reason, message) = condition(cluster.status("low"), "Ready");
    assert_eq!((status, reason), ("True", "NoNodesSelected"));
    assert_eq!(
        message,
        "every selected node (2) belongs to a tuning that takes precedence"
    );
}

#[test]
fn observed_nodes_with_other_values_are_reported_as_values_differ() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning("default", json!({"conntrack": {}, "mode": "Observe"}));
    cluster.settle();
    cluster.report("node-0", "Ready", "True", "Observed", "");
    cluster.report("node-0", "Drifted", "True", "ValuesDiffer", "");
    cluster.settle();
    let (_, reason, message) = condition(cluster.status("default"), "Ready");
    assert_eq!(reason, "ValuesDiffer");
    assert!(
        message.contains("values differ on 1 of 1 node"),
        "{message}"
    );
}

#[test]
fn what_an_agent_said_before_a_reboot_is_not_counted_as_drift() {
    let mut cluster = Cluster::with_nodes(1);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    cluster.report("node-0", "Drifted", "True", "ValuesDiffer", "");
    cluster.put_node(0, json!({"bootID": "next"}));
    cluster.settle();
    assert_eq!(cluster.status("default").nodes.unwrap().drifted, 0);
}
