//! A new size for every node, against the same writes in a bare loop.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use nettune_crds::NodeNetworkProfile;
use nettune_tests::Program;
use serde_json::json;

use crate::cluster::{self, AT_ONCE, Parsed};
use crate::report::{DesiredState, Report, median, rate};

/// Two values of `sizeForNodes`, a power of two apart in what they lead to.
const SIZES: [u32; 2] = [6_000, 12_000];

pub(crate) async fn measure(report: &mut Report, nodes: u16, runs: usize) -> anyhow::Result<()> {
    report.doing(&format!("resize: creating {nodes} Nodes"));
    let (control_plane, client) = cluster::control_plane().await?;
    cluster::create_nodes(&client, 0, nodes).await?;
    let count = usize::from(nodes);
    let mut watched = Parsed::begin(&client).await?;
    control_plane.apply(&cluster::tuning(SIZES[0])).await?;
    let began = Instant::now();
    let mut operator = Program::operator(&control_plane, &[]).await?;
    report.doing("resize: the first profiles");
    let small = watched.agreement(count, "").await?;
    let first = began.elapsed();

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        report.doing(&format!("resize: run {run} of {runs}"));
        // Up by the operator, whose raised floors are not gated; then down and up and down by the loop.
        let began = Instant::now();
        cluster::size_for(&client, SIZES[1]).await?;
        let large = watched.agreement(count, &small).await?;
        ours.push(rate(count, began.elapsed()));
        operator.process_mut().stop()?;
        // The operator's writes have two parsed watches beside them, its own and the one that sees when
        // they are done. So has the loop.
        let beside = Parsed::begin(&client).await?;
        bare.push(rate(count, write_all(&client, &large, &small).await?));
        bare.push(rate(count, write_all(&client, &small, &large).await?));
        write_all(&client, &large, &small).await?;
        drop(beside);
        cluster::size_for(&client, SIZES[0]).await?;
        operator = Program::operator(&control_plane, &[]).await?;
        leads(&operator).await?;
    }
    let (ours, bare) = (median(ours), median(bare));
    report.figure(
        format!("first profiles of {nodes} nodes, from the operator's start"),
        format!(
            "{:.1} s, {:.0} writes/s",
            first.as_secs_f64(),
            rate(count, first)
        ),
    );
    report.judged(
        format!("resize of {nodes} profiles of 13 keys, against a bare loop of the same writes"),
        ours / bare,
        "",
        &format!(" ({ours:.0} against {bare:.0} writes/s)"),
        DesiredState::Least(0.9),
    );
    Ok(())
}

/// Waits until the operator decides.
async fn leads(operator: &Program) -> anyhow::Result<()> {
    nettune_tests::eventually(
        "an operator that leads",
        Duration::from_secs(60),
        || async {
            let page = operator.get("/metrics").await?.body;
            anyhow::ensure!(page.lines().any(|line| line == "nettune_operator_leader 1"));
            Ok(())
        },
    )
    .await?;
    Ok(())
}

/// Writes another gc_thresh3 into every profile, with the body that the operator sends.
async fn write_all(client: &Client, from: &str, to: &str) -> anyhow::Result<Duration> {
    let profiles = cluster::profiles(client).await?;
    let began = Instant::now();
    stream::iter(profiles)
        .map(|profile| write(client, profile, from, to))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(began.elapsed())
}

async fn write(
    client: &Client,
    mut profile: NodeNetworkProfile,
    from: &str,
    to: &str,
) -> anyhow::Result<()> {
    for sysctl in &mut profile.spec.sysctls {
        if sysctl.value == from {
            to.clone_into(&mut sysctl.value);
        }
    }
    let body = json!({
        "metadata": {"uid": profile.uid(), "resourceVersion": profile.resource_version(), "ownerReferences": profile.metadata.owner_references},
        "spec": profile.spec,
    });
    let api = Api::<NodeNetworkProfile>::all(client.clone());
    let params = PatchParams {
        field_manager: Some("nettune-operator".to_owned()),
        ..PatchParams::default()
    };
    api.patch(&profile.name_any(), &params, &Patch::Merge(body))
        .await?;
    Ok(())
}
