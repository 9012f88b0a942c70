//! The operator against a real API server; agents play no part here.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use kube::Api;
use kube::api::ListParams;
use nettune_crds::{NodeNetworkProfile, NodeNetworkTuning};
use nettune_tests::{ControlPlane, ControlPlaneConfig, NodeSpec, Program, eventually, nodes};

mod events;
mod other_versions;

const SOON: Duration = Duration::from_secs(30);

const ALL_BLOCKS: &str = "{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {name: default}, spec: {neighbors: {}, conntrack: {}, ipvs: {}}}";

/// A control plane with the CRDs and this many nodes of 64 pods.
async fn cluster(count: u16) -> anyhow::Result<(ControlPlane, kube::Client)> {
    let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    control_plane.install_crds().await?;
    let client = control_plane.client().await?;
    nodes::create_many(&client, (0..count).map(worker)).await?;
    Ok((control_plane, client))
}

/// Not Ready yet, as new nodes are: they get everything at once.
fn worker(index: u16) -> NodeSpec {
    NodeSpec {
        pods: 64,
        ready: false,
        ..NodeSpec::worker(&format!("node-{index}"), index)
    }
}

async fn profiles(client: &kube::Client) -> anyhow::Result<Vec<NodeNetworkProfile>> {
    let profiles = Api::<NodeNetworkProfile>::all(client.clone());
    Ok(profiles.list(&ListParams::default()).await?.items)
}

fn value<'a>(profile: &'a NodeNetworkProfile, name: &str) -> Option<&'a str> {
    let sysctls = &profile.spec.sysctls;
    let found = sysctls.iter().find(|sysctl| sysctl.name == name)?;
    Some(&found.value)
}

/// Waits until this many profiles hold this gc_thresh3.
async fn sized(
    client: &kube::Client,
    count: usize,
    gc_thresh3: &str,
) -> anyhow::Result<Vec<NodeNetworkProfile>> {
    let what = format!("{count} profiles with gc_thresh3 = {gc_thresh3}");
    let all = eventually(&what, SOON, || async {
        let all = profiles(client).await?;
        let held = |profile: &&NodeNetworkProfile| {
            value(profile, "net.ipv4.neigh.default.gc_thresh3") == Some(gc_thresh3)
        };
        let holding = all.iter().filter(held).count();
        ensure!(
            all.len() == count && holding == count,
            "{holding} of {}",
            all.len()
        );
        anyhow::Ok(all)
    });
    Ok(all.await?)
}

#[tokio::test]
async fn profiles_follow_the_size_of_the_cluster_and_are_written_no_more_than_needed()
-> anyhow::Result<()> {
    let (control_plane, client) = cluster(3).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    for profile in sized(&client, 3, "8192").await? {
        let owner = profile.metadata.owner_references.unwrap_or_default();
        let node = profile.metadata.name.context("a name")?;
        ensure!(
            owner
                .iter()
                .any(|owner| owner.kind == "Node" && owner.name == node)
        );
        ensure!(
            profile
                .spec
                .sysctls
                .iter()
                .all(|sysctl| !sysctl.reason.is_empty())
        );
    }

    nodes::create_many(&client, (3..605).map(worker)).await?;
    let all = sized(&client, 605, "16384").await?;
    // The first three were sized for three, then for 605: nothing in between was worth a write.
    let first = all
        .iter()
        .find(|profile| profile.metadata.name.as_deref() == Some("node-0"));
    assert_eq!(first.context("node-0")?.metadata.generation, Some(2));

    let tunings = Api::<NodeNetworkTuning>::all(client.clone());
    eventually("the tuning's status to count 605 nodes", SOON, || async {
        let status = tunings.get("default").await?.status.unwrap_or_default();
        ensure!(
            status.nodes.is_some_and(|nodes| nodes.selected == 605),
            "{:?}",
            status.nodes
        );
        ensure!(
            status.gc_thresh3.as_deref() == Some("16384"),
            "{:?}",
            status.gc_thresh3
        );
        anyhow::Ok(())
    })
    .await?;
    eventually("an Event about the new size", SOON, || async {
        let events = control_plane.kubectl_ok(&["get", "events", "-A"]).await?;
        ensure!(
            events.contains("gc_thresh3 changed from 8192 to 16384"),
            "{events}"
        );
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changes() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(3).await?;
    let operator = Program::operator(&control_plane, &[]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 3, "8192").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let writes = |page: String| {
        let lines = page
            .lines()
            .filter(|line| line.starts_with("nettune_operator_writes_total"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = writes(operator.get("/metrics").await?.body);
    ensure!(!before.is_empty());
    // A heartbeat is what changes on a Node all the time.
    nodes::update_status(&client, &worker(0)).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(before, writes(operator.get("/metrics").await?.body));
    Ok(())
}

#[tokio::test]
async fn without_a_tuning_it_does_nothing_and_says_so() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(1).await?;
    let mut operator = Program::operator(&control_plane, &[]).await?;
    let said =
        operator
            .process_mut()
            .wait_for_line("there is no NodeNetworkTuning", SOON, 0, |line| {
                line.contains("there is no NodeNetworkTuning").then_some(())
            });
    said.await?;
    ensure!(profiles(&client).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn it_waits_for_missing_crds_and_api_server() -> anyhow::Result<()> {
    let mut control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    control_plane.stop_api_server()?;
    let operator = Program::operator(&control_plane, &[]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    control_plane.start_api_server().await?;
    eventually("a hint at the missing CRDs", SOON, || async {
        let log = operator.process().log();
        ensure!(log.contains("kubectl apply -f crds/manifests"), "{log}");
        anyhow::Ok(())
    })
    .await?;
    control_plane.install_crds().await?;
    let client = control_plane.client().await?;
    nodes::create(&client, &worker(0)).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 1, "8192").await?;
    let failures = operator.process().log().matches("cannot watch").count();
    // Once for each way in which each kind fails (server away, starting, CRD missing), not for each try.
    ensure!(failures <= 9, "said {failures} times");
    Ok(())
}

#[tokio::test]
async fn it_resumes_after_the_api_server_has_crashed() -> anyhow::Result<()> {
    let (mut control_plane, client) = cluster(2).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 2, "8192").await?;
    control_plane.kill_api_server()?;
    control_plane.start_api_server().await?;
    nodes::create(&client, &worker(2)).await?;
    sized(&client, 3, "8192").await?;
    Ok(())
}

#[tokio::test]
async fn sigterm_stops_it_within_two_seconds() -> anyhow::Result<()> {
    let (control_plane, _client) = cluster(1).await?;
    let mut operator = Program::operator(&control_plane, &[]).await?;
    let began = Instant::now();
    let status = operator.process_mut().stop()?;
    ensure!(status.success(), "{status}");
    ensure!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    Ok(())
}

#[tokio::test]
async fn a_start_that_fails_says_why() -> anyhow::Result<()> {
    let (control_plane, _client) = cluster(0).await?;
    let nowhere = control_plane.dir().join("no-such-kubeconfig");
    let failed = Program::operator_as(&control_plane, &nowhere, &[]).await;
    let said = format!("{:#}", anyhow!(failed.err().context("it started")?));
    ensure!(said.contains("no-such-kubeconfig"), "{said}");
    Ok(())
}

#[tokio::test]
async fn deleting_a_tuning_retains_values_and_deletes_the_profiles() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(2).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 2, "8192").await?;
    control_plane
        .kubectl_ok(&["delete", "nnt", "default"])
        .await?;
    eventually("the profiles to go", SOON, || async {
        let left = profiles(&client).await?.len();
        ensure!(left == 0, "{left} left");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}
