//! What the API server refuses, and its message.

use anyhow::ensure;
use nettune_tests::ControlPlane;

/// A spec, and what the refusal must say.
const REFUSED: &[(&str, &str)] = &[
    // Thresholds.
    (
        "{neighbors: {thresholds: {gcThresh1: 8192, gcThresh2: 4096, gcThresh3: 16384}}}",
        "for example {gcThresh1: 2048, gcThresh2: 8192, gcThresh3: 16384}",
    ),
    (
        "{neighbors: {thresholds: {gcThresh1: 1, gcThresh2: 2, gcThresh3: 2}}}",
        "thresholds must be in ascending order",
    ),
    (
        "{neighbors: {thresholds: {gcThresh1: -1, gcThresh2: 2, gcThresh3: 3}}}",
        "gcThresh1 in body should be greater than or equal to 0",
    ),
    (
        "{neighbors: {thresholds: {gcThresh1: 1, gcThresh2: 2, gcThresh3: 2147483648}}}",
        "gcThresh3 in body should be less than or equal to 2147483647",
    ),
    (
        "{neighbors: {thresholds: {gcThresh1: 1, gcThresh3: 2}}}",
        "gcThresh2: Required value",
    ),
    (
        "{neighbors: {sizeForNodes: 0}}",
        "sizeForNodes in body should be greater than or equal to 1",
    ),
    // Conntrack.
    (
        "{conntrack: {minEntries: 10, maxEntries: 5}}",
        "lower minEntries or raise maxEntries",
    ),
    (
        "{conntrack: {minEntries: 0}}",
        "minEntries in body should be greater than or equal to 1",
    ),
    (
        "{conntrack: {connectionsPerPod: 0}}",
        "connectionsPerPod in body should be greater than or equal to 1",
    ),
    // Other sysctls.
    (
        "{sysctls: [{name: net.core.somaxconn, value: '1'}, {name: net.core.somaxconn, value: '2'}]}",
        "Duplicate value",
    ),
    (
        "{sysctls: [{name: kernel.panic, value: '1'}]}",
        "sysctl kernel.panic is not on the allow-list",
    ),
    (
        "{sysctls: [{name: vm.swappiness, value: '1'}]}",
        "sysctl vm.swappiness is not on the allow-list",
    ),
    (
        "{sysctls: [{name: net.ipv4.ip_forward, value: '1'}]}",
        "sysctl net.ipv4.ip_forward is not on the allow-list",
    ),
    (
        "{sysctls: [{name: net.ipv4.conf.all.accept_redirects, value: '1'}]}",
        "is not on the allow-list",
    ),
    (
        "{sysctls: [{name: net.ipv4.neigh.../../x.gc_stale_time, value: '1'}]}",
        "is not on the allow-list",
    ),
    (
        "{sysctls: [{name: net.ipv4.neigh.a..b.gc_stale_time, value: '1'}]}",
        "is not on the allow-list",
    ),
    (
        "{sysctls: [{name: net/core/somaxconn, value: '1'}]}",
        "use a name from docs/api.md, with dots",
    ),
    (
        "{sysctls: [{name: 'net.core. somaxconn', value: '1'}]}",
        "is not on the allow-list",
    ),
    (
        "{sysctls: [{name: net.core.somaxconn, value: ''}]}",
        "value must not be empty",
    ),
    (
        "{sysctls: [{name: net.core.somaxconn, value: \"  \"}]}",
        "value must not be empty",
    ),
    (
        "{sysctls: [{name: net.core.somaxconn, value: \"1\\n2\"}]}",
        "one line of printable ASCII",
    ),
    (
        "{sysctls: [{name: net.core.somaxconn, value: 4096}]}",
        "must be of type string",
    ),
    // What a block manages, whether or not the block is there.
    (
        "{sysctls: [{name: net.netfilter.nf_conntrack_max, value: '1'}]}",
        "set spec.conntrack.minEntries and maxEntries instead",
    ),
    (
        "{neighbors: {}, sysctls: [{name: net.ipv4.neigh.default.gc_thresh3, value: '1'}]}",
        "set spec.neighbors.thresholds instead",
    ),
    (
        "{sysctls: [{name: net.ipv4.vs.conn_reuse_mode, value: '1'}]}",
        "set spec.ipvs instead",
    ),
    // Enums and selectors.
    (
        "{mode: Enforced}",
        "supported values: \"Enforce\", \"ApplyOnce\", \"Observe\"",
    ),
    (
        "{releasePolicy: Delete}",
        "supported values: \"Retain\", \"Restore\"",
    ),
    // Rollout and resize.
    (
        "{rollout: {type: Canary}}",
        "supported values: \"Waves\", \"AllAtOnce\"",
    ),
    (
        "{rollout: {maxFailed: 101%}}",
        "a percentage from 0% to 100% such as 5%",
    ),
    (
        "{rollout: {maxFailed: '5'}}",
        "maxFailed must be a number from 0 to 100000 such as 3",
    ),
    (
        "{rollout: {maxFailed: -1}}",
        "maxFailed must be a number from 0 to 100000 such as 3",
    ),
    (
        "{rollout: {maxFailed: 100001}}",
        "maxFailed must be a number from 0 to 100000 such as 3",
    ),
    (
        "{rollout: {maxFailed: [1]}}",
        "must be of type integer,string",
    ),
    (
        "{rollout: {minReadySeconds: -1}}",
        "minReadySeconds in body should be greater than or equal to 0",
    ),
    (
        "{rollout: {nodeDeadlineSeconds: 0}}",
        "nodeDeadlineSeconds in body should be greater than or equal to 1",
    ),
    (
        "{resize: {shrinkAfterSeconds: 604801}}",
        "shrinkAfterSeconds in body should be less than or equal to 604800",
    ),
    (
        "{neighbors: {podNetwork: Vxlan}}",
        "supported values: \"Auto\", \"Overlay\", \"Routed\", \"Flat\"",
    ),
    (
        "{ipvs: {connReuseMode: '1'}}",
        "supported values: \"Auto\", \"Disabled\", \"Enabled\", \"Unmanaged\"",
    ),
    (
        "{nodeSelector: {matchExpressions: [{key: a, operator: Contains, values: [b]}]}}",
        "supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
    ),
    (
        "{nodeSelector: {matchExpressions: [{key: a, operator: In}]}}",
        "In and NotIn require values",
    ),
    (
        "{nodeSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        "Exists and DoesNotExist must not have values",
    ),
    (
        "{priority: 1000001}",
        "priority in body should be less than or equal to 1000000",
    ),
    (
        "{nodeSelector: {matchLabels: {'foo bar': x}}}",
        "a label key must consist of letters, digits",
    ),
    (
        "{nodeSelector: {matchLabels: {foo: '!!'}}}",
        "a label value must be empty or at most 63 letters, digits",
    ),
    (
        "{nodeSelector: {matchExpressions: [{key: 'a b', operator: Exists}]}}",
        "a label key must consist of letters, digits",
    ),
    (
        "{nodeSelector: {matchExpressions: [{key: a, operator: In, values: ['!!']}]}}",
        "values[0] in body should match",
    ),
    (
        "{conntrack: {minEntries: 134217729}}",
        "minEntries in body should be less than or equal to 134217728",
    ),
    // Unknown fields.
    ("{neighbours: {}}", "unknown field \"spec.neighbours\""),
    (
        "{conntrack: {max: 5}}",
        "unknown field \"spec.conntrack.max\"",
    ),
];

