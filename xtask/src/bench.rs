//! `cargo xtask bench NAME`: runs a benchmark, which prints its figures beside their goals.

use std::process::ExitCode;

use clap::ValueEnum;

mod agent;

use crate::cargo::{cargo, finish_visibly};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    name: Bench,
    /// Exit with 1 where a figure falls short of its goal
    #[arg(long)]
    check: bool,
    /// Already in namespaces of its own
    #[arg(long, hide = true)]
    inside: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bench {
    /// Facts of 15,000 nodes and 3 tunings to all profiles, on one core
    Plan,
    /// Repair, rest, memory and start of the agent, beside sysctl -p and systemd-sysctl; 2 minutes
    Agent,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.name {
        Bench::Plan => run_example("nettune-planner", "bench_plan", args.check).await,
        Bench::Agent if args.inside => agent::run_inside(args.check),
        Bench::Agent => agent::run(args.check).await,
    }
}

async fn run_example(package: &str, example: &str, check: bool) -> anyhow::Result<ExitCode> {
    let mut bench = cargo([
        "run",
        "--quiet",
        "--release",
        "-p",
        package,
        "--example",
        example,
        "--",
    ]);
    if check {
        bench.arg("--check");
    }
    let status = finish_visibly(bench).await?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
