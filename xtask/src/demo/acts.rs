//! The acts of the demo, one function each.

use std::time::{Duration, Instant};

use nettune_tests::{NodeSpec, eventually, nodes};

use super::show::{heading, note};
use super::stage::{GROWN, KERNEL_NODE, NODES, PODS, Stage};

const DEADLINE: Duration = Duration::from_secs(60);
const THRESHOLD: &str = "net.ipv4.neigh.default.gc_thresh3";
/// Reads the kernel's values with sysctl(8).
const VALUES: &str = "sysctl net.ipv4.neigh.default.gc_thresh1 net.ipv4.neigh.default.gc_thresh2 \
     net.ipv4.neigh.default.gc_thresh3 net.netfilter.nf_conntrack_max net.ipv4.vs.conn_reuse_mode";

/// The values before and after `kubectl apply`.
pub(super) async fn apply(stage: &Stage) -> anyhow::Result<()> {
    heading("Apply a tuning: the kernel's values before and after")?;
    stage.in_guest(VALUES).await?;
    let applied = Instant::now();
    stage
        .kubectl(&["apply", "-f", "examples/all-at-once.yaml"])
        .await?;
    stage
        .kubectl(&[
            "wait",
            "nnt",
            "default",
            "--for=condition=Ready",
            "--timeout=60s",
        ])
        .await?;
    note(&format!(
        "Ready {:.1} s after it was applied.",
        applied.elapsed().as_secs_f32()
    ))?;
    stage.in_guest(VALUES).await?;
    stage.kubectl(&["get", "nnt"]).await?;
    stage.kubectl(&["get", "nnp"]).await
}

/// Grows the cluster from 3 nodes to 605.
pub(super) async fn grow(stage: &Stage) -> anyhow::Result<()> {
    heading(&format!("Grow the cluster to {GROWN} nodes"))?;
    let before = stage.guest.sysctl(THRESHOLD).await?;
    let started = Instant::now();
    let worker = |index| NodeSpec {
        pods: PODS,
        ..NodeSpec::worker(&format!("node-{index}"), index)
    };
    nodes::create_many(&stage.client, (NODES..GROWN).map(worker)).await?;
    note(&format!(
        "Created {} more Nodes in {:.1} s.",
        GROWN - NODES,
        started.elapsed().as_secs_f32()
    ))?;
    eventually("another size in the guest's kernel", DEADLINE, || async {
        match stage.guest.sysctl(THRESHOLD).await {
            Ok(value) if value != before => Ok(()),
            Ok(value) => Err(format!("{THRESHOLD} is still {value}")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    let seconds = started.elapsed().as_secs_f32();
    note(&format!(
        "The guest's kernel has the new size {seconds:.1} s after the first one was created."
    ))?;
    stage.in_guest(VALUES).await?;
    let all = format!("--for=jsonpath={{.status.nodes.selected}}={GROWN}");
    stage
        .kubectl(&["wait", "nnt", "default", &all, "--timeout=60s"])
        .await?;
    stage.kubectl(&["get", "nnt"]).await?;
    note(&format!(
        "{NODES} nodes are ready. The others are Node objects without an agent."
    ))
}

/// Another process in the guest changes a value: nettune counts it, reports it and restores the value.
pub(super) async fn lower_a_threshold(stage: &Stage) -> anyhow::Result<()> {
    heading("Another process lowers gc_thresh3")?;
    let before = stage.guest.sysctl(THRESHOLD).await?;
    stage
        .in_guest(&format!("sysctl -w {THRESHOLD}=1024"))
        .await?;
    let written = Instant::now();
    eventually("the value to come back", DEADLINE, || async {
        match stage.guest.sysctl(THRESHOLD).await {
            Ok(value) if value == before => Ok(()),
            Ok(value) => Err(format!("{THRESHOLD} is {value}")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    note(&format!(
        "Restored within {:.1} s.",
        written.elapsed().as_secs_f32()
    ))?;
    stage.in_guest(&format!("sysctl {THRESHOLD}")).await?;
    wait_for_the_report(stage).await?;
    stage
        .kubectl(&["get", "nnp", KERNEL_NODE, "-o", DRIFTS])
        .await?;
    stage
        .in_guest("grep gc_thresh3 /var/log/agent.log | tail -n 1")
        .await
}

const DRIFTS: &str = r#"jsonpath={range .status.sysctls[?(@.driftCount>0)]}{.name} drifted: {.driftCount}{"\n"}{end}"#;

async fn wait_for_the_report(stage: &Stage) -> anyhow::Result<()> {
    eventually("the drift in the profile's status", DEADLINE, || async {
        match stage
            .control_plane
            .kubectl_ok(&["get", "nnp", KERNEL_NODE, "-o", DRIFTS])
            .await
        {
            Ok(text) if text.contains(THRESHOLD) => Ok(()),
            Ok(_) => Err("no drift is reported".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    Ok(())
}

/// The API server refuses thresholds in the wrong order, with a helpful message.
pub(super) async fn apply_what_is_wrong(stage: &Stage) -> anyhow::Result<()> {
    heading("A tuning with thresholds in the wrong order never reaches a node")?;
    stage.kubectl_refuses(WRONG).await
}

const WRONG: &str = "\
apiVersion: nettune.dev/v1alpha1
kind: NodeNetworkTuning
metadata: {name: wrong}
spec:
  neighbors:
    thresholds: {gcThresh1: 8192, gcThresh2: 4096, gcThresh3: 1024}
";
