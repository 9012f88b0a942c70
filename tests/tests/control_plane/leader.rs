//! Two operators against a real API server, of which one at a time writes.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use nettune_crds::NodeNetworkProfile;
use nettune_tests::process::Signal;
use nettune_tests::{ControlPlane, ControlPlaneConfig, NodeSpec, Program, eventually, nodes};

const SOON: Duration = Duration::from_secs(30);

/// Shorter than what ships, so that the tests do not take minutes; all else follows from it.
const LEASE: Duration = Duration::from_secs(6);
const SHORT: [&str; 2] = ["--lease-seconds", "6"];

const TUNING: &str = "{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {name: default}, spec: {neighbors: {}}}";

/// In the order in which they end: an API server waits for those that watch.
struct Pair {
    leader: Program,
    standby: Program,
    client: kube::Client,
    control_plane: ControlPlane,
}

/// Two operators over one node, the first of which leads.
async fn pair() -> anyhow::Result<Pair> {
    let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    control_plane.install_crds().await?;
    let client = control_plane.client().await?;
    nodes::create_many(&client, [NodeSpec::worker("node-0", 0)]).await?;
    let leader = Program::operator(&control_plane, &SHORT).await?;
    leads(&leader, true, SOON).await?;
    control_plane.apply(TUNING).await?;
    tuned(&client, "node-0", SOON).await?;
    let standby = Program::operator(&control_plane, &SHORT).await?;
    eventually("a standby that is ready", SOON, || async {
        let status = standby.get("/readyz").await?.status;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await?;
    leads(&standby, false, SOON).await?;
    Ok(Pair {
        control_plane,
        client,
        leader,
        standby,
    })
}

async fn leads(operator: &Program, wanted: bool, within: Duration) -> anyhow::Result<()> {
    let metric = format!("nettune_operator_leader {}", u8::from(wanted));
    eventually(&metric, within, || async {
        let page = operator.get("/metrics").await?.body;
        ensure!(
            page.lines().any(|line| line == metric),
            "it says something else"
        );
        Ok(())
    })
    .await?;
    Ok(())
}

async fn tuned(client: &kube::Client, node: &str, within: Duration) -> anyhow::Result<()> {
    let profiles = Api::<NodeNetworkProfile>::all(client.clone());
    eventually("the node's profile", within, || async {
        profiles
            .get(node)
            .await
            .map(drop)
            .map_err(anyhow::Error::from)
    })
    .await?;
    Ok(())
}

async fn lease(client: &kube::Client) -> anyhow::Result<LeaseSpec> {
    let leases = Api::<Lease>::namespaced(client.clone(), "default");
    leases.get("nettune-operator").await?.spec.context("a spec")
}

#[tokio::test]
async fn a_stopped_leader_hands_over_within_two_seconds() -> anyhow::Result<()> {
    let mut pair = pair().await?;
    let before = lease(&pair.client).await?;
    let asked = Instant::now();
    pair.leader.process().signal(Signal::TERM)?;
    leads(&pair.standby, true, Duration::from_secs(2)).await?;
    nodes::create_many(&pair.client, [NodeSpec::worker("node-1", 1)]).await?;
    tuned(&pair.client, "node-1", SOON).await?;
    let status = pair.leader.process_mut().wait(SOON)?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    let after = lease(&pair.client).await?;
    ensure!(before.holder_identity != after.holder_identity, "{after:?}");
    ensure!(after.lease_transitions == Some(1), "{after:?}");
    println!("handed over and written after {:?}", asked.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_killed_leader_is_replaced_when_its_lease_expires() -> anyhow::Result<()> {
    let mut pair = pair().await?;
    pair.leader.process_mut().kill()?;
    let killed = Instant::now();
    nodes::create_many(&pair.client, [NodeSpec::worker("node-1", 1)]).await?;
    // A moment later the standby knows of the node, and leaves it alone.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let profiles = Api::<NodeNetworkProfile>::all(pair.client.clone());
    ensure!(
        profiles.get_opt("node-1").await?.is_none(),
        "it has written"
    );
    let left = (LEASE + Duration::from_secs(2)).saturating_sub(killed.elapsed());
    leads(&pair.standby, true, left).await?;
    // It was renewed a third of the lease ago at the most, and not given back.
    ensure!(killed.elapsed() > LEASE / 2, "{:?}", killed.elapsed());
    tuned(&pair.client, "node-1", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_was_frozen_writes_nothing_more_and_exits() -> anyhow::Result<()> {
    let mut pair = pair().await?;
    pair.leader.process().signal(Signal::STOP)?;
    leads(&pair.standby, true, LEASE + SOON).await?;
    // What it finds when it wakes up: a node to be written, and a Lease that is not its own.
    pair.standby.process().signal(Signal::STOP)?;
    nodes::create_many(&pair.client, [NodeSpec::worker("node-1", 1)]).await?;
    pair.leader.process().signal(Signal::CONT)?;
    let status = pair
        .leader
        .process_mut()
        .wait(SOON)?
        .context("it goes on")?;
    ensure!(!status.success(), "{status:?}");
    let profiles = Api::<NodeNetworkProfile>::all(pair.client.clone());
    ensure!(
        profiles.get_opt("node-1").await?.is_none(),
        "it has written"
    );
    ensure!(pair.leader.process().log().contains("could not be renewed"));
    pair.standby.process().signal(Signal::CONT)?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_cannot_renew_exits_before_its_lease_expires() -> anyhow::Result<()> {
    let mut pair = pair().await?;
    pair.control_plane.kill_api_server()?;
    let status = pair.leader.process_mut().wait(LEASE)?;
    let status = status.context("its lease has ended and it goes on")?;
    ensure!(!status.success(), "{status:?}");
    pair.standby.process_mut().still_running()?;
    pair.control_plane.start_api_server().await?;
    leads(&pair.standby, true, SOON).await?;
    nodes::create_many(&pair.client, [NodeSpec::worker("node-1", 1)]).await?;
    tuned(&pair.client, "node-1", SOON).await?;
    Ok(())
}
