//! A cluster in which time passes: agents answer, values have effects, decisions follow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nettune_crds::NodeNetworkProfileSpec;
use nettune_planner::Write;

use super::Cluster;

/// What a spec does to a node that applies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing bad.
    Fine,
    /// A key cannot be written.
    Fails,
    /// The node loses its network: the agent stops reporting, and forty seconds later the Node is not
    /// Ready.
    CutsOff,
}

/// How long after its network is gone a Node turns `Unknown`: the node controller's grace period.
pub(crate) const GRACE: Duration = Duration::from_secs(40);

/// A run of a cluster in steps of some seconds.
pub(crate) struct Timeline<E> {
    pub(crate) cluster: Cluster,
    effect: E,
    /// Since when a node is cut off.
    cut_off: BTreeMap<String, Duration>,
    /// Agents that are gone, while their nodes are well.
    deaf: BTreeSet<String>,
    /// What each node last applied: its profile's uid and generation.
    applied: BTreeMap<String, (Option<String>, Option<i64>)>,
    /// Every node that a bad value has reached.
    pub(crate) damaged: BTreeSet<String>,
    /// The most nodes that were written with the mark of a canary in one step.
    pub(crate) largest_wave: usize,
    pub(crate) writes: usize,
}

impl<E: Fn(&str, &NodeNetworkProfileSpec) -> Effect> Timeline<E> {
    pub(crate) fn new(cluster: Cluster, effect: E) -> Self {
        Self {
            cluster,
            effect,
            cut_off: BTreeMap::new(),
            deaf: BTreeSet::new(),
            applied: BTreeMap::new(),
            damaged: BTreeSet::new(),
            largest_wave: 0,
            writes: 0,
        }
    }

    /// Agents answer, Nodes turn, and decisions are made until nothing is left to do; then time
    /// passes.
    pub(crate) fn step(&mut self, seconds: u64) {
        self.grace();
        for _ in 0..20 {
            self.agents();
            let writes = self.cluster.turn();
            let wave = writes.iter().filter(|write| is_canary(write)).count();
            self.largest_wave = self.largest_wave.max(wave);
            self.writes += writes.len();
            if writes.is_empty() {
                self.cluster.time += Duration::from_secs(seconds);
                return;
            }
        }
        panic!("decisions do not come to rest: {:?}", self.cluster.decide());
    }

    pub(crate) fn run(&mut self, seconds: u64, step: u64) {
        for _ in 0..seconds.div_ceil(step) {
            self.step(step);
        }
    }

    fn grace(&mut self) {
        for (node, since) in &self.cut_off {
            if self.cluster.time >= *since + GRACE && self.cluster.nodes.contains_key(node) {
                self.cluster.set_ready(node, "Unknown");
            }
        }
    }

    /// Every agent that is heard of applies what its profile says, and says so.
    fn agents(&mut self) {
        let profiles: Vec<_> = self
            .cluster
            .profiles
            .iter()
            .map(|(node, profile)| {
                let version = (profile.metadata.uid.clone(), profile.metadata.generation);
                (node.clone(), version, profile.spec.clone())
            })
            .collect();
        for (node, version, spec) in profiles {
            let there = self.cluster.nodes.contains_key(&node);
            if !there
                || self.cut_off.contains_key(&node)
                || self.deaf.contains(&node)
                || self.applied.get(&node) == Some(&version)
            {
                continue;
            }
            self.applied.insert(node.clone(), version);
            match (self.effect)(&node, &spec) {
                Effect::Fails if spec.release => {
                    self.damaged.insert(node.clone());
                    for (type_, status) in [("Ready", "False"), ("Released", "True")] {
                        let message = "0 of 1 sysctls are restored; net.core.somaxconn: EINVAL";
                        self.cluster
                            .report(&node, type_, status, "PartiallyRestored", message);
                    }
                }
                Effect::Fine => {
                    self.cluster.report(&node, "Ready", "True", "Applied", "");
                    let released = if spec.release { "True" } else { "False" };
                    self.cluster
                        .report(&node, "Released", released, "Restored", "");
                }
                Effect::Fails => {
                    self.damaged.insert(node.clone());
                    let message = "net.core.somaxconn: EINVAL";
                    self.cluster
                        .report(&node, "Ready", "False", "Failed", message);
                }
                Effect::CutsOff => {
                    self.damaged.insert(node.clone());
                    self.cut_off.insert(node.clone(), self.cluster.time);
                }
            }
        }
    }

    /// A node's agent is gone.
    pub(crate) fn deafen(&mut self, node: &str) {
        self.deaf.insert(node.to_owned());
    }

    /// A node gets its network back.
    pub(crate) fn heal(&mut self, node: &str) {
        self.cut_off.remove(node);
        self.applied.remove(node);
        self.cluster.set_ready(node, "True");
    }

    /// How often profiles were written, all together.
    pub(crate) fn writes_to_all(&self) -> usize {
        let profiles = self.cluster.profiles.keys();
        profiles.map(|node| self.cluster.writes_to(node)).sum()
    }

    /// How many nodes hold this value.
    pub(crate) fn holding(&self, sysctl: &str, value: &str) -> usize {
        self.cluster
            .profiles
            .values()
            .filter(|profile| holds(&profile.spec, sysctl, value))
            .count()
    }
}

pub(crate) fn holds(spec: &NodeNetworkProfileSpec, sysctl: &str, value: &str) -> bool {
    let mut sysctls = spec.sysctls.iter();
    sysctls.any(|wanted| wanted.name == sysctl && wanted.value == value)
}

pub(crate) fn is_canary(write: &Write) -> bool {
    match write {
        Write::ReplaceProfile { spec, .. } => spec.canary,
        Write::ReleaseProfile { canary, .. } => *canary,
        _ => false,
    }
}
