//! A new value over all nodes at once, with agents that answer at once, against the bare writes.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use nettune_crds::{NodeNetworkProfile, NodeNetworkTuning};
use nettune_tests::{Program, eventually};
use serde_json::json;

use crate::cluster::{self, AT_ONCE};
use crate::fleet::Fleet;
use crate::report::{DesiredState, Report, median};

const DEADLINE: Duration = Duration::from_secs(600);

pub(crate) async fn measure(report: &mut Report, nodes: u16, runs: usize) -> anyhow::Result<()> {
    report.doing(&format!("rollout: {nodes} nodes with an agent each"));
    let (control_plane, client) = cluster::control_plane().await?;
    cluster::create_nodes(&client, 0, nodes).await?;
    let fleet = Fleet::start(control_plane.kubeconfig(), nodes);
    control_plane.apply(&cluster::tuning(6_000)).await?;
    let operator = Program::operator(&control_plane, &[]).await?;
    all_at_once(&client).await?;
    ready(&client, nodes).await?;

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        report.doing(&format!("rollout: run {run} of {runs}"));
        let began = Instant::now();
        set_somaxconn(&client, 8192 * run).await?;
        ready(&client, nodes).await?;
        ours.push(began.elapsed().as_secs_f64());
    }
    anyhow::ensure!(fleet.running() == usize::from(nodes), "agents have ended");
    drop(operator);
    drop(fleet);
    for _ in 1..=runs {
        bare.push(bare_writes(&client).await?.as_secs_f64());
    }
    let (ours, bare) = (median(ours), median(bare));
    report.judged(
        format!("a new value over {nodes} nodes, AllAtOnce, until the tuning is Ready, against the bare spec and status writes"),
        ours / bare,
        "",
        &format!(" ({ours:.1} against {bare:.1} s)"),
        DesiredState::Most(1.3),
    );
    Ok(())
}

async fn all_at_once(client: &Client) -> anyhow::Result<()> {
    patch(client, json!({"rollout": {"type": "AllAtOnce"}})).await
}

async fn set_somaxconn(client: &Client, value: usize) -> anyhow::Result<()> {
    let sysctls = json!([
        {"name": "net.core.somaxconn", "value": value.to_string()},
        {"name": "net.core.netdev_max_backlog", "value": "5000"},
    ]);
    patch(client, json!({"sysctls": sysctls})).await
}

async fn patch(client: &Client, spec: serde_json::Value) -> anyhow::Result<()> {
    let api = Api::<NodeNetworkTuning>::all(client.clone());
    let patch = Patch::Merge(json!({"spec": spec}));
    api.patch("default", &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// Waits until the tuning's status, of this generation, counts all nodes as ready.
async fn ready(client: &Client, nodes: u16) -> anyhow::Result<()> {
    let api = Api::<NodeNetworkTuning>::all(client.clone());
    eventually("all nodes to be ready", DEADLINE, || async {
        let tuning = api.get("default").await?;
        let status = tuning.status.unwrap_or_default();
        let ready = status.nodes.as_ref().map_or(0, |nodes| nodes.ready);
        anyhow::ensure!(
            status.observed_generation == tuning.metadata.generation && ready == i32::from(nodes),
            "{ready} are"
        );
        Ok(())
    })
    .await?;
    Ok(())
}

/// One write of the spec and one of the status for each profile, the second as soon as the first is
/// answered.
async fn bare_writes(client: &Client) -> anyhow::Result<Duration> {
    let profiles = cluster::profiles(client).await?;
    let began = Instant::now();
    stream::iter(profiles)
        .map(|profile| write_both(client, profile))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(began.elapsed())
}

async fn write_both(client: &Client, mut profile: NodeNetworkProfile) -> anyhow::Result<()> {
    let api = Api::<NodeNetworkProfile>::all(client.clone());
    let name = profile.name_any();
    for sysctl in &mut profile.spec.sysctls {
        if sysctl.name == "net.core.somaxconn" {
            sysctl.value.push('0');
        }
    }
    let params = PatchParams::default();
    let body =
        json!({"metadata": {"resourceVersion": profile.resource_version()}, "spec": profile.spec});
    let written = api.patch(&name, &params, &Patch::Merge(body)).await?;
    let mut status = written.status.clone().unwrap_or_default();
    status.observed_generation = written.metadata.generation;
    for sysctl in &mut status.sysctls {
        if sysctl.name == "net.core.somaxconn" {
            sysctl.observed = sysctl.observed.take().map(|value| value + "0");
        }
    }
    let body = json!({"metadata": {"resourceVersion": written.resource_version()},
        "status": {"observedGeneration": status.observed_generation, "sysctls": status.sysctls}});
    api.patch_status(&name, &params, &Patch::Merge(body))
        .await?;
    Ok(())
}
