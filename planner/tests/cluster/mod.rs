//! A cluster in memory that takes a decision's writes as an API server would.

#![allow(dead_code, reason = "each test target uses its part of it")]

pub(crate) mod rollout;
pub(crate) mod timeline;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nettune_crds::{
    NodeNetworkProfile, NodeNetworkProfileStatus, NodeNetworkTuning, NodeNetworkTuningStatus,
    TableUse, TablesUse, conditions,
};
use nettune_planner::{ClusterState, Decision, Memory, Mono, Now, ObservedNode, Write, decide};
use serde_json::{Value, json};

/// Objects by name, as the API server holds them.
#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<String, ObservedNode>,
    pub(crate) tunings: BTreeMap<String, NodeNetworkTuning>,
    pub(crate) profiles: BTreeMap<String, NodeNetworkProfile>,
    /// Whether the agents' Pods are ready, where they are watched.
    pub(crate) agents: Option<BTreeMap<String, bool>>,
    pub(crate) startup_taint: bool,
    /// What the leader remembers.
    pub(crate) memory: Memory,
    /// Time since the start, by the leader's clock.
    pub(crate) time: Duration,
    counter: i64,
    writes: BTreeMap<String, usize>,
}

pub(crate) fn name_of(index: usize) -> String {
    format!("node-{index}")
}

impl Cluster {
    pub(crate) fn with_nodes(count: usize) -> Self {
        let mut cluster = Self::default();
        for index in 0..count {
            cluster.put_node(index, json!({}));
        }
        cluster
    }

    /// A node with 64 pods, 16 GiB and kernel 6.1; `with` may give `uid`, `bootID`, `os`, `labels`,
    /// `annotations`, `kernel`, `provider`, `ready` (True, False, Unknown), `taints`.
    pub(crate) fn put_node(&mut self, index: usize, with: Value) {
        let name = name_of(index);
        let text = |key: &str, default: &str| with[key].as_str().unwrap_or(default).to_owned();
        let mut labels = json!({"even": index.is_multiple_of(2).to_string()});
        for (key, value) in with["labels"].as_object().into_iter().flatten() {
            labels[key] = value.clone();
        }
        let node = json!({
            "metadata": {
                "name": name, "uid": text("uid", &name), "labels": labels,
                "annotations": with["annotations"], "resourceVersion": "1"
            },
            "spec": {
                "podCIDR": "10.244.0.0/24", "providerID": with["provider"], "taints": with["taints"]
            },
            "status": {
                "allocatable": {"pods": "64"},
                "capacity": {"cpu": "4", "memory": "16Gi"},
                "conditions": [{"type": "Ready", "status": text("ready", "False")}],
                "nodeInfo": {
                    "architecture": "amd64", "bootID": text("bootID", "first"), "containerRuntimeVersion": "",
                    "kernelVersion": text("kernel", "6.1.0-18-amd64"), "kubeProxyVersion": "", "kubeletVersion": "",
                    "machineID": "", "operatingSystem": text("os", "linux"), "osImage": "", "systemUUID": ""
                }
            }
        });
        self.nodes
            .insert(name, serde_json::from_value(node).unwrap());
    }

    pub(crate) fn apply_tuning(&mut self, name: &str, spec: Value) {
        self.counter += 1;
        let spec = serde_json::from_value(spec).unwrap();
        let counter = self.counter;
        let tuning = self.tunings.entry(name.to_owned()).or_insert_with(|| {
            let mut tuning = NodeNetworkTuning::new(name, Default::default());
            tuning.metadata.uid = Some(format!("uid-{counter}"));
            tuning.metadata.creation_timestamp =
                Some(Time(Timestamp::from_second(counter).unwrap()));
            tuning
        });
        tuning.spec = spec;
        tuning.metadata.generation = Some(counter);
        tuning.metadata.resource_version = Some(counter.to_string());
    }

    /// Nodes as of [`Cluster::with_nodes`], all of them Ready.
    pub(crate) fn with_ready_nodes(count: usize) -> Self {
        let mut cluster = Self::default();
        for index in 0..count {
            cluster.put_node(index, json!({"ready": "True"}));
        }
        cluster
    }

    fn state(&self) -> ClusterState {
        let mut cluster = ClusterState::of(
            self.nodes.values(),
            self.tunings.values(),
            self.profiles.values(),
        );
        if let Some(agents) = &self.agents {
            let agents = agents.iter().map(|(node, ready)| (node.as_str(), *ready));
            cluster = cluster.with_agents(agents);
        }
        if self.startup_taint {
            cluster = cluster.with_startup_taint();
        }
        cluster
    }

    /// What is decided now, and nothing of it done.
    pub(crate) fn look(&self) -> Decision {
        let now = Now {
            mono: Mono::at(self.time),
            wall: Timestamp::UNIX_EPOCH,
        };
        decide(&self.state(), &self.memory, now)
    }

    pub(crate) fn decide(&self) -> Vec<Write> {
        self.look().writes
    }

    /// Decides, remembers and performs once. Returns what was written.
    pub(crate) fn turn(&mut self) -> Vec<Write> {
        let decision = self.look();
        self.memory = decision.memory;
        for write in &decision.writes {
            self.perform(write.clone());
        }
        decision.writes
    }

