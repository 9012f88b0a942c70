//! The demo's cluster: a control plane, the operator, one real kernel and two nodes over directories.

use std::path::Path;
use std::time::Instant;

use nettune_tests::artifacts::debian;
use nettune_tests::artifacts::tools::Tools;
use nettune_tests::{
    ControlPlane, ControlPlaneConfig, FakeNode, Guest, GuestConfig, NodeSpec, Program, nodes,
};

use super::show::{self, heading, note};

/// Nodes with an agent.
pub(super) const NODES: u16 = 3;
/// Nodes after the cluster has grown.
pub(super) const GROWN: u16 = 605;
/// Pods that each node can run.
pub(super) const PODS: u32 = 64;
/// The node with a kernel of its own.
pub(super) const KERNEL_NODE: &str = "kernel-0";
/// One percent of it holds the neighbor tables of the grown cluster, so that no cap hides the growth.
const GUEST_MEMORY_MIB: u32 = 3584;
/// Nodes whose agents run over directories, each with the index that its addresses derive from.
const FAKE_NODES: [(&str, u16); 2] = [("directory-1", 1), ("directory-2", 2)];

/// Everything that runs. The fields drop in this order: agents, operator, guest, control plane.
pub(super) struct Stage {
    _agents: Vec<(Program, FakeNode)>,
    _operator: Program,
    pub(super) guest: Guest,
    pub(super) control_plane: ControlPlane,
    pub(super) client: nettune_tests::kube::Client,
}

/// Installs or builds etcd, kube-apiserver, kubectl, QEMU and a kernel.
pub(super) fn get_tools() -> anyhow::Result<()> {
    debian::install_programs()?;
    debian::kernel()?;
    Tools::get()?;
    Ok(())
}

impl Stage {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let control_plane = start_control_plane().await?;
        let client = control_plane.client().await?;
        // The kernel boots while the rest is set up.
        let boot = boot(&control_plane);
        let (operator, (guest, booted_in)) =
            tokio::try_join!(start_operator(&control_plane), boot)?;
        note(&format!(
            "Node {KERNEL_NODE} is a Linux kernel in QEMU, booted in {booted_in:.1} s:"
        ))?;
        let agents = start_agents(&control_plane, &guest, &client).await?;
        let stage = Self {
            _agents: agents,
            _operator: operator,
            guest,
            control_plane,
            client,
        };
        stage.in_guest("uname -a").await?;
        let columns = "NAME:.metadata.name,PODS:.status.allocatable.pods,POD-CIDR:.spec.podCIDR,KERNEL:.status.nodeInfo.kernelVersion";
        stage
            .kubectl(&["get", "nodes", "-o", &format!("custom-columns={columns}")])
            .await?;
        Ok(stage)
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        self.control_plane.kubeconfig()
    }

    /// Runs kubectl and prints the command and its output.
    pub(super) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = kubectl(&self.control_plane, args).await?;
        anyhow::ensure!(
            output.status.success(),
            "`kubectl {}` ended with {}",
            args.join(" "),
            output.status
        );
        Ok(())
    }

    /// Applies YAML that must be refused, and prints the error.
    pub(super) async fn kubectl_refuses(&self, yaml: &str) -> anyhow::Result<()> {
        let output = self
            .control_plane
            .kubectl_reading(&["apply", "-f", "-"], yaml)
            .await?;
        let typed = format!("kubectl apply -f - <<EOF\n{yaml}EOF");
        show::command("$", &typed, &show::both(&output))?;
        anyhow::ensure!(!output.status.success(), "the API server accepted it");
        Ok(())
    }

    /// Runs a command in the guest and prints it with its output.
    pub(super) async fn in_guest(&self, command: &str) -> anyhow::Result<()> {
        let output = self.guest.ok(command).await?;
        show::command(&format!("{KERNEL_NODE}#"), command, &output)
    }
}

async fn kubectl(
    control_plane: &ControlPlane,
    args: &[&str],
) -> anyhow::Result<std::process::Output> {
    let output = control_plane.kubectl(args).await?;
    show::command(
        "$",
        &format!("kubectl {}", show::typed(args)),
        &show::both(&output),
    )?;
    Ok(output)
}

async fn start_control_plane() -> anyhow::Result<ControlPlane> {
    heading("A control plane, the operator, and three nodes")?;
    let started = Instant::now();
    let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    let (port, seconds) = (control_plane.port(), started.elapsed().as_secs_f32());
    note(&format!(
        "etcd and kube-apiserver on 127.0.0.1:{port}, ready in {seconds:.1} s"
    ))?;
    Ok(control_plane)
}

async fn start_operator(control_plane: &ControlPlane) -> anyhow::Result<Program> {
    let output = kubectl(
        control_plane,
        &["apply", "--server-side", "-f", "crds/manifests"],
    )
    .await?;
    anyhow::ensure!(output.status.success(), "the CRDs were refused");
    control_plane.wait_for_crds().await?;
    let operator = Program::operator(control_plane, &[]).await?;
    note(&format!(
        "nettune-operator serves its metrics on {}",
        operator.address()
    ))?;
    Ok(operator)
}

async fn boot(control_plane: &ControlPlane) -> anyhow::Result<(Guest, f32)> {
    let started = Instant::now();
    let config = GuestConfig {
        memory_mib: GUEST_MEMORY_MIB,
        ..GuestConfig::joining(control_plane)?
    };
    let guest = Guest::boot(config).await?;
    Ok((guest, started.elapsed().as_secs_f32()))
}

/// The Node objects that kubelets would make, and an agent for each.
async fn start_agents(
    control_plane: &ControlPlane,
    guest: &Guest,
    client: &nettune_tests::kube::Client,
) -> anyhow::Result<Vec<(Program, FakeNode)>> {
    let kernel_node = guest.node_spec(KERNEL_NODE, 0).await?;
    nodes::create(
        client,
        &NodeSpec {
            pods: PODS,
            ..kernel_node
        },
    )
    .await?;
    guest.start_agent(KERNEL_NODE, &[]).await?;
    let mut agents = Vec::new();
    for (name, index) in FAKE_NODES {
        let worker = NodeSpec {
            pods: PODS,
            ..NodeSpec::worker(name, index)
        };
        let directory = FakeNode::new(&worker.boot_id)?;
        let worker = NodeSpec {
            kernel: directory.kernel_release().to_owned(),
            ..worker
        };
        nodes::create(client, &worker).await?;
        agents.push((
            Program::agent(control_plane, name, &directory, &[]).await?,
            directory,
        ));
    }
    Ok(agents)
}
