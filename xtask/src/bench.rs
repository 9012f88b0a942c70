//! `cargo xtask bench NAME`: runs a benchmark, which prints its figures beside their goals.

use std::process::ExitCode;

use clap::ValueEnum;

mod agent;

use nettune_tests::process::command;
use nettune_tests::workspace;

use crate::cargo::{cargo, exit_code, finish_visibly};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    name: Bench,
    /// Exit with 1 if a figure misses its goal
    #[arg(long)]
    check: bool,
    /// Arguments of `operator`: --nodes N, --large N, --agents N, --runs N, --only PART,…, --page FILE
    #[arg(last = true)]
    more: Vec<String>,
    /// Already in namespaces of its own
    #[arg(long, hide = true)]
    inside: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bench {
    /// Plan 15,000 nodes and 3 tunings, on one core
    Plan,
    /// The operator on a real API server with 5,000 and 15,000 nodes; about 30 minutes
    Operator,
    /// The agent, compared with sysctl -p and systemd-sysctl; 2 minutes
    Agent,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.name {
        Bench::Plan => run_example("nettune-planner", "bench_plan", args.check).await,
        Bench::Operator => operator(args).await,
        Bench::Agent if args.inside => agent::run_inside(args.check),
        Bench::Agent => agent::run(args.check).await,
    }
}

/// The programs as they ship, and the benchmark that starts them.
async fn operator(args: &Args) -> anyhow::Result<ExitCode> {
    let mut build = cargo(["build", "--release", "--workspace"]);
    build.args(["--bin", "nettune-operator", "--bin", "nettune-agent"]);
    build.args(["--example", "bench_operator"]);
    anyhow::ensure!(
        finish_visibly(build).await?.success(),
        "cannot build the programs"
    );
    let release = workspace::root().join("target/release");
    let mut bench = command(release.join("examples/bench_operator"));
    bench.env("NETTUNE_BIN_DIR", &release).args(&args.more);
    if args.check {
        bench.arg("--check");
    }
    Ok(exit_code(finish_visibly(bench).await?.success()))
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
    Ok(exit_code(status.success()))
}
