//! `cargo xtask bench operator`: the operator on a real API server, beside what the API server allows.
//!
//! Each figure stands beside its goal. Where a goal is a ratio, its baseline is measured in the same
//! run: the same writes by the same client in a bare loop, or a bare list that decodes the same
//! objects. With `--check` it exits with 1 where a goal is missed.

#![allow(clippy::print_stdout, reason = "a report is what it is for")]

mod arrival;
mod cluster;
mod fleet;
mod growth;
mod plot;
mod report;
mod resize;
mod rollout;
mod scale;
mod start;
mod ways;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::report::Report;

#[derive(Debug, Parser)]
struct Args {
    /// Nodes of the benchmarks that write
    #[arg(long, default_value_t = 5_000, value_name = "N")]
    nodes: u16,
    /// Nodes of the benchmarks of memory and of the start
    #[arg(long, default_value_t = 15_000, value_name = "N")]
    large: u16,
    /// Agents as they ship that join the cluster one after the other
    #[arg(long, default_value_t = 100, value_name = "N")]
    agents: u16,
    /// How often what is compared is repeated; medians are shown
    #[arg(long, default_value_t = 3, value_name = "N")]
    runs: usize,
    /// Run only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Write the table and the plots into this page and a folder of its name beside it; the rows of
    /// parts that were not measured stay
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Exit with 1 if a goal is missed
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Ways to write a profile and its status
    Ways,
    /// A new size for every node, against a bare loop
    Resize,
    /// How often a profile is written while the cluster grows
    Growth,
    /// A new value over all nodes at once, with an agent on each
    Rollout,
    /// A node that joins, and requests while nothing happens
    Arrival,
    /// Memory, and the time from start to the first decision
    Start,
    /// Memory, decisions, writes and start at each size up to the largest
    Scale,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    nettune_runtime::tls::install();
    let mut report = Report::new();
    // What was measured before something went wrong is worth its time too.
    let measured = measure(&mut report, &args).await;
    let (table, missed) = report.table();
    println!("{table}");
    if let Some(page) = &args.page {
        report::put_into(page, table, !args.only.is_empty())?;
    }
    measured?;
    Ok(if args.check && missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn measure(report: &mut Report, args: &Args) -> anyhow::Result<()> {
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    if wants(Part::Ways) {
        ways::measure(report, args.runs).await?;
    }
    if wants(Part::Resize) {
        resize::measure(report, args.nodes, args.runs).await?;
    }
    if wants(Part::Growth) {
        growth::measure(report, args.nodes).await?;
    }
    if wants(Part::Rollout) {
        rollout::measure(report, args.nodes, args.runs).await?;
    }
    if wants(Part::Arrival) {
        arrival::measure(report, args.nodes, args.agents).await?;
    }
    if wants(Part::Start) {
        start::measure(report, args.large, args.runs).await?;
    }
    if wants(Part::Scale) {
        let plots = args.page.as_ref().map(|page| page.with_extension(""));
        scale::measure(report, args.large, plots.as_deref()).await?;
    }
    Ok(())
}
