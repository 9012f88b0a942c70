//! A node that joins a large cluster, and what the cluster asks of the API server when nothing happens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use nettune_tests::{FakeNode, Program};
use serde_json::json;

use crate::cluster::{self, Parsed};
use crate::fleet::Fleet;
use crate::report::{DesiredState, Report};

/// What the arriving agents wait for, and what it is before.
const KEY: &str = "net.ipv4.neigh.default.gc_thresh3";

/// How long the API server is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(60);

/// A node that takes longer than this has not been tuned.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) async fn measure(report: &mut Report, nodes: u16, agents: u16) -> anyhow::Result<()> {
    report.doing(&format!("arrival: {nodes} nodes with an agent each"));
    let (control_plane, client) = cluster::control_plane().await?;
    cluster::create_nodes(&client, 0, nodes).await?;
    let fleet = Fleet::start(control_plane.kubeconfig(), nodes);
    control_plane.apply(&cluster::tuning(6_000)).await?;
    let operator = Program::operator(&control_plane, &[]).await?;
    let mut watched = Parsed::begin(&client).await?;
    watched.agreement(usize::from(nodes), "").await?;
    drop(watched);

    report.doing(&format!("arrival: {agents} agents as they ship"));
    let mut arriving = Vec::new();
    for index in nodes..nodes + agents {
        let node = FakeNode::new(&cluster::boot_id(index))?;
        let agent = Program::agent(&control_plane, &cluster::name(index), &node, &[]).await?;
        arriving.push((index, node, agent));
    }
    let mut took = Vec::new();
    for (index, node, _) in &arriving {
        // One at a time, and not in step with anything.
        tokio::time::sleep(Duration::from_millis(137)).await;
        took.push(arrive(&client, *index, node).await?.as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    let at = |part: usize| {
        took.get(took.len() * part / 100)
            .copied()
            .unwrap_or(f64::NAN)
    };
    let what = format!(
        "a Node is created, podCIDR set, in a cluster of {nodes}, until its agent has applied"
    );
    report.judged(
        format!("{what}: median of {agents}"),
        at(50),
        " ms",
        "",
        DesiredState::Most(100.0),
    );
    report.judged(
        format!("{what}: 99th percentile"),
        at(99),
        " ms",
        "",
        DesiredState::Most(500.0),
    );

    report.doing("idle: waiting for the last statuses");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = requests(&client).await?;
    report.doing("idle: a minute without a change");
    tokio::time::sleep(IDLE).await;
    let after = requests(&client).await?;
    anyhow::ensure!(fleet.running() == usize::from(nodes), "agents have ended");
    let mut kinds: Vec<(f64, String)> = after
        .into_iter()
        .map(|(kind, count)| {
            let earlier = before.get(&kind).copied().unwrap_or(0.0);
            ((count - earlier) / IDLE.as_secs_f64(), kind)
        })
        .filter(|(rate, _)| *rate > 0.0)
        .collect();
    kinds.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let all: f64 = kinds.iter().map(|(rate, _)| rate).sum();
    let most: Vec<String> = kinds
        .iter()
        .take(4)
        .map(|(rate, kind)| format!("{kind} {rate:.2}"))
        .collect();
    report.judged(
        format!(
            "requests of the operator and {} agents while nothing happens",
            nodes + agents
        ),
        all,
        "/s",
        &format!(" ({})", most.join(", ")),
        DesiredState::Most(5.0),
    );
    drop((fleet, arriving, operator));
    Ok(())
}

/// From the Node's creation to its kernel holding the value.
async fn arrive(client: &Client, index: u16, on: &FakeNode) -> anyhow::Result<Duration> {
    let nodes = Api::<Node>::all(client.clone());
    let before = on.sysctl(KEY)?;
    let mut node = cluster::node(index);
    let cidrs = node
        .spec
        .as_mut()
        .map(|spec| (spec.pod_cidr.take(), spec.pod_cidrs.take()));
    let began = Instant::now();
    nodes.create(&PostParams::default(), &node).await?;
    let (pod_cidr, pod_cidrs) = cidrs.context("a spec")?;
    let patch = json!({"spec": {"podCIDR": pod_cidr, "podCIDRs": pod_cidrs}});
    nodes
        .patch(
            &cluster::name(index),
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await?;
    while on.sysctl(KEY)? == before {
        anyhow::ensure!(
            began.elapsed() < DEADLINE,
            "{} was not tuned",
            cluster::name(index)
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(began.elapsed())
}

/// Requests by verb and resource, of those that nettune asks for. The Lease's are counted with the API
/// server's own.
async fn requests(client: &Client) -> anyhow::Result<BTreeMap<String, f64>> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = client.request_text(request).await?;
    let mut counts = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{"))
    {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else {
            continue;
        };
        let ours = [
            "nodes",
            "nodenetworktunings",
            "nodenetworkprofiles",
            "leases",
            "events",
        ];
        let count = line
            .rsplit(' ')
            .next()
            .and_then(|count| count.parse::<f64>().ok());
        if let (true, Some(count)) = (ours.contains(&resource.as_str()), count) {
            *counts.entry(format!("{verb} {resource}")).or_insert(0.0) += count;
        }
    }
    Ok(counts)
}
