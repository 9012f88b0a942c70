//! The agents' Pods, and whether the one on each node is ready.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::cluster::node::{ObservedCondition, pruned};

/// A Pod with only the fields that are used.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = "Pod")]
pub struct ObservedPod {
    /// Its name and uid.
    #[serde(deserialize_with = "pruned")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ObservedPodSpec,
    #[serde(default)]
    pub status: ObservedPodStatus,
}

/// The used part of a Pod's spec.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedPodSpec {
    /// The node that it runs on, once it is scheduled.
    #[serde(default)]
    pub node_name: Option<String>,
}

/// The used part of a Pod's status.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ObservedPodStatus {
    /// Only `Ready` is used.
    #[serde(default)]
    pub conditions: Option<Vec<ObservedCondition>>,
}

/// All known Pods of agents. During an update a node may have two; one that is ready is enough.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    pods: HashMap<Arc<str>, Agent>,
    /// The number of ready Pods per node; nodes without any are absent.
    ready: HashMap<Arc<str>, u32>,
    /// Whether the list is complete.
    complete: bool,
}

#[derive(Debug)]
struct Agent {
    uid: Arc<str>,
    node: Arc<str>,
    ready: bool,
}

impl Agents {
    /// Whether a node's agent is ready; `None` if Pods are not watched or not all known yet.
    pub(crate) fn is_ready(&self, node: &str) -> Option<bool> {
        self.complete.then(|| self.ready.contains_key(node))
    }

    /// The list is complete.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    pub(crate) fn put(&mut self, pod: &ObservedPod) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        self.remove(name);
        // A Pod that is not scheduled yet belongs to no node.
        let Some(node) = pod.spec.node_name.as_deref() else {
            return;
        };
        let conditions = pod.status.conditions.iter().flatten();
        let ready = conditions
            .into_iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        self.add(
            name.into(),
            Agent {
                uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
                node: node.into(),
                ready,
            },
        );
    }

    /// A node's one Pod.
    pub(crate) fn add_one(&mut self, node: &str, ready: bool) {
        let node: Arc<str> = node.into();
        let uid = Arc::default();
        self.add(Arc::clone(&node), Agent { uid, node, ready });
    }

    fn add(&mut self, name: Arc<str>, agent: Agent) {
        if agent.ready {
            *self.ready.entry(Arc::clone(&agent.node)).or_default() += 1;
        }
        self.pods.insert(name, agent);
    }

    /// A Pod of this uid is gone.
    pub(crate) fn gone(&mut self, name: &str, uid: &str) {
        if self.pods.get(name).is_some_and(|pod| &*pod.uid == uid) {
            self.remove(name);
        }
    }

    /// Removes those that were not listed.
    pub(crate) fn retain(&mut self, listed: &BTreeSet<Arc<str>>) {
        let gone: Vec<Arc<str>> = self
            .pods
            .keys()
            .filter(|pod| !listed.contains(*pod))
            .cloned()
            .collect();
        for pod in gone {
            self.remove(&pod);
        }
    }

    fn remove(&mut self, name: &str) {
        let Some(Agent { node, ready, .. }) = self.pods.remove(name) else {
            return;
        };
        if ready && let Some(count) = self.ready.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.ready.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: Option<&str>, ready: &str) -> ObservedPod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"nodeName": node},
            "status": {"conditions": [
                {"type": "Initialized", "status": "True"},
                {"type": "Ready", "status": ready}
            ]}
        }))
        .unwrap()
    }

    #[test]
    fn nothing_is_told_before_all_pods_are_known() {
        let mut agents = Agents::default();
        agents.put(&pod("a", Some("node-0"), "True"));
        assert_eq!(agents.is_ready("node-0"), None);
        agents.complete();
        assert_eq!(agents.is_ready("node-0"), Some(true));
        assert_eq!(agents.is_ready("node-1"), Some(false));
    }

    #[test]
    fn while_one_pod_follows_another_one_that_is_ready_is_enough() {
        let mut agents = Agents::default();
        agents.complete();
        agents.put(&pod("old", Some("node-0"), "True"));
        agents.put(&pod("new", None, "False"));
        agents.put(&pod("new", Some("node-0"), "False"));
        assert_eq!(agents.is_ready("node-0"), Some(true));
        agents.put(&pod("old", Some("node-0"), "False"));
        assert_eq!(agents.is_ready("node-0"), Some(false));
        agents.put(&pod("new", Some("node-0"), "True"));
        agents.gone("old", "old");
        assert_eq!(agents.is_ready("node-0"), Some(true));
        agents.gone("new", "an earlier one");
        assert_eq!(agents.is_ready("node-0"), Some(true));
        agents.gone("new", "new");
        assert_eq!(agents.is_ready("node-0"), Some(false));
    }

    #[test]
    fn a_pod_that_moves_is_counted_on_one_node() {
        let mut agents = Agents::default();
        agents.complete();
        agents.put(&pod("agent-0", Some("node-0"), "True"));
        agents.put(&pod("agent-0", Some("node-1"), "True"));
        assert_eq!(agents.is_ready("node-0"), Some(false));
        assert_eq!(agents.is_ready("node-1"), Some(true));
        agents.retain(&BTreeSet::new());
        assert_eq!(agents.is_ready("node-1"), Some(false));
    }
}
