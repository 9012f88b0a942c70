//! `spec.nodeSelector` of a tuning.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tuning::rules;

/// A label selector for nodes. All labels and all requirements must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::label_keys_are_valid()).message(rules::LABEL_KEY_MESSAGE),
    validation = Rule::new(rules::label_values_are_valid()).message(rules::LABEL_VALUE_MESSAGE)
)]
pub struct NodeSelector {
    /// Labels that a node must have with exactly these values. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "rules::labels_schema")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that the labels of a node must meet. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<Requirement>,
}

/// A requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.operator in ['In', 'NotIn'] ? size(self.values) > 0 : size(self.values) == 0")
        .message("In and NotIn require values; Exists and DoesNotExist must not have values")
)]
pub struct Requirement {
    /// Label key.
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(validation = Rule::new(rules::label_key_is_valid()).message(rules::LABEL_KEY_MESSAGE))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: SelectorOperator,
    /// Values for In and NotIn. Must be empty for Exists and DoesNotExist. At most 256.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(max = 63), regex(pattern = rules::LABEL_VALUE)))]
    pub values: Vec<String>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorOperator {
    /// The label exists with one of the values.
    In,
    /// The label does not exist, or has another value.
    NotIn,
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
}
