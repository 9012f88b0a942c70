//! `spec.rollout` and `spec.resize` of a tuning.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tuning::rules;

/// How potentially disruptive changes reach the nodes: fixed values, lowered limits and releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Waves (default): start with 1 node of each group of nodes with equal values, then as many nodes
    /// at a time as have passed so far, with each kernel version early. AllAtOnce: all nodes without
    /// waiting.
    #[serde(rename = "type", default)]
    pub type_: RolloutType,
    /// Maximum number of failed nodes before the rollout stops: a number from 0 to 100000, or a
    /// percentage from 0% to 100% of the nodes written so far, rounded down. Default 5%.
    #[serde(default = "rules::max_failed")]
    #[schemars(schema_with = "rules::int_or_string_schema")]
    #[x_kube(validation = Rule::new(rules::MAX_FAILED_IS_VALID).message(rules::MAX_FAILED_MESSAGE))]
    pub max_failed: IntOrString,
    /// Seconds that the profile and the Node must be Ready before the node counts as passed. Allow
    /// for the time until a bad value makes a node NotReady, usually tens of seconds. 0 to 86400.
    /// Default 60.
    #[serde(default = "rules::min_ready_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub min_ready_seconds: i64,
    /// Seconds that the agent has to report that a change is applied. After that, the node counts
    /// as failed and its agent as unresponsive. 1 to 86400. Default 120.
    #[serde(default = "rules::node_deadline_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub node_deadline_seconds: i64,
    /// Do not start on further nodes. Raised limits are still applied. Default false.
    #[serde(default)]
    pub paused: bool,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            type_: RolloutType::default(),
            max_failed: rules::max_failed(),
            min_ready_seconds: rules::min_ready_seconds(),
            node_deadline_seconds: rules::node_deadline_seconds(),
            paused: false,
        }
    }
}

/// How changes reach the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutType {
    /// A few nodes, then as many at a time as have passed.
    #[default]
    Waves,
    /// All nodes without waiting.
    AllAtOnce,
}

/// When limits are lowered after the cluster has become smaller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResizeSpec {
    /// Seconds that the smaller size must have been sufficient without interruption before a limit
    /// is lowered. 0 to 604800. Default 3600.
    #[serde(default = "rules::shrink_after_seconds")]
    #[schemars(range(min = 0, max = 604_800))]
    pub shrink_after_seconds: i64,
}

impl Default for ResizeSpec {
    fn default() -> Self {
        Self {
            shrink_after_seconds: rules::shrink_after_seconds(),
        }
    }
}
