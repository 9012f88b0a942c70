//! Agents that give no sign of life, and the taint that waits for them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, also outside their #[test] functions"
)]

mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::Cluster;
use nettune_planner::{STARTUP_TAINT, Write};
use serde_json::json;

/// Ready nodes whose agents have answered.
fn answered(count: usize) -> Cluster {
    let mut cluster = Cluster::with_ready_nodes(count);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    for index in 0..count {
        cluster.report(&cluster::name_of(index), "Ready", "True", "Applied", "");
    }
    cluster.settle();
    cluster
}

fn later(cluster: &mut Cluster, seconds: u64) -> Vec<Write> {
    cluster.time += Duration::from_secs(seconds);
    cluster.turn()
}

/// Status, reason and message of a profile's `Ready`.
fn ready(cluster: &Cluster, node: &str) -> (String, String, String) {
    let status = cluster.profiles[node].status.as_ref().unwrap();
    let ready = nettune_crds::conditions::find(&status.conditions, "Ready").unwrap();
    (
        ready.status.clone(),
        ready.reason.clone(),
        ready.message.clone(),
    )
}

/// What happens to `node-0`, and how its silence is told.
type Sign = (fn(&mut Cluster), &'static str);

#[test]
fn each_sign_of_silence_is_told_after_the_deadline_and_not_before() {
    let signs: [Sign; 4] = [
        (
            |cluster| cluster.set_ready("node-0", "Unknown"),
            "kubelet is not reporting (Node Ready=Unknown)",
        ),
        (
            |cluster| cluster.put_node(0, json!({"ready": "True", "bootID": "next"})),
            "the node rebooted and the agent has not reported since",
        ),
        (
            |cluster| {
                cluster.apply_tuning("default", json!({"conntrack": {"minEntries": 524_288}}));
                cluster.turn();
                cluster.report("node-1", "Ready", "True", "Applied", "");
            },
            "it has not reported on the latest profile",
        ),
        (
            |cluster| {
                let pods = [("node-1".to_owned(), true), ("node-0".to_owned(), false)];
                cluster.agents = Some(BTreeMap::from(pods));
            },
            "its Pod is not ready",
        ),
    ];
    for (sign, why) in signs {
        let mut cluster = answered(2);
        sign(&mut cluster);
        later(&mut cluster, 1);
        later(&mut cluster, 119);
        assert_eq!(ready(&cluster, "node-0").0, "True", "{why}");
        let wake = cluster.look().wake_at;
        cluster.time += Duration::from_secs(1);
        assert_eq!(wake, Some(nettune_planner::Mono::at(cluster.time)), "{why}");
        cluster.settle();
        let message =
            format!("agent unresponsive for 120 s: {why}; kernel values stay as they are");
        let expected = (
            "Unknown".to_owned(),
            "AgentUnresponsive".to_owned(),
            message,
        );
        assert_eq!(ready(&cluster, "node-0"), expected);
        assert_eq!(ready(&cluster, "node-1").0, "True", "{why}");
        let nodes = cluster.status("default").nodes.unwrap();
        assert_eq!((nodes.unresponsive, nodes.ready), (1, 1), "{why}");
        assert!(cluster.decide().is_empty());
    }
}

#[test]
fn a_node_that_the_pods_do_not_name_has_no_agent() {
    let mut cluster = answered(1);
    cluster.agents = Some(BTreeMap::new());
    later(&mut cluster, 1);
    later(&mut cluster, 120);
    assert_eq!(ready(&cluster, "node-0").1, "AgentUnresponsive");
}

#[test]
fn an_agent_that_comes_back_in_time_is_not_called_silent() {
    let mut cluster = answered(1);
    for _ in 0..5 {
        cluster.set_ready("node-0", "Unknown");
        later(&mut cluster, 100);
        cluster.set_ready("node-0", "True");
        later(&mut cluster, 10);
    }
    assert_eq!(ready(&cluster, "node-0").1, "Applied");
}

#[test]
fn an_agent_that_objects_is_believed_as_long_as_the_sign_stays() {
    let mut cluster = answered(1);
    cluster.set_ready("node-0", "Unknown");
    later(&mut cluster, 1);
    later(&mut cluster, 120);
    later(&mut cluster, 1);
    assert_eq!(ready(&cluster, "node-0").1, "AgentUnresponsive");
    // Its kubelet is dead, the agent is not.
    cluster.report("node-0", "Ready", "True", "Applied", "");
    for _ in 0..50 {
        later(&mut cluster, 100);
    }
    assert_eq!(ready(&cluster, "node-0").1, "Applied");
    assert_eq!(cluster.status("default").nodes.unwrap().unresponsive, 0);
    // The sign goes and comes again: another silence.
    cluster.set_ready("node-0", "True");
    later(&mut cluster, 1);
    cluster.set_ready("node-0", "Unknown");
    later(&mut cluster, 1);
    later(&mut cluster, 120);
    assert_eq!(ready(&cluster, "node-0").1, "AgentUnresponsive");
}

/// Its kubelet is dead, the agent is not, and it is faster than the next decision.
#[test]
fn an_agent_that_objects_before_anybody_has_looked_is_believed_too() {
    let mut cluster = answered(1);
    cluster.set_ready("node-0", "Unknown");
    later(&mut cluster, 1);
    let mut told = 0;
    for _ in 0..50 {
        for write in later(&mut cluster, 60) {
            if matches!(write, Write::AgentUnresponsive { .. }) {
                told += 1;
                cluster.report("node-0", "Ready", "True", "Applied", "");
            }
        }
    }
    assert_eq!(told, 1);
    assert_eq!(ready(&cluster, "node-0").1, "Applied");
    assert_eq!(cluster.status("default").nodes.unwrap().unresponsive, 0);
}

#[test]
fn what_could_not_be_written_of_a_silent_agent_is_written_again() {
    let mut cluster = answered(1);
    cluster.set_ready("node-0", "Unknown");
    later(&mut cluster, 1);
    cluster.time += Duration::from_secs(120);
    for _ in 0..3 {
        // Refused: the profile has another version by now.
        let decision = cluster.look();
        let is_told = |write: &Write| matches!(write, Write::AgentUnresponsive { .. });
        assert!(decision.writes.iter().any(is_told));
        cluster.memory = decision.memory;
    }
    later(&mut cluster, 1);
    assert_eq!(ready(&cluster, "node-0").1, "AgentUnresponsive");
}

#[test]
fn an_agent_that_never_spoke_is_counted_and_nothing_is_written_on_its_profile() {
    let mut cluster = Cluster::with_ready_nodes(2);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    let writes = later(&mut cluster, 120);
    assert!(
        matches!(writes[..], [Write::TuningStatus { .. }]),
        "{writes:?}"
    );
    assert_eq!(cluster.status("default").nodes.unwrap().unresponsive, 2);
}

/// A new node with the taint, and another one.
fn tainted() -> serde_json::Value {
    json!({"ready": "True", "taints": [
        {"key": "dedicated", "value": "a", "effect": "NoSchedule"},
        {"key": STARTUP_TAINT, "effect": "NoSchedule"}
    ]})
}

fn has_taint(cluster: &Cluster) -> bool {
    let taints = cluster.nodes["node-0"].spec.taints.as_deref().unwrap();
    assert!(taints.iter().any(|taint| taint.key == "dedicated"));
    taints.iter().any(|taint| taint.key == STARTUP_TAINT)
}

#[test]
fn the_startup_taint_goes_when_the_profile_is_first_ready() {
    let mut cluster = Cluster::default();
    cluster.startup_taint = true;
    cluster.put_node(0, tainted());
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    assert!(has_taint(&cluster));
    cluster.report("node-0", "Ready", "True", "Applied", "");
    cluster.settle();
    assert!(!has_taint(&cluster));
    assert!(cluster.decide().is_empty());
}

#[test]
fn no_node_keeps_the_startup_taint_for_ever() {
    let tunings = [
        None,
        Some(json!({"conntrack": {}, "nodeSelector": {"matchLabels": {"no": "node"}}})),
        Some(json!({"conntrack": {}, "mode": "Observe"})),
        Some(json!({"conntrack": {}, "rollout": {"paused": true}})),
        Some(json!({"sysctls": [{"name": "kernel.panic", "value": "1"}]})),
        Some(json!({"conntrack": {}})),
    ];
    for tuning in tunings {
        for os in ["linux", "windows"] {
            for fails in [false, true] {
                let mut cluster = Cluster::default();
                cluster.startup_taint = true;
                let mut node = tainted();
                node["os"] = json!(os);
                cluster.put_node(0, node);
                if let Some(spec) = &tuning {
                    cluster.apply_tuning("default", spec.clone());
                }
                cluster.settle();
                if fails && cluster.profiles.contains_key("node-0") {
                    cluster.report("node-0", "Ready", "False", "Failed", "EROFS");
                }
                later(&mut cluster, 59);
                assert!(has_taint(&cluster), "{tuning:?}");
                let wake = cluster.look().wake_at.expect("a moment to look again");
                assert!(wake <= nettune_planner::Mono::at(Duration::from_secs(60)));
                later(&mut cluster, 1);
                assert!(!has_taint(&cluster), "{tuning:?}");
            }
        }
    }
}

#[test]
fn without_the_flag_no_taint_is_touched() {
    let mut cluster = Cluster::default();
    cluster.put_node(0, tainted());
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster.settle();
    cluster.report("node-0", "Ready", "True", "Applied", "");
    later(&mut cluster, 1);
    later(&mut cluster, 600);
    assert!(has_taint(&cluster));
}
