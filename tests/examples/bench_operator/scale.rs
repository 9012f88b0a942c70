//! What the operator costs at each size of the cluster.

use std::path::Path;
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use nettune_crds::NodeNetworkTuning;
use nettune_tests::{ControlPlane, Program};
use serde_json::json;

use crate::cluster::{self, Parsed};
use crate::plot::{self, Plot};
use crate::report::Report;
use crate::start::{decided, metric, resident};

/// The sizes, up to the one that is asked for.
const SIZES: [u16; 8] = [10, 50, 200, 500, 1_000, 2_000, 5_000, 15_000];

/// What was measured at one size.
struct Point {
    nodes: u16,
    operator_mib: f64,
    api_server_mib: f64,
    decide_ms: f64,
    rewrite_s: f64,
    start_s: f64,
}

/// One cluster that grows; where `plots` is given, the plots are written there.
pub(crate) async fn measure(
    report: &mut Report,
    most: u16,
    plots: Option<&Path>,
) -> anyhow::Result<()> {
    let (control_plane, client) = cluster::control_plane().await?;
    control_plane.apply(&tuning(0)).await?;
    let mut watched = Parsed::begin(&client).await?;
    let mut operator = Program::operator(&control_plane, &[]).await?;
    let (mut there, mut points) = (0, Vec::new());
    for (nodes, value) in SIZES.into_iter().filter(|size| *size <= most).zip(1..) {
        report.doing(&format!("scale: {nodes} nodes"));
        cluster::create_nodes(&client, there, nodes).await?;
        there = nodes;
        let count = usize::from(nodes);
        watched
            .until("all profiles", |state| state.generations().count() == count)
            .await?;
        let rewrite = rewrite(&client, &mut watched, &operator, value).await?;
        let operator_mib = resident(operator.process().id(), "VmRSS:")?;
        operator.process_mut().stop()?;
        let began = Instant::now();
        operator = Program::operator(&control_plane, &[]).await?;
        decided(&operator).await?;
        points.push(Point {
            nodes,
            operator_mib,
            api_server_mib: resident(api_server(&control_plane)?, "VmRSS:")?,
            decide_ms: rewrite.decide_ms,
            rewrite_s: rewrite.took.as_secs_f64(),
            start_s: began.elapsed().as_secs_f64(),
        });
    }
    for point in &points {
        report.figure(
            format!("scale: {} nodes", point.nodes),
            format!(
                "operator {:.0} MiB, API server {:.0} MiB, a decision {:.2} ms, all profiles rewritten in {:.2} s, \
                 first decision {:.2} s after the start",
                point.operator_mib,
                point.api_server_mib,
                point.decide_ms,
                point.rewrite_s,
                point.start_s
            ),
        );
    }
    if let Some(folder) = plots {
        draw(folder, &points)?;
    }
    Ok(())
}

struct Rewrite {
    took: Duration,
    decide_ms: f64,
}

/// Another value for every node, at once.
async fn rewrite(
    client: &Client,
    watched: &mut Parsed,
    operator: &Program,
    value: u16,
) -> anyhow::Result<Rewrite> {
    let decisions = || async {
        let page = operator.get("/metrics").await?.body;
        let of = |end: &str| {
            metric(
                &page,
                &format!("nettune_operator_decide_duration_seconds_{end} "),
            )
        };
        anyhow::Ok((of("sum")?, of("count")?))
    };
    let before: Vec<i64> = watched.state().generations().collect();
    let (sum, count) = decisions().await?;
    let began = Instant::now();
    let tunings = Api::<NodeNetworkTuning>::all(client.clone());
    let patch = json!({"spec": {"sysctls": [{"name": "net.core.somaxconn", "value": (4_096 + value).to_string()}]}});
    tunings
        .patch("default", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    watched
        .until("all profiles to be rewritten", |state| {
            state
                .generations()
                .zip(&before)
                .all(|(now, before)| now > *before)
        })
        .await?;
    let took = began.elapsed();
    let (sum_then, count_then) = decisions().await?;
    Ok(Rewrite {
        took,
        decide_ms: (sum_then - sum) / (count_then - count) * 1e3,
    })
}

/// The tuning of the other parts, with a value that goes out to all nodes at once.
fn tuning(value: u16) -> String {
    format!(
        "{{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {{name: default}}, \
         spec: {{neighbors: {{podNetwork: Routed, sizeForNodes: 20000}}, conntrack: {{}}, ipvs: {{}}, \
         rollout: {{type: AllAtOnce}}, sysctls: [{{name: net.core.somaxconn, value: '{}'}}]}}}}",
        4_096 + value
    )
}

fn api_server(control_plane: &ControlPlane) -> anyhow::Result<u32> {
    control_plane
        .api_server_id()
        .ok_or_else(|| anyhow::anyhow!("the API server does not run"))
}

fn draw(folder: &Path, points: &[Point]) -> anyhow::Result<()> {
    let of = |what: fn(&Point) -> f64| -> Vec<(f64, f64)> {
        points
            .iter()
            .map(|point| (f64::from(point.nodes), what(point)))
            .collect()
    };
    let plots = [
        Plot {
            file: "memory.svg",
            title: "Resident memory",
            unit: "MiB",
            lines: vec![
                ("operator", of(|point| point.operator_mib)),
                ("API server", of(|point| point.api_server_mib)),
            ],
        },
        Plot {
            file: "decide.svg",
            title: "One decision over the whole cluster",
            unit: "ms",
            lines: vec![("decide", of(|point| point.decide_ms))],
        },
        Plot {
            file: "time.svg",
            title: "Time until it is done",
            unit: "s",
            lines: vec![
                ("every profile rewritten", of(|point| point.rewrite_s)),
                ("start to the first decision", of(|point| point.start_s)),
            ],
        },
    ];
    plots.iter().try_for_each(|plot| plot::draw(folder, plot))
}