/// Specs at the limits of what is accepted.
const TAKEN: &[&str] = &[
    "{}",
    "{neighbors: {thresholds: {gcThresh1: 0, gcThresh2: 1, gcThresh3: 2147483647}}}",
    "{conntrack: {minEntries: 131072, maxEntries: 131072}}",
    "{nodeSelector: {matchLabels: {node.kubernetes.io/instance-type: m5.large, empty: ''}}}",
    "{sysctls: [{name: net.ipv4.tcp_rmem, value: '4096 131072 6291456'}]}",
    "{sysctls: [{name: net.ipv4.neigh.eth0.100.gc_stale_time, value: '60'}]}",
    "{sysctls: [{name: net.bridge.bridge-nf-call-iptables, value: '1'}]}",
    "{nodeSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}, {key: c, operator: DoesNotExist}]}}",
];

fn tuning(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {{name: {name}}}, spec: {spec}}}"
    )
}

#[tokio::test]
async fn invalid_objects_are_refused_with_a_helpful_message() -> anyhow::Result<()> {
    let control_plane = ControlPlane::shared().await?;
    control_plane.install_crds().await?;
    for (spec, sentence) in REFUSED {
        let object = tuning("refused", spec);
        let refused = control_plane
            .kubectl_reading(&["apply", "-f", "-"], &object)
            .await?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(!refused.status.success(), "{spec} was taken");
        ensure!(said.contains(sentence), "{spec}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn values_at_the_limits_are_accepted() -> anyhow::Result<()> {
    let control_plane = ControlPlane::shared().await?;
    control_plane.install_crds().await?;
    for (index, spec) in TAKEN.iter().enumerate() {
        control_plane
            .apply(&tuning(&format!("taken-{index}"), spec))
            .await?;
    }
    let names: Vec<String> = (0..TAKEN.len())
        .map(|index| format!("nnt/taken-{index}"))
        .collect();
    let mut delete = vec!["delete"];
    delete.extend(names.iter().map(String::as_str));
    control_plane.kubectl_ok(&delete).await?;
    Ok(())
}

#[tokio::test]
async fn defaults_are_in_the_schema() -> anyhow::Result<()> {
    let control_plane = ControlPlane::shared().await?;
    control_plane.install_crds().await?;
    control_plane
        .apply(&tuning(
            "defaulted",
            "{neighbors: {}, conntrack: {}, ipvs: {}}",
        ))
        .await?;
    let spec = control_plane
        .kubectl_ok(&["get", "nnt", "defaulted", "-o", "jsonpath={.spec}"])
        .await?;
    let spec: serde_json::Value = serde_json::from_str(&spec)?;
    assert_eq!(
        spec,
        serde_json::json!({
            "nodeSelector": {}, "priority": 0, "mode": "Enforce", "releasePolicy": "Retain",
            "neighbors": {"podNetwork": "Auto"}, "conntrack": {"connectionsPerPod": 3072},
            "ipvs": {"connReuseMode": "Auto"},
            "rollout": {
                "type": "Waves", "maxFailed": "5%", "minReadySeconds": 60, "nodeDeadlineSeconds": 120,
                "paused": false
            },
            "resize": {"shrinkAfterSeconds": 3600}
        })
    );
    control_plane
        .kubectl_ok(&["delete", "nnt", "defaulted"])
        .await?;
    Ok(())
}

#[tokio::test]
async fn every_field_is_explained() -> anyhow::Result<()> {
    let control_plane = ControlPlane::shared().await?;
    control_plane.install_crds().await?;
    for kind in ["nodenetworktunings", "nodenetworkprofiles"] {
        let crd = control_plane
            .kubectl_ok(&["get", "crd", &format!("{kind}.nettune.dev"), "-o", "json"])
            .await?;
        let crd: serde_json::Value = serde_json::from_str(&crd)?;
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            unexplained(&format!("{kind}.{part}"), &schema[part])?;
        }
    }
    Ok(())
}

fn unexplained(path: &str, schema: &serde_json::Value) -> anyhow::Result<()> {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        ensure!(
            field["description"].is_string(),
            "{path} has no description"
        );
        unexplained(&path, field)?;
        unexplained(&path, &field["items"])?;
    }
    Ok(())
}
