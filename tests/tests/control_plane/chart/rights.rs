//! The rights that the chart grants: all are needed, and no more is asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use nettune_crds::{NodeNetworkProfile, conditions};
use nettune_tests::cluster::{AGENT, OPERATOR};
use nettune_tests::control_plane::audit::Mark;
use nettune_tests::{
    Audit, ControlPlane, ControlPlaneConfig, FakeNode, NodeSpec, Program, eventually, nodes,
};
use serde_json::{Value, json};

use super::{NAMESPACE, find, flags, objects, parse, template};

const SOON: Duration = Duration::from_secs(60);

/// A verb on a resource of an API group.
type Right = (String, String, String);

/// What the roles of a service account grant.
fn granted(objects: &[Value], account: &str) -> BTreeSet<Right> {
    let bound = |binding: &&Value| {
        binding["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("RoleBinding"))
            && binding["subjects"][0]["name"] == account
    };
    let mut rights = BTreeSet::new();
    for binding in objects.iter().filter(bound) {
        let role = |object: &&Value| {
            object["kind"] == binding["roleRef"]["kind"]
                && object["metadata"]["name"] == binding["roleRef"]["name"]
        };
        for rule in objects
            .iter()
            .filter(role)
            .flat_map(|role| items(&role["rules"]))
        {
            for group in items(&rule["apiGroups"]) {
                for resource in items(&rule["resources"]) {
                    for verb in items(&rule["verbs"]) {
                        rights.insert([group, resource, verb].map(text).into());
                    }
                }
            }
        }
    }
    rights
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A token of a service account; an agent's is bound to its node, as kubelets ask for it.
pub(super) async fn token(
    control_plane: &ControlPlane,
    account: &str,
    node: Option<&str>,
) -> anyhow::Result<String> {
    let mut args = vec!["create", "token", account, "--namespace", NAMESPACE];
    if let Some(node) = node {
        args.extend(["--bound-object-kind", "Node", "--bound-object-name", node]);
    }
    Ok(control_plane.kubectl_ok(&args).await?.trim().to_owned())
}

/// Installs the chart, as `helm template --include-crds | kubectl apply` does.
pub(super) async fn install(control_plane: &ControlPlane, values: &[&str]) -> anyhow::Result<()> {
    control_plane
        .kubectl_ok(&["create", "namespace", NAMESPACE])
        .await?;
    let mut args = vec!["--include-crds"];
    args.extend(values);
    let manifests = template(&args).await?;
    ensure!(!parse(&manifests)?.is_empty());
    control_plane.apply(&manifests).await?;
    control_plane.wait_for_crds().await?;
    Ok(())
}

/// Two operators, and an agent that stops answering.
#[tokio::test(flavor = "multi_thread")]
async fn every_right_is_used_and_none_is_missing() -> anyhow::Result<()> {
    let audit = Audit::of_users(&[OPERATOR, AGENT])?;
    let control_plane = ControlPlane::start(ControlPlaneConfig {
        api_server_flags: audit.flags(),
        ..ControlPlaneConfig::default()
    })
    .await?;
    let values = ["--set", "operator.startupTaint=true"];
    install(&control_plane, &values).await?;
    let rendered = objects(&values).await?;
    let client = control_plane.client().await?;
    nodes::create(&client, &NodeSpec::worker("node-0", 0)).await?;
    control_plane
        .kubectl_ok(&[
            "taint",
            "node",
            "node-0",
            "nettune.dev/not-ready=:NoSchedule",
        ])
        .await?;

    let operator_flags = flags(find(&rendered, "Deployment", "nettune-operator")?);
    let operator_flags: Vec<&str> = operator_flags.iter().map(String::as_str).collect();
    let operator_token = token(&control_plane, "nettune-operator", None).await?;
    let operator_config = control_plane.kubeconfig_for_token("operator", &operator_token)?;
    let leader = Program::operator_as(&control_plane, &operator_config, &operator_flags).await?;
    let agent_token = token(&control_plane, "nettune-agent", Some("node-0")).await?;
    let agent_config = control_plane.kubeconfig_for_token("agent", &agent_token)?;
    let machine = FakeNode::new(&NodeSpec::worker("node-0", 0).boot_id)?;
    let agent = Program::agent_as(&control_plane, &agent_config, "node-0", &machine, &[]).await?;

    let tuning = |spec: &str| {
        format!(
            "{{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {{name: default}}, spec: {spec}}}"
        )
    };
    let rollout = "rollout: {type: AllAtOnce, nodeDeadlineSeconds: 10}";
    control_plane
        .apply(&tuning(&format!("{{neighbors: {{}}, {rollout}}}")))
        .await?;
    let profiles = Api::<NodeNetworkProfile>::all(client.clone());
    ready(&profiles, "node-0").await?;
    // As the notes say, before a tuning is deleted.
    let reason = r#"--for=jsonpath={.status.conditions[?(@.type=="Progressing")].reason}=UpToDate"#;
    control_plane
        .kubectl_ok(&["wait", "nnt", "default", "--timeout=60s", reason])
        .await?;

    // The agent ends, and does not answer a change.
    drop(agent);
    control_plane
        .apply(&tuning(&format!(
            "{{neighbors: {{}}, conntrack: {{}}, {rollout}}}"
        )))
        .await?;
    eventually("the agent is marked as unresponsive", SOON, || async {
        let status = serde_json::to_value(profiles.get("node-0").await?.status)?;
        ensure!(status.to_string().contains("AgentUnresponsive"), "{status}");
        anyhow::Ok(())
    })
    .await?;

    // Pressure on a node is published as an Event.
    let mut status = serde_json::to_value(profiles.get("node-0").await?.status)?;
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if condition["type"] == "NeighborPressure" {
            condition["status"] = "True".into();
            condition["reason"] = "Overflow".into();
        }
    }
    let patch = Patch::Merge(json!({"status": {"conditions": status["conditions"]}}));
    profiles
        .patch_status("node-0", &PatchParams::default(), &patch)
        .await?;
    eventually("an Event on the Node", SOON, || async {
        let events = control_plane
            .kubectl_ok(&["get", "events", "-o", "name"])
            .await?;
        ensure!(!events.is_empty());
        anyhow::Ok(())
    })
    .await?;

    // The Lease is changed by hand, so the leader must read it; then a standby takes over.
    control_plane
        .kubectl_ok(&[
            "annotate",
            "lease",
            "nettune-operator",
            "--namespace",
            NAMESPACE,
            "by=hand",
        ])
        .await?;
    let standby = Program::operator_as(&control_plane, &operator_config, &operator_flags).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(leader);
    control_plane
        .kubectl_ok(&["delete", "nnt", "default"])
        .await?;
    eventually("the profiles are deleted", SOON, || async {
        let left = profiles.list(&ListParams::default()).await?.items.len();
        ensure!(left == 0, "{left} left");
        anyhow::Ok(())
    })
    .await?;
    drop(standby);

    let requests = audit.since(Mark::default())?;
    let refused: Vec<_> = requests
        .iter()
        .filter(|request| request.code == 403)
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    for (user, account) in [(OPERATOR, "nettune-operator"), (AGENT, "nettune-agent")] {
        let used: BTreeSet<Right> = requests
            .iter()
            .filter(|request| request.user == user && !request.resource.is_empty())
            .map(|request| {
                (
                    request.group.clone(),
                    request.resource.clone(),
                    request.verb.clone(),
                )
            })
            .collect();
        assert_eq!(granted(&rendered, account), used, "{account}");
    }
    Ok(())
}

async fn ready(profiles: &Api<NodeNetworkProfile>, node: &str) -> anyhow::Result<()> {
    eventually("the profile is ready", SOON, || async {
        let status = profiles.get(node).await?.status.context("no status yet")?;
        ensure!(
            conditions::is_true(&status.conditions, conditions::READY),
            "{:?}",
            status.conditions
        );
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}
