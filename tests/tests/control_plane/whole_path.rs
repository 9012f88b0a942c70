//! The whole path with agents over directories: tuning, operator, profile, agent, values, status.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kube::Api;
use kube::api::ListParams;
use nettune_crds::{KeyState, NodeNetworkProfile, NodeNetworkProfileStatus, conditions};
use nettune_tests::{
    ControlPlane, ControlPlaneConfig, FakeNode, NodeSpec, Program, eventually, nodes,
};

const SOON: Duration = Duration::from_secs(30);
const THRESH3: &str = "net.ipv4.neigh.default.gc_thresh3";
const CONNTRACK_MAX: &str = "net.netfilter.nf_conntrack_max";
const SOMAXCONN: &str = "net.core.somaxconn";

/// Nodes with agents over directories, the operator and a control plane; they end in this order, as an
/// API server waits for the watches of its clients.
struct Cluster {
    nodes: Vec<(String, Program, FakeNode)>,
    _operator: Program,
    client: kube::Client,
    control_plane: ControlPlane,
}

impl Cluster {
    async fn with_nodes(count: u16) -> anyhow::Result<Self> {
        Self::with(count, &[]).await
    }

    async fn with(count: u16, operator_args: &[&str]) -> anyhow::Result<Self> {
        let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
        control_plane.install_crds().await?;
        let client = control_plane.client().await?;
        let mut all = Vec::new();
        for index in 0..count {
            let spec = NodeSpec {
                pods: 64,
                ..NodeSpec::worker(&format!("node-{index}"), index)
            };
            nodes::create(&client, &spec).await?;
            let node = FakeNode::new(&spec.boot_id)?;
            let agent = Program::agent(&control_plane, &spec.name, &node, &[]).await?;
            all.push((spec.name, agent, node));
        }
        let operator = Program::operator(&control_plane, operator_args).await?;
        Ok(Self {
            nodes: all,
            _operator: operator,
            client,
            control_plane,
        })
    }

    /// Applies a tuning; one that does not say how it rolls out does so at once.
    async fn apply(&self, spec: &str) -> anyhow::Result<()> {
        let spec = if spec.contains("rollout:") {
            spec.to_owned()
        } else {
            spec.replacen('{', "{rollout: {type: AllAtOnce}, ", 1)
        };
        let object = format!(
            "{{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {{name: default}}, spec: {spec}}}"
        );
        self.control_plane.apply(&object).await?;
        Ok(())
    }

    fn node(&self, index: usize) -> anyhow::Result<&FakeNode> {
        Ok(&self.nodes.get(index).context("no such node")?.2)
    }

    async fn status(&self, node: &str) -> anyhow::Result<NodeNetworkProfileStatus> {
        let profiles = Api::<NodeNetworkProfile>::all(self.client.clone());
        profiles.get(node).await?.status.context("no status yet")
    }

    /// Waits until a profile's status is as wanted.
    async fn reported(
        &self,
        what: &str,
        node: &str,
        is: impl Fn(&NodeNetworkProfileStatus) -> bool,
    ) -> anyhow::Result<NodeNetworkProfileStatus> {
        let status = eventually(what, SOON, || async {
            let status = self.status(node).await?;
            ensure!(is(&status), "{status:?}");
            anyhow::Ok(status)
        });
        Ok(status.await?)
    }

    /// Waits until a sysctl of a node holds a value.
    async fn holds(&self, index: usize, sysctl: &str, value: &str) -> anyhow::Result<()> {
        let node = self.node(index)?;
        eventually(&format!("{sysctl} = {value}"), SOON, || async {
            let held = node.sysctl(sysctl)?;
            ensure!(held == value, "{held}");
            anyhow::Ok(())
        })
        .await?;
        Ok(())
    }
}

fn is_ready(status: &NodeNetworkProfileStatus) -> bool {
    conditions::is_true(&status.conditions, conditions::READY)
}

fn state(status: &NodeNetworkProfileStatus, sysctl: &str) -> Option<KeyState> {
    let found = status
        .sysctls
        .iter()
        .find(|reported| reported.name == sysctl)?;
    Some(found.state)
}

