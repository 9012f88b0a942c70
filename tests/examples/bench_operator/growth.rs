//! How often a node's profile is written while its cluster grows.

use nettune_tests::Program;

use crate::cluster::{self, Parsed};
use crate::report::{DesiredState, Report};

pub(crate) async fn measure(report: &mut Report, nodes: u16) -> anyhow::Result<()> {
    report.doing(&format!("growth: from 1 to {nodes} nodes"));
    let (control_plane, client) = cluster::control_plane().await?;
    let tuning = "{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {name: default}, \
                  spec: {neighbors: {podNetwork: Routed}, conntrack: {}, ipvs: {}}}";
    control_plane.apply(tuning).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    let mut watched = Parsed::begin(&client).await?;
    let mut there = 0;
    // In steps of half as many again, each of which is worked off: a cluster that grows at once would
    // be written once.
    while there < nodes {
        let next = nodes.min((there + there / 2).max(there + 1));
        cluster::create_nodes(&client, there, next).await?;
        there = next;
        watched.agreement(usize::from(there), "").await?;
        report.doing(&format!("growth: {there} nodes"));
    }
    let state = watched.state();
    let most = state.generations().max().unwrap_or(0);
    let all: i64 = state.generations().sum();
    // A generation is 1 when the object is made.
    report.judged(
        format!("rewrites of a profile while growing from 1 to {nodes} nodes, the most"),
        (most - 1) as f64,
        "",
        &format!(" ({:.2} on average)", (all as f64 / f64::from(nodes)) - 1.0),
        DesiredState::Most(5.0),
    );
    report.judged(
        "… writes that changed no value",
        state.without_a_change as f64,
        "",
        "",
        DesiredState::Most(0.0),
    );
    Ok(())
}