    /// Decides and performs until nothing is left to do at this moment.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10 {
            if self.turn().is_empty() {
                return;
            }
        }
        panic!("decisions do not come to rest: {:?}", self.decide());
    }

    /// Another leader takes over: it remembers nothing.
    pub(crate) fn fail_over(&mut self) {
        self.memory = Memory::default();
    }

    pub(crate) fn set_ready(&mut self, node: &str, status: &str) {
        let conditions = self.nodes.get_mut(node).unwrap().status.conditions.as_mut();
        conditions.unwrap()[0].status = status.to_owned();
    }

    fn perform(&mut self, write: Write) {
        self.counter += 1;
        let version = Some(self.counter.to_string());
        match write {
            Write::CreateProfile {
                node,
                node_uid,
                spec,
            } => {
                assert!(
                    !self.profiles.contains_key(&*node),
                    "{node} is there already"
                );
                let mut profile = NodeNetworkProfile::new(&node, (*spec).clone());
                profile.metadata.uid = Some(format!("uid-{}", self.counter));
                profile.metadata.generation = Some(1);
                profile.metadata.resource_version = version;
                let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": &*node, "uid": &*node_uid}]);
                profile.metadata.owner_references = serde_json::from_value(owner).unwrap();
                self.profiles.insert(node.to_string(), profile);
                *self.writes.entry(node.to_string()).or_default() += 1;
            }
            Write::ReplaceProfile {
                node,
                uid,
                seen,
                spec,
                ..
            } => {
                let profile = self.profiles.get_mut(&*node).unwrap();
                assert_eq!(profile.metadata.uid.as_deref(), Some(&*uid));
                assert_eq!(profile.metadata.resource_version.as_deref(), Some(&*seen));
                profile.spec = (*spec).clone();
                profile.metadata.generation = profile.metadata.generation.map(|old| old + 1);
                profile.metadata.resource_version = version;
                *self.writes.entry(node.to_string()).or_default() += 1;
            }
            Write::ReleaseProfile {
                node,
                uid,
                seen,
                canary,
            } => {
                let profile = self.profiles.get_mut(&*node).unwrap();
                assert_eq!(profile.metadata.uid.as_deref(), Some(&*uid));
                assert_eq!(profile.metadata.resource_version.as_deref(), Some(&*seen));
                profile.spec.release = true;
                profile.spec.canary = canary;
                profile.metadata.generation = profile.metadata.generation.map(|old| old + 1);
                profile.metadata.resource_version = version;
            }
            Write::DeleteProfile { node, uid, .. } => {
                let profile = self.profiles.remove(&*node).unwrap();
                assert_eq!(profile.metadata.uid.as_deref(), Some(&*uid));
            }
            Write::AgentUnresponsive {
                node,
                uid,
                seen,
                ready,
            } => {
                let profile = self.profiles.get_mut(&*node).unwrap();
                assert_eq!(profile.metadata.uid.as_deref(), Some(&*uid));
                assert_eq!(profile.metadata.resource_version.as_deref(), Some(&*seen));
                profile.metadata.resource_version = version;
                let conditions = &mut profile.status.as_mut().unwrap().conditions;
                conditions.retain(|condition| condition.type_ != ready.type_);
                conditions.push(*ready);
            }
            Write::Untaint {
                node,
                uid,
                seen,
                taints,
            } => {
                let node = self.nodes.get_mut(&*node).unwrap();
                assert_eq!(node.metadata.uid.as_deref(), Some(&*uid));
                assert_eq!(node.metadata.resource_version.as_deref(), Some(&*seen));
                node.spec.taints = Some(taints);
            }
            Write::TuningStatus { tuning, status, .. } => {
                let tuning = self.tunings.get_mut(&*tuning).unwrap();
                tuning.status = Some(*status);
                tuning.metadata.resource_version = version;
            }
        }
    }

    /// An agent's word about the present generation and boot.
    pub(crate) fn report(
        &mut self,
        node: &str,
        type_: &str,
        status: &str,
        reason: &str,
        message: &str,
    ) {
        let boot_id = self.nodes[node]
            .status
            .node_info
            .as_ref()
            .unwrap()
            .boot_id
            .clone();
        let profile = self.profiles.get_mut(node).unwrap();
        let generation = profile.metadata.generation;
        let reported = profile
            .status
            .get_or_insert_with(NodeNetworkProfileStatus::default);
        reported.observed_generation = generation;
        reported.boot_id = boot_id;
        let status = Some(status == "True");
        conditions::set(
            &mut reported.conditions,
            type_,
            status,
            reason,
            message,
            generation,
            Timestamp::UNIX_EPOCH + self.time,
        );
    }

    /// Facts that a node's agent has seen.
    pub(crate) fn see(&mut self, node: &str, facts: Value) {
        let profile = self.profiles.get_mut(node).unwrap();
        let reported = profile
            .status
            .get_or_insert_with(NodeNetworkProfileStatus::default);
        reported.facts = Some(serde_json::from_value(facts).unwrap());
    }

    /// The peaks of its tables that a node's agent reports.
    pub(crate) fn used(&mut self, node: &str, neighbors: Option<i64>, conntrack: Option<i64>) {
        let profile = self.profiles.get_mut(node).unwrap();
        let reported = profile
            .status
            .get_or_insert_with(NodeNetworkProfileStatus::default);
        let table = |peak: Option<i64>| {
            peak.map(|peak| TableUse {
                peak_entries: Some(peak),
                ..TableUse::default()
            })
        };
        reported.tables = Some(TablesUse {
            neighbors: table(neighbors),
            conntrack: table(conntrack),
        });
    }

    pub(crate) fn wanted(&self, node: &str, sysctl: &str) -> String {
        let sysctls = &self.profiles[node].spec.sysctls;
        sysctls
            .iter()
            .find(|wanted| wanted.name == sysctl)
            .unwrap()
            .value
            .clone()
    }

    pub(crate) fn status(&self, tuning: &str) -> &NodeNetworkTuningStatus {
        self.tunings[tuning].status.as_ref().unwrap()
    }

    /// How often a node's profile was written.
    pub(crate) fn writes_to(&self, node: &str) -> usize {
        self.writes.get(node).copied().unwrap_or(0)
    }
}