#[tokio::test]
async fn a_tuning_reaches_every_node_and_is_seen_in_kubectl_get() -> anyhow::Result<()> {
    let cluster = Cluster::with_nodes(3).await?;
    cluster
        .apply("{neighbors: {}, conntrack: {}, ipvs: {}}")
        .await?;
    let row = "default   Enforce   3       3       0         0        8192         262144          AllNodesReady";
    eventually("three ready nodes in kubectl get", SOON, || async {
        let table = cluster.control_plane.kubectl_ok(&["get", "nnt"]).await?;
        ensure!(table.contains(row), "{table}");
        anyhow::Ok(())
    })
    .await?;
    for index in 0..3 {
        let node = cluster.node(index)?;
        assert_eq!(node.sysctl(THRESH3)?, "8192");
        assert_eq!(node.sysctl("net.ipv6.neigh.default.gc_thresh2")?, "4096");
        assert_eq!(node.sysctl(CONNTRACK_MAX)?, "262144");
        assert_eq!(node.sysctl("net.ipv4.vs.conn_reuse_mode")?, "1");
    }
    let status = cluster.status("node-1").await?;
    ensure!(
        status
            .sysctls
            .iter()
            .all(|sysctl| sysctl.state == KeyState::Applied),
        "{status:?}"
    );
    let thresh3 = status
        .sysctls
        .iter()
        .find(|sysctl| sysctl.name == THRESH3)
        .context(THRESH3)?;
    assert_eq!(
        (thresh3.observed.as_deref(), thresh3.original.as_deref()),
        (Some("8192"), Some("1024"))
    );
    let table = cluster.control_plane.kubectl_ok(&["get", "nnp"]).await?;
    ensure!(
        table
            .lines()
            .filter(|line| line
                .split_whitespace()
                .skip(2)
                .take(2)
                .eq(["True", "False"]))
            .count()
            == 3,
        "{table}"
    );
    Ok(())
}

#[tokio::test]
async fn drift_is_undone_counted_and_reported() -> anyhow::Result<()> {
    let cluster = Cluster::with_nodes(1).await?;
    cluster.apply("{neighbors: {}}").await?;
    cluster
        .reported("the node to be ready", "node-0", is_ready)
        .await?;
    let began = Instant::now();
    cluster.node(0)?.set_sysctl(THRESH3, "5000")?;
    cluster.holds(0, THRESH3, "8192").await?;
    // The look is every 100 ms; the rest is this test's own polling on a busy machine.
    ensure!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let counted = |status: &NodeNetworkProfileStatus| {
        status
            .sysctls
            .iter()
            .any(|sysctl| sysctl.name == THRESH3 && sysctl.drift_count == 1)
    };
    let status = cluster
        .reported("the drift to be counted", "node-0", counted)
        .await?;
    ensure!(is_ready(&status) && !conditions::is_true(&status.conditions, conditions::DRIFTED));
    Ok(())
}

#[tokio::test]
async fn observe_writes_nothing_and_apply_once_leaves_drift() -> anyhow::Result<()> {
    let cluster = Cluster::with_nodes(1).await?;
    cluster.apply("{mode: Observe, neighbors: {}}").await?;
    let drifted = |status: &NodeNetworkProfileStatus| {
        conditions::is_true(&status.conditions, conditions::DRIFTED)
    };
    let status = cluster
        .reported("the difference to be reported", "node-0", drifted)
        .await?;
    assert_eq!(state(&status, THRESH3), Some(KeyState::Drifted));
    assert_eq!(cluster.node(0)?.sysctl(THRESH3)?, "1024");

    cluster.apply("{mode: ApplyOnce, neighbors: {}}").await?;
    cluster.holds(0, THRESH3, "8192").await?;
    cluster
        .reported("the node to be ready", "node-0", |status| {
            is_ready(status) && !drifted(status)
        })
        .await?;
    cluster.node(0)?.set_sysctl(THRESH3, "7000")?;
    cluster
        .reported("the drift to be reported", "node-0", drifted)
        .await?;
    assert_eq!(cluster.node(0)?.sysctl(THRESH3)?, "7000");
    Ok(())
}

