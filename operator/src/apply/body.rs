//! The bodies of the operator's writes.

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference};
use kube::Resource;
use kube::api::{ApiResource, DynamicObject};
use nettune_crds::{
    NodeNetworkProfile, NodeNetworkProfileSpec, NodeNetworkTuning, NodeNetworkTuningStatus,
};
use serde_json::{Value, json};

/// A node's first profile, owned by its Node, so that it is deleted with the Node.
pub(crate) fn new_profile(
    node: &str,
    node_uid: &str,
    spec: &NodeNetworkProfileSpec,
) -> DynamicObject {
    let resource = ApiResource::erase::<NodeNetworkProfile>(&());
    let mut profile = DynamicObject::new(node, &resource).data(json!({"spec": spec}));
    profile.metadata.owner_references = Some(vec![owner(node, node_uid)]);
    profile
}

/// A merge patch of a profile's spec. With uid and resourceVersion, the API server rejects it if the
/// profile has changed. It has every field of the spec: a merge patch keeps what it omits.
pub(crate) fn changed_profile(
    node: &str,
    node_uid: &str,
    uid: &str,
    seen: &str,
    spec: &NodeNetworkProfileSpec,
) -> Value {
    json!({
        "metadata": {
            "uid": uid,
            "resourceVersion": seen,
            "ownerReferences": [owner(node, node_uid)],
        },
        "spec": {
            "tuning": spec.tuning,
            "mode": spec.mode,
            "releasePolicy": spec.release_policy,
            "sysctls": spec.sysctls,
            "release": spec.release,
            "canary": spec.canary,
        },
    })
}

/// A merge patch that requests a release and keeps the rest of the spec.
pub(crate) fn released_profile(uid: &str, seen: &str, canary: bool) -> Value {
    json!({
        "metadata": {"uid": uid, "resourceVersion": seen},
        "spec": {"release": true, "canary": canary},
    })
}

/// The only condition of a profile's status that the operator writes, for server-side apply: conditions
/// are a map by type, so the agent's others stay.
pub(crate) fn unresponsive_agent(node: &str, uid: &str, seen: &str, ready: &Condition) -> Value {
    json!({
        "apiVersion": NodeNetworkProfile::api_version(&()),
        "kind": NodeNetworkProfile::kind(&()),
        "metadata": {"name": node, "uid": uid, "resourceVersion": seen},
        "status": {"conditions": [ready]},
    })
}

/// A merge patch of a Node's taints: it replaces the whole list.
pub(crate) fn taints(uid: &str, seen: &str, taints: &[Taint]) -> Value {
    json!({
        "metadata": {"uid": uid, "resourceVersion": seen},
        "spec": {"taints": taints},
    })
}

pub(crate) fn tuning_status(
    tuning: &str,
    uid: &str,
    seen: &str,
    status: &NodeNetworkTuningStatus,
) -> Value {
    json!({
        "apiVersion": NodeNetworkTuning::api_version(&()),
        "kind": NodeNetworkTuning::kind(&()),
        "metadata": {"name": tuning, "uid": uid, "resourceVersion": seen},
        "status": status,
    })
}

fn owner(node: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_has_every_field_of_the_spec() {
        let full = NodeNetworkProfileSpec {
            release: true,
            canary: true,
            ..NodeNetworkProfileSpec::default()
        };
        let fields = serde_json::to_value(&full).unwrap();
        let patch = changed_profile("a", "1", "2", "3", &NodeNetworkProfileSpec::default());
        for field in fields.as_object().unwrap().keys() {
            assert!(
                patch["spec"].get(field).is_some(),
                "{field} would keep its old value"
            );
        }
    }
}
