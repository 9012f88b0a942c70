//! `cargo xtask bench plan`: one decision over 15,000 nodes and 3 tunings, on one core.
//!
//! Prints the median of several runs beside its goal, and beside sizing each node by itself in the
//! same run: what grouping saves. With `--check` it exits with 1 where the goal is missed.

#![allow(clippy::print_stdout, reason = "a report is what it is for")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nettune_crds::{NodeNetworkProfile, NodeNetworkProfileStatus, NodeNetworkTuning};
use nettune_planner::{ClusterState, Decision, Memory, Mono, Now, ObservedNode, Write};
use serde_json::json;

const NODES: usize = 15_000;

/// More than any cluster that Kubernetes supports: how it goes on is a plan on paper
/// (docs/performance.md), and this is one figure of it that can be measured.
const BEYOND: usize = 100_000;
const GOAL: Duration = Duration::from_millis(20);
const RUNS: usize = 21;

fn main() -> ExitCode {
    let joining: Vec<ObservedNode> = (0..NODES).map(|index| node(index, "False")).collect();
    let nodes: Vec<ObservedNode> = (0..NODES).map(|index| node(index, "True")).collect();
    let tunings: Vec<NodeNetworkTuning> = (0..3).map(tuning).collect();
    let fresh = ClusterState::of(&joining, &tunings, []);
    let profiles = profiles(&fresh);
    let settled = ClusterState::of(&nodes, &tunings, &profiles);

    println!(
        "{NODES} nodes, {} tunings, median of {RUNS} runs, one core",
        tunings.len()
    );
    let all = row(
        "decide: no profile yet, all to be written",
        Some(GOAL),
        || decide(&fresh, &Memory::default()).writes.len(),
    );
    let idle = row(
        "decide: all profiles there, nothing to write",
        Some(GOAL),
        || decide(&settled, &Memory::default()).writes.len(),
    );
    let changed: Vec<NodeNetworkTuning> = (0..3).map(|index| changed(tuning(index))).collect();
    let begun = ClusterState::of(&nodes, &changed, &profiles);
    let waves = row("decide: a new value, nodes queued", Some(GOAL), || {
        decide(&begun, &Memory::default()).writes.len()
    });
    let on_trial: Vec<NodeNetworkProfile> = profiles.iter().cloned().map(canary).collect();
    let on_trial = ClusterState::of(&nodes, &tunings, &on_trial);
    let memory = decide(&on_trial, &Memory::default()).memory;
    let watched = row(
        "decide: all nodes on canary and remembered",
        Some(GOAL),
        || decide(&on_trial, &memory).writes.len(),
    );
    row(
        "baseline: the same nodes, each sized by itself",
        None,
        || one_by_one(&nodes),
    );
    let nodes: Vec<ObservedNode> = (0..BEYOND).map(|index| node(index, "True")).collect();
    let profiles = self::profiles(&ClusterState::of(&nodes, &tunings, []));
    let beyond = ClusterState::of(&nodes, &tunings, &profiles);
    row(
        &format!("decide: {BEYOND} nodes, all profiles there"),
        None,
        || decide(&beyond, &Memory::default()).writes.len(),
    );
    let missed = [all, idle, waves, watched].iter().any(|took| *took > GOAL);
    if missed {
        println!("goal missed");
    }
    let check = std::env::args().any(|argument| argument == "--check");
    if missed && check {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn row<T>(what: &str, goal: Option<Duration>, run: impl Fn() -> T) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            black_box(run());
            start.elapsed()
        })
        .collect();
    times.sort();
    let median = times.get(RUNS / 2).copied().unwrap_or_default();
    let goal = goal.map_or(String::new(), |goal| format!("   goal ≤ {goal:?}"));
    println!("{what:<50} {:>9.3} ms{goal}", median.as_secs_f64() * 1e3);
    median
}

fn decide(cluster: &ClusterState, memory: &Memory) -> Decision {
    let now = Now {
        mono: Mono::at(Duration::from_secs(3600)),
        wall: Timestamp::UNIX_EPOCH,
    };
    nettune_planner::decide(cluster, memory, now)
}

