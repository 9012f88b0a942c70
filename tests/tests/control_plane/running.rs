//! How an operator paces its writes, and what it reports about agents and releases.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use nettune_crds::{NodeNetworkProfile, conditions};
use nettune_tests::control_plane::StaticToken;
use nettune_tests::{ControlPlane, ControlPlaneConfig, NodeSpec, Program, eventually, nodes};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// The API server divides what it can do among its levels every ten seconds; a busy machine takes longer.
const LIMITED: Duration = Duration::from_secs(120);

fn tuning(spec: &str) -> String {
    format!(
        "{{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {{name: default}}, spec: {spec}}}"
    )
}

/// A control plane with this many nodes and a token with all rights that is not in
/// system:masters, which flow control exempts.
async fn cluster(count: u16) -> anyhow::Result<(ControlPlane, kube::Client)> {
    let token = StaticToken::of("nettune-operator", "token-of-the-operator");
    let control_plane = ControlPlane::start(ControlPlaneConfig {
        tokens: vec![token],
        ..ControlPlaneConfig::default()
    })
    .await?;
    control_plane.install_crds().await?;
    control_plane
        .apply(
            "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: operator}, \
             roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}, \
             subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: nettune-operator}]}",
        )
        .await?;
    let client = control_plane.client().await?;
    let worker = |index| NodeSpec::worker(&format!("node-{index}"), index);
    nodes::create_many(&client, (0..count).map(worker)).await?;
    Ok((control_plane, client))
}

async fn operator(control_plane: &ControlPlane, args: &[&str]) -> anyhow::Result<Program> {
    let kubeconfig = control_plane.kubeconfig_for_token("operator", "token-of-the-operator")?;
    let mut all = vec!["--leader-elect", "false"];
    all.extend(args);
    Ok(Program::operator_as(control_plane, &kubeconfig, &all).await?)
}

fn profiles(client: &kube::Client) -> Api<NodeNetworkProfile> {
    Api::all(client.clone())
}

