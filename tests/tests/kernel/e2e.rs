//! End to end: from `kubectl apply` to a real kernel's tables, and back into the status.
//!
//! The kernel is read through sysctl(8) in the guest, never through the agent.

use std::time::Duration;

use nettune_tests::{
    ControlPlane, ControlPlaneConfig, Guest, GuestConfig, NodeSpec, Program, eventually, nodes,
};

pub(crate) const NODE: &str = "kernel-0";
const DEADLINE: Duration = Duration::from_secs(60);
const THRESHOLD: &str = "net.ipv4.neigh.default.gc_thresh3";
const REUSE: &str = "net.ipv4.vs.conn_reuse_mode";
const EXPIRE: &str = "net.ipv4.vs.expire_nodest_conn";

const TUNING: &str = "
apiVersion: nettune.dev/v1alpha1
kind: NodeNetworkTuning
metadata: {name: default}
spec: {neighbors: {}, conntrack: {}, ipvs: {}, rollout: {type: AllAtOnce}}
";

pub(crate) struct Cluster {
    operator: Program,
    pub(crate) guest: Guest,
    pub(crate) control_plane: ControlPlane,
}

impl Cluster {
    /// A control plane with an operator, and a guest of 3.5 GiB with 64 pods as its only node.
    pub(crate) async fn start(
        change: impl FnOnce(GuestConfig) -> GuestConfig,
    ) -> anyhow::Result<Self> {
        let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
        control_plane.install_crds().await?;
        let operator = Program::operator(&control_plane, &[]).await?;
        let config = GuestConfig {
            memory_mib: 3584,
            ..GuestConfig::joining(&control_plane)?
        };
        let guest = Guest::boot(change(config)).await?;
        let node = NodeSpec {
            pods: 64,
            ..guest.node_spec(NODE, 0).await?
        };
        nodes::create(&control_plane.client().await?, &node).await?;
        guest.start_agent(NODE, &[]).await?;
        Ok(Self {
            operator,
            guest,
            control_plane,
        })
    }

    async fn apply_and_wait_until_ready(&self) -> anyhow::Result<()> {
        self.control_plane.apply(TUNING).await?;
        let wait = [
            "wait",
            "nnt",
            "default",
            "--for=condition=Ready",
            "--timeout=60s",
        ];
        self.control_plane.kubectl_ok(&wait).await?;
        Ok(())
    }

    pub(crate) async fn kernel_has(&self, name: &str, wanted: &str) -> anyhow::Result<()> {
        eventually(
            &format!("{name} = {wanted} in the guest"),
            DEADLINE,
            || async {
                match self.guest.sysctl(name).await {
                    Ok(value) if value == wanted => Ok(()),
                    Ok(value) => Err(format!("it is {value}")),
                    Err(error) => Err(error.to_string()),
                }
            },
        )
        .await?;
        Ok(())
    }

    /// Waits until a field of one sysctl in the profile's status has this value.
    async fn status_has(&self, sysctl: &str, field: &str, wanted: &str) -> anyhow::Result<()> {
        let path = format!("jsonpath={{.status.sysctls[?(@.name==\"{sysctl}\")].{field}}}");
        eventually(
            &format!("{field} of {sysctl} to be {wanted}"),
            DEADLINE,
            || async {
                match self
                    .control_plane
                    .kubectl_ok(&["get", "nnp", NODE, "-o", &path])
                    .await
                {
                    Ok(value) if value == wanted => Ok(()),
                    Ok(value) => Err(format!("it is {value:?}")),
                    Err(error) => Err(error.to_string()),
                }
            },
        )
        .await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_tuning_reaches_the_kernel_and_grows_with_the_cluster() -> anyhow::Result<()> {
    let cluster = Cluster::start(|config| config).await?;
    assert_eq!(cluster.guest.sysctl(THRESHOLD).await?, "1024");

    cluster.apply_and_wait_until_ready().await?;
    assert_eq!(cluster.guest.sysctl(THRESHOLD).await?, "8192");
    assert_eq!(
        cluster
            .guest
            .sysctl("net.ipv6.neigh.default.gc_thresh3")
            .await?,
        "8192"
    );
    assert_eq!(
        cluster
            .guest
            .sysctl("net.netfilter.nf_conntrack_max")
            .await?,
        "262144"
    );
    assert_eq!(
        cluster
            .guest
            .sysctl("net.netfilter.nf_conntrack_buckets")
            .await?,
        "262144"
    );
    assert_eq!(cluster.guest.sysctl(EXPIRE).await?, "1");
    cluster.status_has(THRESHOLD, "observed", "8192").await?;
    cluster.status_has(THRESHOLD, "original", "1024").await?;

    let worker = |index| NodeSpec {
        pods: 64,
        ..NodeSpec::worker(&format!("node-{index}"), index)
    };
    nodes::create_many(&cluster.control_plane.client().await?, (1..605).map(worker)).await?;
    cluster.kernel_has(THRESHOLD, "16384").await?;
    cluster.status_has(THRESHOLD, "observed", "16384").await
}

#[tokio::test]
async fn a_value_lowered_by_another_process_is_restored_and_counted() -> anyhow::Result<()> {
    let cluster = Cluster::start(|config| config).await?;
    cluster.apply_and_wait_until_ready().await?;

    cluster.guest.set_sysctl(THRESHOLD, "1024").await?;
    cluster.kernel_has(THRESHOLD, "8192").await?;
    cluster.status_has(THRESHOLD, "driftCount", "1").await?;
    assert!(cluster.operator.get("/healthz").await?.status == 200);
    Ok(())
}

#[tokio::test]
async fn keys_of_a_module_are_set_when_it_is_loaded() -> anyhow::Result<()> {
    let cluster = Cluster::start(|config| config.without_module("ip_vs")).await?;
    cluster.apply_and_wait_until_ready().await?;
    cluster.status_has(REUSE, "state", "Waiting").await?;
    assert_eq!(cluster.guest.sysctl(THRESHOLD).await?, "8192");

    cluster.guest.load_module("ip_vs").await?;
    cluster.kernel_has(EXPIRE, "1").await?;
    cluster.status_has(EXPIRE, "state", "Applied").await
}
