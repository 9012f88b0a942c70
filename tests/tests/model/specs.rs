//! Specs of tunings.

use serde_json::{Value, json};

use crate::setup::SOMAXCONN;

/// A fixed value, node by node; each has passed when it was Ready for a minute.
pub(crate) fn waves(value: &str) -> Value {
    json!({
        "sysctls": [{"name": SOMAXCONN, "value": value}],
        "rollout": {
            "type": "Waves", "maxFailed": 0, "minReadySeconds": 60, "nodeDeadlineSeconds": 60
        },
        "releasePolicy": "Restore"
    })
}

/// The same, above others.
pub(crate) fn above(value: &str) -> Value {
    let mut spec = waves(value);
    spec["priority"] = json!(1);
    spec
}
