//! The agent's link to its profile, against a real API server; the test plays the operator.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use nettune_crds::conditions::{self, READY};
use nettune_crds::{NodeNetworkProfile, NodeNetworkProfileStatus};
use nettune_tests::control_plane::StaticToken;
use nettune_tests::{ControlPlane, ControlPlaneConfig, FakeNode, Program, Proxy, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const SOMAXCONN: &str = "net.core.somaxconn";
const NODE: &str = "node-0";

/// One agent over a directory. It ends before its API server, which waits for its watch.
struct Cluster {
    agent: Program,
    node: FakeNode,
    profiles: Api<NodeNetworkProfile>,
    control_plane: ControlPlane,
}

impl Cluster {
    async fn start() -> anyhow::Result<Self> {
        let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
        let kubeconfig = control_plane.kubeconfig().to_owned();
        Self::by(control_plane, &kubeconfig).await
    }

    async fn by(control_plane: ControlPlane, kubeconfig: &Path) -> anyhow::Result<Self> {
        control_plane.install_crds().await?;
        let profiles = Api::all(control_plane.client().await?);
        let node = FakeNode::new("0b5e6f3c-0000-4000-8000-000000000001")?;
        let agent = Program::agent_as(&control_plane, kubeconfig, NODE, &node, &[]).await?;
        Ok(Self {
            agent,
            node,
            profiles,
            control_plane,
        })
    }

    async fn create(&self, somaxconn: &str) -> anyhow::Result<()> {
        let profile = serde_json::from_value(json!({
            "apiVersion": "nettune.dev/v1alpha1", "kind": "NodeNetworkProfile",
            "metadata": {"name": NODE}, "spec": spec(somaxconn),
        }))?;
        self.profiles
            .create(&PostParams::default(), &profile)
            .await?;
        Ok(())
    }

    async fn patch(&self, patch: &Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(patch);
        self.profiles
            .patch(NODE, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    async fn delete(&self) -> anyhow::Result<()> {
        self.profiles.delete(NODE, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn holds(&self, value: &str) -> anyhow::Result<()> {
        let what = format!("{SOMAXCONN} = {value}");
        eventually(&what, SOON, || async {
            let held = self.node.sysctl(SOMAXCONN)?;
            ensure!(held == value, "{held}\n{}", self.agent.process().tail());
            anyhow::Ok(())
        })
        .await?;
        Ok(())
    }

    /// Waits for a status of the profile's present version that is as wanted.
    async fn reported(
        &self,
        what: &str,
        is: impl Fn(&NodeNetworkProfileStatus) -> bool,
    ) -> anyhow::Result<NodeNetworkProfile> {
        let profile = eventually(what, SOON, || async {
            let profile = self.profiles.get(NODE).await?;
            let status = profile.status.clone().unwrap_or_default();
            let generation = profile.metadata.generation;
            ensure!(
                status.observed_generation == generation && is(&status),
                "{status:?}"
            );
            anyhow::Ok(profile)
        });
        Ok(profile.await?)
    }

    async fn is_reachable(&self, wanted: bool) -> anyhow::Result<()> {
        eventually("nettune_agent_api_reachable", SOON, || async {
            let reachable = self.metric("nettune_agent_api_reachable ").await?;
            ensure!(reachable == u64::from(wanted), "{reachable}");
            anyhow::Ok(())
        })
        .await?;
        Ok(())
    }

    async fn metric(&self, line: &str) -> anyhow::Result<u64> {
        let page = self.agent.get("/metrics").await?;
        let value = page.body.lines().find_map(|said| said.strip_prefix(line));
        Ok(value.map_or(Ok(0), |value| value.trim().parse())?)
    }
}

fn spec(somaxconn: &str) -> Value {
    let entry = json!({"name": SOMAXCONN, "rule": "Exact", "value": somaxconn});
    json!({"tuning": "default", "sysctls": [entry]})
}

fn is_ready(status: &NodeNetworkProfileStatus) -> bool {
    conditions::is_true(&status.conditions, READY)
}

#[tokio::test]
async fn a_status_overtaken_by_other_writes_catches_up() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create("5000").await?;
    cluster.reported("the first value", is_ready).await?;
    // Writes without a pause: what the agent compares with is old by the time that it writes.
    let refused = "nettune_agent_status_patches_total{result=\"failed\"}";
    let mut last = 5000;
    while cluster.metric(refused).await? == 0 {
        ensure!(last < 9000, "no write of the agent was overtaken");
        for _ in 0..25 {
            last += 1;
            cluster
                .patch(&json!({"spec": spec(&last.to_string())}))
                .await?;
        }
    }
    cluster.holds(&last.to_string()).await?;
    let profile = cluster.reported("the last value", is_ready).await?;
    let observed = &profile.status.context("a status")?.sysctls[0].observed;
    assert_eq!(observed.as_deref(), Some(last.to_string().as_str()));
    Ok(())
}

#[tokio::test]
async fn a_recreated_profile_is_a_new_profile() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create("5000").await?;
    cluster.reported("the first value", is_ready).await?;
    cluster.delete().await?;
    cluster.create("5001").await?;
    let profile = cluster.reported("the second value", is_ready).await?;
    assert_eq!(profile.metadata.generation, Some(1));
    cluster.holds("5001").await
}

#[tokio::test]
async fn a_deleted_profile_is_no_longer_enforced() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create("5000").await?;
    cluster.reported("the value", is_ready).await?;
    cluster.delete().await?;
    eventually("the word that it is gone", SOON, || async {
        let log = cluster.agent.process().log();
        ensure!(log.contains("the profile was deleted"), "{log}");
        anyhow::Ok(())
    })
    .await?;
    cluster.node.set_sysctl(SOMAXCONN, "77")?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.holds("77").await
}

#[tokio::test]
async fn a_lost_crd_is_no_deleted_profile() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create("5000").await?;
    cluster.reported("the value", is_ready).await?;
    let crd = ["delete", "crd", "nodenetworkprofiles.nettune.dev"];
    cluster.control_plane.kubectl_ok(&crd).await?;
    // Longer than the agent takes to believe that a profile is gone.
    tokio::time::sleep(Duration::from_secs(8)).await;
    cluster.node.set_sysctl(SOMAXCONN, "77")?;
    cluster.holds("5000").await?;
    let log = cluster.agent.process().log();
    ensure!(!log.contains("the profile was deleted"), "{log}");

    cluster.control_plane.install_crds().await?;
    cluster.create("5001").await?;
    cluster.holds("5001").await
}

#[tokio::test]
async fn an_agent_wrongly_marked_unresponsive_corrects_it() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create("5000").await?;
    let profile = cluster.reported("the value", is_ready).await?;
    let mut all = profile.status.context("a status")?.conditions;
    let ready = all.iter_mut().find(|condition| condition.type_ == READY);
    let ready = ready.context("a condition Ready")?;
    "Unknown".clone_into(&mut ready.status);
    "AgentUnresponsive".clone_into(&mut ready.reason);
    let patch = json!({"status": {"conditions": all}});
    let unresponsive = cluster
        .profiles
        .patch_status(NODE, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    let status = unresponsive.status.unwrap_or_default();
    ensure!(!is_ready(&status), "{status:?}");
    cluster.reported("the agent's word", is_ready).await?;
    Ok(())
}

#[tokio::test]
async fn an_outage_ends_even_if_the_watch_delivers_nothing() -> anyhow::Result<()> {
    const TOKEN: &str = "token-of-the-agent";
    let config = ControlPlaneConfig {
        tokens: vec![StaticToken::admin(TOKEN)],
        ..ControlPlaneConfig::default()
    };
    let control_plane = ControlPlane::start(config).await?;
    let proxy = Proxy::to(control_plane.port())?;
    let kubeconfig = control_plane.kubeconfig_through(proxy.port(), "agent", TOKEN)?;
    let cluster = Cluster::by(control_plane, &kubeconfig).await?;
    cluster.create("5000").await?;
    cluster.reported("the value", is_ready).await?;
    for _ in 0..2 {
        proxy.close();
        cluster.is_reachable(false).await?;
        proxy.open();
        cluster.is_reachable(true).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_idle_agent_writes_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create("5000").await?;
    cluster.reported("the value", is_ready).await?;
    // What comes a moment later, such as the use of tables.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let version = |profile: NodeNetworkProfile| profile.metadata.resource_version;
    let before = version(cluster.profiles.get(NODE).await?);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(version(cluster.profiles.get(NODE).await?), before);
    Ok(())
}