/// The tuning with another fixed value.
fn changed(mut tuning: NodeNetworkTuning) -> NodeNetworkTuning {
    for sysctl in &mut tuning.spec.sysctls {
        sysctl.value = "8192".to_owned();
    }
    tuning
}

/// The profile as a rollout has written it.
fn canary(mut profile: NodeNetworkProfile) -> NodeNetworkProfile {
    profile.spec.canary = true;
    profile
}

/// The word of a node's agent.
fn ready(node: &str) -> Option<NodeNetworkProfileStatus> {
    let ready = json!({
        "bootID": format!("boot of {node}"),
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Applied", "message": "",
            "lastTransitionTime": "1970-01-01T00:00:00Z"
        }]
    });
    serde_json::from_value(ready).ok()
}

/// A cluster whose nodes are all different: no group is shared.
fn one_by_one(nodes: &[ObservedNode]) -> usize {
    let tunings = [tuning(0)];
    nodes
        .iter()
        .map(|node| {
            decide(&ClusterState::of([node], &tunings, []), &Memory::default())
                .writes
                .len()
        })
        .sum()
}

/// The profiles that a fresh cluster's decision asks for, as the API server would hold them.
fn profiles(cluster: &ClusterState) -> Vec<NodeNetworkProfile> {
    let writes = decide(cluster, &Memory::default()).writes;
    let created = writes.into_iter().filter_map(|write| match write {
        Write::CreateProfile {
            node,
            node_uid,
            spec,
        } => {
            let mut profile = NodeNetworkProfile::new(&node, (*spec).clone());
            let owner =
                json!([{"apiVersion": "v1", "kind": "Node", "name": &*node, "uid": &*node_uid}]);
            profile.metadata.owner_references = serde_json::from_value(owner).ok();
            profile.status = ready(&node);
            Some(profile)
        }
        _ => None,
    });
    created.collect()
}

/// Labels and sizes like a real cluster's: three pools, four machine types, two kernels.
fn node(index: usize, ready: &str) -> ObservedNode {
    let pool = ["general", "batch", "edge"][index % 3];
    let memory = ["16Gi", "32Gi", "64Gi", "128Gi"][index % 4];
    let kernel = ["6.1.0-18-amd64", "5.15.0-1053-aws"][index / 7 % 2];
    let name = format!("ip-10-{}-{}-{}", index >> 16, index >> 8 & 255, index & 255);
    let value = json!({
        "metadata": {
            "name": name, "uid": format!("uid-{index}"),
            "labels": {
                "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
                "failure-domain.beta.kubernetes.io/region": "eu-west-1",
                "failure-domain.beta.kubernetes.io/zone": "eu-west-1a",
                "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux", "node.kubernetes.io/instance-type": "m5.4xlarge",
                "topology.kubernetes.io/region": "eu-west-1",
                "topology.kubernetes.io/zone": "eu-west-1a", "pool": pool
            },
            "annotations": {"flannel.alpha.coreos.com/backend-type": "vxlan"}
        },
        "spec": {"podCIDR": "10.244.0.0/24", "providerID": format!("aws:///eu-west-1a/i-{index:017x}")},
        "status": {
            "allocatable": {"pods": "110"},
            "capacity": {"cpu": "16", "memory": memory, "pods": "110"},
            "conditions": [{"type": "Ready", "status": ready}],
            "nodeInfo": {
                "architecture": "amd64", "bootID": format!("boot of {name}"), "containerRuntimeVersion": "",
                "kernelVersion": kernel, "kubeProxyVersion": "", "kubeletVersion": "v1.37.1",
                "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": ""
            }
        }
    });
    serde_json::from_value(value).unwrap_or_default()
}

/// One for all nodes, and one for each of two pools with a higher priority.
fn tuning(index: usize) -> NodeNetworkTuning {
    let selector = ["", "general", "batch"][index];
    let mut spec = json!({"priority": index, "neighbors": {}, "conntrack": {}, "ipvs": {},
        "sysctls": [{"name": "net.core.somaxconn", "value": "4096"}]});
    if !selector.is_empty() {
        spec["nodeSelector"] = json!({"matchLabels": {"pool": selector}});
    }
    NodeNetworkTuning::new(
        &format!("tuning-{index}"),
        serde_json::from_value(spec).unwrap_or_default(),
    )
}