#[tokio::test]
async fn restore_puts_originals_back_and_retain_leaves_values() -> anyhow::Result<()> {
    let cluster = Cluster::with_nodes(1).await?;
    cluster.node(0)?.set_sysctl(SOMAXCONN, "128")?;
    let spec = "sysctls: [{name: net.core.somaxconn, value: '4096'}]";
    cluster
        .apply(&format!("{{releasePolicy: Restore, {spec}}}"))
        .await?;
    cluster.holds(0, SOMAXCONN, "4096").await?;
    cluster
        .control_plane
        .kubectl_ok(&["delete", "nnt", "default"])
        .await?;
    cluster.holds(0, SOMAXCONN, "128").await?;
    // Its profile stays for a minute, in which it shows what became of the node.
    let is_released = |status: &NodeNetworkProfileStatus| {
        conditions::is_true(&status.conditions, conditions::RELEASED)
    };
    cluster
        .reported("the release to be reported", "node-0", is_released)
        .await?;
    let profiles = Api::<NodeNetworkProfile>::all(cluster.client.clone());
    let gone = || async {
        let left = profiles.get_opt("node-0").await?;
        ensure!(left.is_none(), "{left:?}");
        anyhow::Ok(())
    };

    cluster
        .apply(&format!("{{releasePolicy: Retain, {spec}}}"))
        .await?;
    cluster.holds(0, SOMAXCONN, "4096").await?;
    cluster
        .control_plane
        .kubectl_ok(&["delete", "nnt", "default"])
        .await?;
    eventually("the profile to go", SOON, gone).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.node(0)?.sysctl(SOMAXCONN)?, "4096");
    Ok(())
}

#[tokio::test]
async fn a_key_of_an_unloaded_module_waits_and_blocks_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::with_nodes(1).await?;
    let key = "net.ipv4.vs.conn_reuse_mode";
    let node = cluster.node(0)?;
    for name in [
        "conn_reuse_mode",
        "expire_nodest_conn",
        "expire_quiescent_template",
    ] {
        node.remove_sysctl(&format!("net.ipv4.vs.{name}"))?;
    }
    cluster.apply("{ipvs: {}, neighbors: {}}").await?;
    let status = cluster
        .reported("the node to be ready", "node-0", is_ready)
        .await?;
    assert_eq!(state(&status, key), Some(KeyState::Waiting));
    node.set_sysctl(key, "0")?;
    cluster.holds(0, key, "1").await?;
    Ok(())
}

