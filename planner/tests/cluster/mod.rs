//! A cluster in memory that takes a decision's writes as an API server would.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nettune_crds::{
    NodeNetworkProfile, NodeNetworkProfileStatus, NodeNetworkTuning, NodeNetworkTuningStatus,
    conditions,
};
use nettune_planner::{ObservedNode, World, Write, decide};
use serde_json::{Value, json};

/// Objects by name, as the API server holds them.
#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<String, ObservedNode>,
    pub(crate) tunings: BTreeMap<String, NodeNetworkTuning>,
    pub(crate) profiles: BTreeMap<String, NodeNetworkProfile>,
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

    /// A node with 64 pods, 16 GiB and kernel 6.1; `with` may give `uid`, `bootID`, `os`, `labels`.
    pub(crate) fn put_node(&mut self, index: usize, with: Value) {
        let name = name_of(index);
        let text = |key: &str, default: &str| with[key].as_str().unwrap_or(default).to_owned();
        let mut labels = json!({"even": index.is_multiple_of(2).to_string()});
        for (key, value) in with["labels"].as_object().into_iter().flatten() {
            labels[key] = value.clone();
        }
        let node = json!({
            "metadata": {"name": name, "uid": text("uid", &name), "labels": labels},
            "spec": {"podCIDR": "10.244.0.0/24"},
            "status": {
                "allocatable": {"pods": "64"},
                "capacity": {"cpu": "4", "memory": "16Gi"},
                "nodeInfo": {
                    "architecture": "amd64", "bootID": text("bootID", "first"), "containerRuntimeVersion": "",
                    "kernelVersion": "6.1.0-18-amd64", "kubeProxyVersion": "", "kubeletVersion": "",
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

    pub(crate) fn decide(&self) -> Vec<Write> {
        let world = World::of(
            self.nodes.values(),
            self.tunings.values(),
            self.profiles.values(),
        );
        decide(&world, Timestamp::UNIX_EPOCH).writes
    }

    /// Decides and performs until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10 {
            let writes = self.decide();
            if writes.is_empty() {
                return;
            }
            for write in writes {
                self.perform(write);
            }
        }
        panic!("decisions do not come to rest: {:?}", self.decide());
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
            Write::ReleaseProfile { node, uid, seen } => {
                let profile = self.profiles.get_mut(&*node).unwrap();
                assert_eq!(profile.metadata.uid.as_deref(), Some(&*uid));
                assert_eq!(profile.metadata.resource_version.as_deref(), Some(&*seen));
                profile.spec.release = true;
                profile.metadata.generation = profile.metadata.generation.map(|old| old + 1);
                profile.metadata.resource_version = version;
            }
            Write::DeleteProfile { node, uid, .. } => {
                let profile = self.profiles.remove(&*node).unwrap();
                assert_eq!(profile.metadata.uid.as_deref(), Some(&*uid));
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
            Timestamp::UNIX_EPOCH,
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
