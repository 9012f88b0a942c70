//! What the operator's writes say, built fresh each time.

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference};
use kube::Resource;
use kube::api::{ApiResource, DynamicObject};
use nettune_crds::{
    NodeNetworkProfile, NodeNetworkProfileSpec, NodeNetworkTuning, NodeNetworkTuningStatus,
};
use serde_json::{Value, json};

/// A node's first profile, owned by its Node: it goes when the Node goes.
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

/// A merge patch of a profile's spec. It carries uid and resourceVersion, so that the API server
/// refuses it where the profile is another one by now. Every field of the spec is in it, also the
/// ones at their default: what a merge patch leaves out stays.
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

/// A merge patch that asks for a release and leaves the rest of the spec as it is.
pub(crate) fn released_profile(uid: &str, seen: &str, canary: bool) -> Value {
    json!({
        "metadata": {"uid": uid, "resourceVersion": seen},
        "spec": {"release": true, "canary": canary},
    })
}

/// The one condition of a profile's status that the operator may write, to be applied: conditions are
/// a map by their type, so that the agent's others stay.
pub(crate) fn silent_agent(node: &str, uid: &str, seen: &str, ready: &Condition) -> Value {
    json!({
        "apiVersion": NodeNetworkProfile::api_version(&()),
        "kind": NodeNetworkProfile::kind(&()),
        "metadata": {"name": node, "uid": uid, "resourceVersion": seen},
        "status": {"conditions": [ready]},
    })
}

/// A merge patch of a Node's taints, which are one list as a whole.
pub(crate) fn taints(uid: &str, seen: &str, taints: &[Taint]) -> Value {
    json!({
        "metadata": {"uid": uid, "resourceVersion": seen},
        "spec": {"taints": taints},
    })
}

/// A tuning's whole status.
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
    fn a_patch_names_every_field_of_the_spec() {
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
                "{field} would stay as it was"
            );
        }
    }
}
