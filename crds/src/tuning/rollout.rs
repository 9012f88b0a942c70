//! `spec.rollout` and `spec.resize` of a tuning.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tuning::rules;

/// How changes that could do harm reach the nodes: fixed values, limits that are lowered, releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Waves (default): one node of each group of equal values, then as many at once as have passed,
    /// every kernel first. AllAtOnce: every node as fast as the API server takes it.
    #[serde(rename = "type", default)]
    pub type_: RolloutType,
    /// How many nodes may fail before the rollout stops: a number, or a share of the nodes written
    /// so far, rounded down. 0 to 100000 or 0% to 100%, default 5%.
    #[serde(default = "rules::max_failed")]
    #[schemars(schema_with = "rules::int_or_string_schema")]
    #[x_kube(validation = Rule::new(rules::MAX_FAILED_IS_VALID).message(rules::MAX_FAILED_MESSAGE))]
    pub max_failed: IntOrString,
    /// A node has passed when its profile and its Node have been Ready for this many seconds. A value
    /// that cuts a node off shows only after tens of seconds. 0 to 86400, default 60.
    #[serde(default = "rules::min_ready_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub min_ready_seconds: i64,
    /// A node whose agent has not said within this many seconds that it holds what was written has
    /// failed, and its agent counts as unresponsive. 1 to 86400, default 120.
    #[serde(default = "rules::node_deadline_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub node_deadline_seconds: i64,
    /// Begin no further node; limits are still raised.
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
    /// A few, then as many at once as have passed.
    #[default]
    Waves,
    /// All of them.
    AllAtOnce,
}

/// How patiently limits follow a cluster that has become smaller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResizeSpec {
    /// A limit is lowered when the smaller size has been wanted for this many seconds without a break.
    /// 0 to 604800, default 3600.
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
