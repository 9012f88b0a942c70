//! Memory, and the time from the start to the first decision, against a bare list.

use std::time::{Duration, Instant};

use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client};
use nettune_crds::NodeNetworkTuning;
use nettune_planner::ObservedNode;
use nettune_tests::{Program, eventually};
use serde::de::DeserializeOwned;

use crate::cluster::{self, Parsed};
use crate::report::{DesiredState, Report, median};

const MIB: f64 = 1024.0;

/// What kube's watcher asks for at once.
const PAGE: u32 = 500;

pub(crate) async fn measure(report: &mut Report, nodes: u16, runs: usize) -> anyhow::Result<()> {
    report.doing(&format!("start: creating {nodes} Nodes"));
    let (control_plane, client) = cluster::control_plane().await?;
    cluster::create_nodes(&client, 0, nodes).await?;
    control_plane.apply(&cluster::tuning(6_000)).await?;
    let mut watched = Parsed::begin(&client).await?;
    let mut operator = Program::operator(&control_plane, &[]).await?;
    report.doing("start: their profiles");
    let count = usize::from(nodes);
    watched
        .until("all profiles", |state| state.generations().count() == count)
        .await?;
    let written = peak(&operator)?;
    drop(watched);

    let (mut ours, mut bare, mut listed) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        report.doing(&format!("start: run {} of {runs}", run + 1));
        operator.process_mut().stop()?;
        bare.push(list_all(&client).await?.as_secs_f64());
        let began = Instant::now();
        operator = Program::operator(&control_plane, &[]).await?;
        decided(&operator).await?;
        ours.push(began.elapsed().as_secs_f64());
        listed.push(peak(&operator)?);
    }
    let (ours, bare) = (median(ours), median(bare));
    report.judged(
        format!("operator's peak memory, writing {nodes} profiles"),
        written,
        " MiB",
        "",
        DesiredState::Most(100.0),
    );
    report.judged(
        format!("operator's peak memory, started over {nodes} nodes and profiles"),
        median(listed),
        " MiB",
        "",
        DesiredState::Most(100.0),
    );
    report.judged(
        format!("start to first decision at {nodes} nodes, against a bare paged list"),
        ours / bare,
        "",
        &format!(" ({ours:.2} against {bare:.2} s)"),
        DesiredState::Most(1.2),
    );
    Ok(())
}

pub(crate) async fn decided(operator: &Program) -> anyhow::Result<()> {
    eventually("a first decision", Duration::from_secs(120), || async {
        let page = operator.get("/metrics").await?.body;
        let count = page
            .lines()
            .find_map(|line| line.strip_prefix("nettune_operator_decide_duration_seconds_count "));
        anyhow::ensure!(count.is_some_and(|count| count != "0"));
        Ok(())
    })
    .await?;
    Ok(())
}

/// The same objects, decoded into the same types, and nothing done with them. Like the watches they
/// are listed beside each other.
async fn list_all(client: &Client) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let resource = kube::api::ApiResource::erase::<nettune_crds::NodeNetworkProfile>(&());
    tokio::try_join!(
        list(Api::<ObservedNode>::all(client.clone())),
        list(Api::<NodeNetworkTuning>::all(client.clone())),
        list(Api::<DynamicObject>::all_with(client.clone(), &resource)),
    )?;
    Ok(began.elapsed())
}

async fn list<K: Clone + DeserializeOwned + std::fmt::Debug>(api: Api<K>) -> anyhow::Result<()> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => return Ok(()),
        }
    }
}

/// The most that was resident, in MiB.
fn peak(operator: &Program) -> anyhow::Result<f64> {
    resident(operator.process().id(), "VmHWM:")
}

/// A line of a process's status, in MiB.
pub(crate) fn resident(process: u32, line: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path)?;
    let kib: f64 = text
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .and_then(|line| line.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| anyhow::anyhow!("{path} has no {line}"))?;
    Ok(kib / MIB)
}

/// A sample of a page of metrics, by its name and labels.
pub(crate) fn metric(page: &str, name: &str) -> anyhow::Result<f64> {
    let sample = page.lines().find_map(|line| line.strip_prefix(name));
    let sample = sample.ok_or_else(|| anyhow::anyhow!("no metric {name}"))?;
    Ok(sample.trim().parse()?)
}
