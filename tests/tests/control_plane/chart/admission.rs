//! The admission policies of the chart.

use std::time::Duration;

use anyhow::ensure;
use kube::Api;
use kube::api::{Patch, PatchParams};
use nettune_crds::NodeNetworkProfile;
use nettune_tests::control_plane::StaticToken;
use nettune_tests::{ControlPlane, ControlPlaneConfig, NodeSpec, eventually, nodes};
use serde_json::json;

use super::rights::{install, token};

const SOON: Duration = Duration::from_secs(30);
const STATUS: &str = r#"{"status":{"observedGeneration":1}}"#;

/// The chart, two nodes with a profile each, and an administrator in no special group.
async fn cluster() -> anyhow::Result<ControlPlane> {
    let mut breaker = StaticToken::of("breaker", "token-of-the-breaker");
    breaker.groups = vec!["break-glass".to_owned()];
    let control_plane = ControlPlane::start(ControlPlaneConfig {
        tokens: vec![StaticToken::of("admin-user", "token-of-an-admin"), breaker],
        ..ControlPlaneConfig::default()
    })
    .await?;
    let groups = "admission.breakGlassGroups={system:masters,break-glass}";
    install(&control_plane, &["--set", groups]).await?;
    control_plane
        .apply(
            "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: everything}, \
             roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}, subjects: [\
             {apiGroup: rbac.authorization.k8s.io, kind: User, name: admin-user}, \
             {apiGroup: rbac.authorization.k8s.io, kind: User, name: breaker}, \
             {kind: ServiceAccount, namespace: nettune-system, name: nettune-agent}]}",
        )
        .await?;
    let client = control_plane.client().await?;
    for index in 0..2 {
        nodes::create(&client, &NodeSpec::worker(&format!("node-{index}"), index)).await?;
        control_plane
            .apply(&profile(&format!("node-{index}")))
            .await?;
    }
    // A policy is in force some moments after it was created.
    eventually("the policies are in force", SOON, || async {
        let own = [
            "patch",
            "nnp",
            "node-1",
            "--type=merge",
            "--dry-run=server",
            "-p",
            OBSERVE,
        ];
        ensure!(
            with(&control_plane, "token-of-an-admin", &own)
                .await
                .is_err()
        );
        anyhow::Ok(())
    })
    .await?;
    Ok(control_plane)
}

const OBSERVE: &str = r#"{"spec":{"mode":"Observe"}}"#;
const PATCH_SPEC: [&str; 6] = ["patch", "nnp", "node-1", "--type=merge", "-p", OBSERVE];

fn profile(node: &str) -> String {
    format!(
        "{{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkProfile, metadata: {{name: {node}}}, \
         spec: {{tuning: default, mode: Enforce, releasePolicy: Retain, sysctls: []}}}}"
    )
}

/// Runs kubectl with another token than the administrator's.
async fn with(control_plane: &ControlPlane, token: &str, args: &[&str]) -> anyhow::Result<String> {
    let kubeconfig = control_plane.kubeconfig_for_token("admin-user", token)?;
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let mut all = vec![kubeconfig.as_str()];
    all.extend(args);
    Ok(control_plane.kubectl_ok(&all).await?)
}

fn patch_status(node: &str) -> [&str; 7] {
    [
        "patch",
        "nnp",
        node,
        "--subresource=status",
        "--type=merge",
        "-p",
        STATUS,
    ]
}

fn refused_with(result: anyhow::Result<String>, words: &str) -> anyhow::Result<()> {
    match result {
        Ok(done) => anyhow::bail!("not refused: {done}"),
        Err(error) => {
            ensure!(error.to_string().contains(words), "{error}");
            Ok(())
        }
    }
}

/// Although the test gives its account all rights that RBAC knows.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_changes_the_status_of_its_own_node_and_nothing_else() -> anyhow::Result<()> {
    let control_plane = cluster().await?;
    let agent = token(&control_plane, "nettune-agent", Some("node-0")).await?;
    with(&control_plane, &agent, &patch_status("node-0")).await?;
    let own = "of its own node";
    refused_with(
        with(&control_plane, &agent, &patch_status("node-1")).await,
        own,
    )?;
    // Both policies deny this, and the API server names either.
    refused_with(
        with(&control_plane, &agent, &PATCH_SPEC).await,
        "denied request",
    )?;
    refused_with(
        with(&control_plane, &agent, &["delete", "nnp", "node-0"]).await,
        own,
    )?;
    let unbound = token(&control_plane, "nettune-agent", None).await?;
    refused_with(
        with(&control_plane, &unbound, &patch_status("node-0")).await,
        "no node",
    )?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_writes_the_spec_of_a_profile() -> anyhow::Result<()> {
    let control_plane = cluster().await?;
    let admin = "token-of-an-admin";
    let instead = "change the NodeNetworkTuning instead";
    refused_with(with(&control_plane, admin, &PATCH_SPEC).await, instead)?;
    with(
        &control_plane,
        admin,
        &["label", "nnp", "node-1", "seen=yes"],
    )
    .await?;
    with(&control_plane, admin, &["delete", "nnp", "node-0"]).await?;
    with(&control_plane, "token-of-the-breaker", &PATCH_SPEC).await?;
    let operator = token(&control_plane, "nettune-operator", None).await?;
    let client = control_plane.client_for_token(&operator).await?;
    let enforce = Patch::Merge(json!({"spec": {"mode": "Enforce"}}));
    Api::<NodeNetworkProfile>::all(client)
        .patch("node-1", &PatchParams::default(), &enforce)
        .await?;
    Ok(())
}