async fn count(client: &kube::Client, wanted: usize) -> anyhow::Result<()> {
    eventually(&format!("{wanted} profiles"), SOON, || async {
        let there = profiles(client).list(&ListParams::default()).await?;
        ensure!(there.items.len() == wanted, "{}", there.items.len());
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

/// A metric's value; 0 where it is not there.
async fn metric(program: &Program, line: &str) -> anyhow::Result<u64> {
    let page = program.get("/metrics").await?;
    Ok(page.metric(line).map_or(Ok(0), str::parse)?)
}

async fn reaches(program: &Program, line: &str, wanted: u64) -> anyhow::Result<()> {
    eventually(&format!("{line} {wanted}"), SOON, || async {
        let value = metric(program, line).await?;
        ensure!(value == wanted, "{value}");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

/// An agent's status for the current profile.
async fn say(
    client: &kube::Client,
    node: &str,
    words: &[(&str, &str, &str)],
) -> anyhow::Result<()> {
    let profile = profiles(client).get(node).await?;
    let index: u16 = node.strip_prefix("node-").context("a number")?.parse()?;
    let said = words.iter().map(|(type_, status, reason)| {
        json!({"type": type_, "status": status, "reason": reason, "message": "net.core.somaxconn: EINVAL",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    });
    let status = json!({"status": {
        "observedGeneration": profile.metadata.generation, "sysctls": [], "kernelRelease": "6.1.0",
        "bootID": NodeSpec::worker(node, index).boot_id, "agentVersion": "0",
        "conditions": said.collect::<Vec<Value>>(),
    }});
    let params = PatchParams::default();
    profiles(client)
        .patch_status(node, &params, &Patch::Merge(status))
        .await?;
    Ok(())
}

const FLOW: [&str; 2] = [
    "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {name: nothing}, \
     spec: {type: Limited, limited: {nominalConcurrencyShares: 0, lendablePercent: 0, borrowingLimitPercent: 0, \
     limitResponse: {type: Reject}}}}",
    "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, metadata: {name: nothing}, \
     spec: {matchingPrecedence: 2, priorityLevelConfiguration: {name: nothing}, rules: [{\
     subjects: [{kind: User, user: {name: nettune-operator}}], \
     resourceRules: [{verbs: [create, patch], apiGroups: [nettune.dev], resources: [nodenetworkprofiles], clusterScope: true}]}]}}",
];

#[tokio::test]
async fn a_busy_api_server_is_left_alone_for_as_long_as_it_asks() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(600).await?;
    for object in FLOW {
        control_plane.apply(object).await?;
    }
    let create = json!({"apiVersion": "nettune.dev/v1alpha1", "kind": "NodeNetworkProfile",
        "metadata": {"name": "canary"}, "spec": {"tuning": "none", "sysctls": []}});
    let other = control_plane
        .client_for_token("token-of-the-operator")
        .await?;
    // A level without a seat still lets one in while it is empty: of several at once some have to wait.
    eventually("the limit to be in force", LIMITED, || async {
        let profile: NodeNetworkProfile = serde_json::from_value(create.clone())?;
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let other = profiles(&other);
        let tries = (0..16).map(|_| other.create(&params, &profile));
        // The client retries by itself, after the second of Retry-After.
        let began = Instant::now();
        for tried in futures::future::join_all(tries).await {
            tried?;
        }
        ensure!(began.elapsed() >= Duration::from_secs(1), "all were let in");
        anyhow::Ok(())
    })
    .await?;
    drop(other);
    let operator = operator(&control_plane, &[]).await?;
    control_plane.apply(&tuning("{neighbors: {}}")).await?;
    let busy = r#"nettune_operator_writes_total{verb="create",result="throttled"}"#;
    eventually("an answer that asks for a pause", SOON, || async {
        ensure!(metric(&operator, busy).await? > 0);
        anyhow::Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    // 32 after each pause; the API server doubles its Retry-After while it rejects that many.
    let ok = r#"nettune_operator_writes_total{verb="create",result="ok"}"#;
    let tries = metric(&operator, busy).await? + metric(&operator, ok).await?;
    ensure!(tries <= 150, "{tries} tries in about 6 s");
    control_plane
        .kubectl_ok(&["delete", "flowschema", "nothing"])
        .await?;
    count(&client, 600).await?;
    reaches(&operator, "nettune_operator_writes_queued", 0).await?;
    reaches(&operator, "nettune_operator_writes_in_flight", 0).await?;
    let page = operator.get("/metrics").await?.body;
    let timed = r#"nettune_operator_write_duration_seconds_count{verb="create"}"#;
    ensure!(page.contains(timed), "{page}");
    Ok(())
}

#[tokio::test]
async fn an_agent_whose_pod_is_not_ready_is_unresponsive() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(2).await?;
    let selector = ["--agent-selector", "default/app.example.com/name=agent"];
    let operator = operator(&control_plane, &selector).await?;
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    for index in 0..2 {
        let name = format!("agent-{index}");
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app.example.com/name": "agent"}},
            "spec": {"nodeName": format!("node-{index}"), "containers": [{"name": "agent", "image": "agent"}]}});
        let pod = serde_json::from_value(pod)?;
        pods.create(&PostParams::default(), &pod).await?;
    }
    let ready = |index: u16, status: &'static str| {
        let pods = &pods;
        async move {
            let condition = json!({"type": "Ready", "status": status});
            let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
            pods.patch_status(&format!("agent-{index}"), &PatchParams::default(), &patch)
                .await
        }
    };
    ready(0, "True").await?;
    ready(1, "True").await?;
    let spec = "{conntrack: {}, rollout: {type: AllAtOnce, nodeDeadlineSeconds: 2}}";
    control_plane.apply(&tuning(spec)).await?;
    count(&client, 2).await?;
    for node in ["node-0", "node-1"] {
        say(&client, node, &[("Ready", "True", "Applied")]).await?;
    }
    let of =
        |state| format!(r#"nettune_operator_tuning_nodes{{tuning="default",state="{state}"}}"#);
    reaches(&operator, &of("Ready"), 2).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    reaches(&operator, &of("Unresponsive"), 0).await?;
    ready(1, "False").await?;
    reaches(&operator, &of("Unresponsive"), 1).await?;
    let unresponsive = profiles(&client).get("node-1").await?.status;
    let unresponsive = unresponsive.context("a status")?.conditions;
    let said = conditions::find(&unresponsive, conditions::READY).context("Ready")?;
    ensure!(said.message.contains("its Pod is not ready"), "{said:?}");
    // A Pod that is gone is one that is not ready.
    pods.delete(
        "agent-0",
        &kube::api::DeleteParams::default().grace_period(0),
    )
    .await?;
    reaches(&operator, &of("Unresponsive"), 2).await?;
    // The metrics of a tuning go with it.
    control_plane
        .kubectl_ok(&["delete", "nnt", "default"])
        .await?;
    eventually("the metrics of the tuning to go", SOON, || async {
        let page = operator.get("/metrics").await?.body;
        ensure!(!page.contains(r#"tuning="default""#), "{page}");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn without_permission_to_see_pods_all_else_works() -> anyhow::Result<()> {
    let token = StaticToken::of("nobody-in-particular", "token-of-a-reader");
    let control_plane = ControlPlane::start(ControlPlaneConfig {
        tokens: vec![token],
        ..ControlPlaneConfig::default()
    })
    .await?;
    control_plane.install_crds().await?;
    control_plane.apply(&format!("{RIGHTS}\n")).await?;
    let client = control_plane.client().await?;
    nodes::create(&client, &NodeSpec::worker("node-0", 0)).await?;
    control_plane.apply(&tuning("{neighbors: {}}")).await?;
    let kubeconfig = control_plane.kubeconfig_for_token("reader", "token-of-a-reader")?;
    let args = ["--leader-elect", "false", "--agent-selector", "default/a=b"];
    let operator = Program::operator_as(&control_plane, &kubeconfig, &args).await?;
    count(&client, 1).await?;
    eventually("a hint at the missing Role", SOON, || async {
        let log = operator.process().log();
        ensure!(log.contains("needs a Role to list and watch pods"), "{log}");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

/// All that an operator needs that does not look at Pods and holds no Lease.
const RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [''], resources: [nodes], verbs: [list, watch]}
- {apiGroups: [nettune.dev], resources: [nodenetworktunings], verbs: [list, watch]}
- {apiGroups: [nettune.dev], resources: [nodenetworktunings/status], verbs: [update]}
- {apiGroups: [nettune.dev], resources: [nodenetworkprofiles], verbs: [list, watch, create, patch, delete]}
- {apiGroups: [nettune.dev], resources: [nodenetworkprofiles/status], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: nobody-in-particular}]
";

#[tokio::test]
async fn a_stopped_release_of_a_deleted_tuning_is_reported_on_the_node() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(2).await?;
    let operator = operator(&control_plane, &[]).await?;
    let spec = "{releasePolicy: Restore, rollout: {type: AllAtOnce}, sysctls: [{name: net.core.somaxconn, value: '4096'}]}";
    control_plane.apply(&tuning(spec)).await?;
    count(&client, 2).await?;
    for node in ["node-0", "node-1"] {
        say(&client, node, &[("Ready", "True", "Applied")]).await?;
    }
    control_plane
        .kubectl_ok(&["delete", "nnt", "default"])
        .await?;
    eventually("the first release", SOON, || async {
        let profile = profiles(&client).get("node-0").await?;
        ensure!(profile.spec.release);
        anyhow::Ok(())
    })
    .await?;
    let words = [
        ("Ready", "False", "PartiallyRestored"),
        ("Released", "True", "PartiallyRestored"),
    ];
    say(&client, "node-0", &words).await?;
    eventually("an Event on the Node", SOON, || async {
        let events = control_plane
            .kubectl_ok(&[
                "get",
                "events",
                "--field-selector",
                "involvedObject.name=node-0",
            ])
            .await?;
        ensure!(
            events.contains("ReleaseFailed")
                && events.contains("release failed: net.core.somaxconn: EINVAL"),
            "{events}"
        );
        anyhow::Ok(())
    })
    .await?;
    let of =
        |state| format!(r#"nettune_operator_tuning_nodes{{tuning="default",state="{state}"}}"#);
    reaches(&operator, &of("Releasing"), 2).await?;
    reaches(&operator, &of("Failed"), 1).await?;
    let stopped = r#"nettune_operator_rollout_stopped{tuning="default"}"#;
    reaches(&operator, stopped, 1).await?;
    let log = operator.process().log();
    ensure!(
        log.contains("stopped: too many nodes failed")
            && log.contains("1 node waiting until the failed nodes recover"),
        "{log}"
    );
    ensure!(!profiles(&client).get("node-1").await?.spec.release);
    Ok(())
}
