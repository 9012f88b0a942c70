//! Objects and definitions of other versions than the operator, and a definition that is lost.

use std::time::Duration;

use anyhow::ensure;
use nettune_tests::{ControlPlane, Program, eventually, nodes};

use super::{ALL_BLOCKS, SOON, cluster, profiles, sized, worker};

/// Lets in what the schema of today refuses, as an older one would have.
async fn with_an_older_schema(control_plane: &ControlPlane, object: &str) -> anyhow::Result<()> {
    let open = r#"[{"op": "remove", "path": "/spec/versions/0/selectableFields"}, {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value":
        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]"#;
    let crd = "crd/nodenetworktunings.nettune.dev";
    control_plane
        .kubectl_ok(&["patch", crd, "--type=json", "-p", open])
        .await?;
    eventually("the older schema to be in force", SOON, || async {
        control_plane.apply(object).await.map(drop)
    })
    .await?;
    control_plane.install_crds().await?;
    Ok(())
}

#[tokio::test]
async fn an_object_invalid_under_the_new_schema_is_reported_and_stops_nothing_else()
-> anyhow::Result<()> {
    let (control_plane, client) = cluster(1).await?;
    // One that can be read and is not valid, and one that cannot be read at all.
    let invalid = "{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {name: invalid}, spec: {sysctls: [{name: kernel.panic, value: '1'}]}}";
    let unreadable = "{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {name: unreadable}, spec: {priority: high}}";
    with_an_older_schema(&control_plane, invalid).await?;
    with_an_older_schema(&control_plane, unreadable).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    // What the invalid one selects is frozen, unless another one takes precedence.
    let upper = ALL_BLOCKS.replace("ipvs: {}", "ipvs: {}, priority: 1");
    control_plane.apply(&upper).await?;
    sized(&client, 1, "8192").await?;
    for (name, word) in [("invalid", "kernel.panic"), ("unreadable", "high")] {
        eventually(&format!("{name} to say so"), SOON, || async {
            let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].reason} {.status.conditions[?(@.type=="Ready")].message}"#;
            let said = control_plane.kubectl_ok(&["get", "nnt", name, "-o", ready]).await?;
            ensure!(said.starts_with("InvalidTuning") && said.contains(word), "{said}");
            anyhow::Ok(())
        })
        .await?;
    }
    // Said once: an object that cannot be used is not written forever. What is still under way comes to
    // rest first.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let version = [
        "get",
        "nnt",
        "-o",
        "jsonpath={.items[*].metadata.resourceVersion}",
    ];
    let before = control_plane.kubectl_ok(&version).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(control_plane.kubectl_ok(&version).await?, before);
    Ok(())
}

#[tokio::test]
async fn a_status_from_a_newer_agent_is_left_alone() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(1).await?;
    let operator = Program::operator(&control_plane, &[]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 1, "8192").await?;
    let open = r#"[{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status", "value":
        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]"#;
    let crd = "crd/nodenetworkprofiles.nettune.dev";
    control_plane
        .kubectl_ok(&["patch", crd, "--type=json", "-p", open])
        .await?;
    let newer =
        r#"{"status": {"sysctls": [{"name": "net.core.somaxconn", "state": "Throttled"}]}}"#;
    let patch = [
        "patch",
        "nnp",
        "node-0",
        "--subresource=status",
        "--type=merge",
        "-p",
        newer,
    ];
    eventually("the newer schema to be in force", SOON, || async {
        control_plane.kubectl_ok(&patch).await?;
        let state = [
            "get",
            "nnp",
            "node-0",
            "-o",
            "jsonpath={.status.sysctls[0].state}",
        ];
        ensure!(control_plane.kubectl_ok(&state).await? == "Throttled");
        anyhow::Ok(())
    })
    .await?;
    let changed = || operator.process().log().matches("profile changed").count();
    let before = changed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(changed(), before);
    Ok(())
}

#[tokio::test]
async fn a_lost_crd_releases_nothing() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(2).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    let restore = ALL_BLOCKS.replace("ipvs: {}", "ipvs: {}, releasePolicy: Restore");
    control_plane.apply(&restore).await?;
    sized(&client, 2, "8192").await?;
    control_plane
        .kubectl_ok(&["delete", "crd", "nodenetworktunings.nettune.dev"])
        .await?;
    // Past the moment at which the end of the last tuning is looked into.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let left = profiles(&client).await?;
    ensure!(
        left.len() == 2 && left.iter().all(|profile| !profile.spec.release),
        "{left:?}"
    );
    // And when it is back, so is the work.
    control_plane.install_crds().await?;
    control_plane.apply(ALL_BLOCKS).await?;
    nodes::create(&client, &worker(2)).await?;
    sized(&client, 3, "8192").await?;
    Ok(())
}
