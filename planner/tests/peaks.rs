//! What a node has seen raises its own size, as far as its memory bears.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, also outside their #[test] functions"
)]

mod cluster;

use cluster::Cluster;
use serde_json::json;

const THRESH2: &str = "net.ipv4.neigh.default.gc_thresh2";
const THRESH3: &str = "net.ipv4.neigh.default.gc_thresh3";
const CONNTRACK: &str = "net.netfilter.nf_conntrack_max";

fn settled() -> Cluster {
    let mut cluster = Cluster::with_ready_nodes(3);
    cluster.apply_tuning("default", json!({"neighbors": {}, "conntrack": {}}));
    cluster.settle();
    cluster
}

#[test]
fn peaks_that_the_size_bears_change_nothing() {
    let mut cluster = settled();
    cluster.used("node-0", Some(1024), Some(131_072));
    assert!(cluster.decide().is_empty(), "{:?}", cluster.decide());
}

#[test]
fn a_peak_raises_the_size_of_that_node_alone_and_the_reason_says_so() {
    let mut cluster = settled();
    cluster.used("node-0", Some(8192), Some(262_144));
    cluster.settle();
    let sizes = [
        (THRESH2, "32768"),
        (THRESH3, "65536"),
        (CONNTRACK, "524288"),
    ];
    for (sysctl, value) in sizes {
        assert_eq!(cluster.wanted("node-0", sysctl), value);
        assert_ne!(cluster.wanted("node-1", sysctl), value);
        let sysctls = &cluster.profiles["node-0"].spec.sysctls;
        let sized = sysctls.iter().find(|sized| sized.name == sysctl).unwrap();
        assert!(sized.reason.contains("observed peak"), "{}", sized.reason);
    }
    assert!(cluster.decide().is_empty());
    let groups = &cluster.status("default").groups;
    assert_eq!(
        groups.iter().map(|group| group.nodes).collect::<Vec<_>>(),
        [2, 1]
    );
}

#[test]
fn what_an_agent_has_raised_by_itself_is_taken_over_in_one_decision() {
    // A table was full: the agent doubled its limit, and reports the limit that was reached.
    let mut cluster = settled();
    let full: i64 = cluster.wanted("node-0", CONNTRACK).parse().unwrap();
    cluster.used("node-0", None, Some(full));
    cluster.turn();
    let raised: i64 = cluster.wanted("node-0", CONNTRACK).parse().unwrap();
    assert_eq!(raised, 2 * full);
}

#[test]
fn memory_bounds_what_a_peak_may_ask_for() {
    let mut cluster = settled();
    cluster.used("node-0", Some(1 << 20), Some(1 << 30));
    cluster.settle();
    // 1 % and 3 % of 16 GiB, and conntrack at most 1048576.
    assert_eq!(cluster.wanted("node-0", THRESH3), "262144");
    assert_eq!(cluster.wanted("node-0", CONNTRACK), "1048576");
    let warnings = &cluster.status("default").warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn a_fixed_size_stays_fixed_whatever_was_seen() {
    let mut cluster = Cluster::with_ready_nodes(1);
    cluster.apply_tuning(
        "default",
        json!({"conntrack": {"minEntries": 65_536, "maxEntries": 65_536}, "rollout": {"type": "AllAtOnce"}}),
    );
    cluster.settle();
    cluster.used("node-0", None, Some(65_536));
    cluster.settle();
    assert_eq!(cluster.wanted("node-0", CONNTRACK), "65536");
}

#[test]
fn absurd_peaks_are_no_peaks() {
    let mut cluster = settled();
    cluster.used("node-0", Some(i64::MAX), Some(-1));
    assert!(cluster.decide().is_empty());
}