#[tokio::test]
async fn a_value_that_the_kernel_refuses_fails_alone_and_is_named_on_the_tuning()
-> anyhow::Result<()> {
    let cluster = Cluster::with_nodes(1).await?;
    // A directory in place of the file: every write to it is refused, also for root.
    let node = cluster.node(0)?;
    node.remove_sysctl(SOMAXCONN)?;
    std::fs::create_dir(node.sysctl_root().join("net/core/somaxconn"))?;
    cluster
        .apply("{neighbors: {}, sysctls: [{name: net.core.somaxconn, value: '4096'}]}")
        .await?;
    let failed =
        |status: &NodeNetworkProfileStatus| state(status, SOMAXCONN) == Some(KeyState::Failed);
    let status = cluster
        .reported("the key to fail", "node-0", failed)
        .await?;
    assert_eq!(state(&status, THRESH3), Some(KeyState::Applied));
    eventually("the tuning to name it", SOON, || async {
        let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].reason} {.status.conditions[?(@.type=="Ready")].message}"#;
        let said = cluster.control_plane.kubectl_ok(&["get", "nnt", "default", "-o", ready]).await?;
        ensure!(said.starts_with("NodesFailed") && said.contains("node-0") && said.contains("somaxconn"), "{said}");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_applies_what_it_knows_before_it_reaches_the_api_server() -> anyhow::Result<()> {
    let mut cluster = Cluster::with_nodes(1).await?;
    cluster.apply("{neighbors: {}}").await?;
    cluster
        .reported("the node to be ready", "node-0", is_ready)
        .await?;
    let (name, mut agent, node) = cluster.nodes.pop().context("a node")?;
    let status = agent.process_mut().stop()?;
    ensure!(status.success(), "{status}");
    cluster.control_plane.kill_api_server()?;
    node.set_sysctl(THRESH3, "1024")?;
    let agent = Program::agent(&cluster.control_plane, &name, &node, &[]).await?;
    eventually(
        "the value to be back without an API server",
        SOON,
        || async {
            let held = node.sysctl(THRESH3)?;
            ensure!(held == "8192", "{held}\n{}", agent.process().log());
            anyhow::Ok(())
        },
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_fixed_value_goes_out_in_waves_and_a_limit_beside_it_at_once() -> anyhow::Result<()> {
    let cluster = Cluster::with_nodes(4).await?;
    for index in 0..4 {
        cluster.node(index)?.set_sysctl(SOMAXCONN, "128")?;
    }
    let spec = "neighbors: {}, sysctls: [{name: net.core.somaxconn, value: '4096'}]";
    cluster
        .apply(&format!("{{rollout: {{paused: true}}, {spec}}}"))
        .await?;
    for index in 0..4 {
        cluster.holds(index, THRESH3, "8192").await?;
    }
    for index in 0..4 {
        assert_eq!(cluster.node(index)?.sysctl(SOMAXCONN)?, "128", "paused");
    }
    let began = Instant::now();
    cluster
        .apply(&format!("{{rollout: {{minReadySeconds: 2}}, {spec}}}"))
        .await?;
    for index in 0..4 {
        cluster.holds(index, SOMAXCONN, "4096").await?;
    }
    // One, one more when that has passed, then two.
    ensure!(
        began.elapsed() >= Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    let profiles = Api::<NodeNetworkProfile>::all(cluster.client.clone());
    for profile in profiles.list(&ListParams::default()).await?.items {
        ensure!(profile.spec.canary, "{:?}", profile.metadata.name);
    }
    eventually("the tuning to be done", SOON, || async {
        let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].reason}"#;
        let said = cluster
            .control_plane
            .kubectl_ok(&["get", "nnt", "default", "-o", ready])
            .await?;
        ensure!(said == "AllNodesReady", "{said}");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_stopped_agent_is_unresponsive_until_it_comes_back() -> anyhow::Result<()> {
    let mut cluster = Cluster::with_nodes(1).await?;
    cluster
        .apply("{rollout: {nodeDeadlineSeconds: 1}, neighbors: {}}")
        .await?;
    cluster
        .reported("the node to be ready", "node-0", is_ready)
        .await?;
    let (name, mut agent, node) = cluster.nodes.pop().context("a node")?;
    agent.process_mut().stop()?;
    let rebooted = |boot_id: &str| NodeSpec {
        boot_id: boot_id.to_owned(),
        pods: 64,
        ..NodeSpec::worker(&name, 0)
    };
    let first = NodeSpec::worker(&name, 0).boot_id;
    nodes::update_status(&cluster.client, &rebooted("another")).await?;
    let is_silent = |status: &NodeNetworkProfileStatus| {
        let ready = conditions::find(&status.conditions, conditions::READY);
        ready.is_some_and(|ready| ready.status == "Unknown" && ready.reason == "AgentUnresponsive")
    };
    let status = cluster
        .reported("the profile to say so", &name, is_silent)
        .await?;
    // The agent's own conditions stay.
    ensure!(conditions::find(&status.conditions, conditions::DRIFTED).is_some());
    ensure!(!status.sysctls.is_empty());
    let counted = [
        "get",
        "nnt",
        "default",
        "-o",
        "jsonpath={.status.nodes.unresponsive}",
    ];
    eventually("the tuning to count it", SOON, || async {
        let unresponsive = cluster.control_plane.kubectl_ok(&counted).await?;
        ensure!(unresponsive == "1", "{unresponsive}");
        anyhow::Ok(())
    })
    .await?;
    nodes::update_status(&cluster.client, &rebooted(&first)).await?;
    let _agent = Program::agent(&cluster.control_plane, &name, &node, &[]).await?;
    cluster
        .reported("the node to be ready again", &name, is_ready)
        .await?;
    Ok(())
}

#[tokio::test]
async fn the_startup_taint_goes_when_the_node_is_tuned_and_other_taints_stay() -> anyhow::Result<()>
{
    let cluster = Cluster::with(1, &["--startup-taint"]).await?;
    let taint = [
        "taint",
        "node",
        "node-0",
        "nettune.dev/not-ready=:NoSchedule",
        "own=a:NoSchedule",
    ];
    cluster.control_plane.kubectl_ok(&taint).await?;
    cluster.apply("{neighbors: {}}").await?;
    eventually("the taint to go", SOON, || async {
        let taints = [
            "get",
            "node",
            "node-0",
            "-o",
            "jsonpath={.spec.taints[*].key}",
        ];
        let left = cluster.control_plane.kubectl_ok(&taints).await?;
        ensure!(
            !left.contains("nettune.dev") && left.contains("own"),
            "{left}"
        );
        anyhow::Ok(())
    })
    .await?;
    ensure!(is_ready(&cluster.status("node-0").await?));
    Ok(())
}
