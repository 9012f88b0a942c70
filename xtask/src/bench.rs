//! `cargo xtask bench NAME`: runs a benchmark, which prints its figures beside their goals.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::cargo::{cargo, finish_visibly};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    name: Bench,
    /// Exit with 1 where a figure falls short of its goal
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bench {
    /// Facts of 15,000 nodes and 3 tunings to all profiles, on one core
    Plan,
}

impl Bench {
    /// The package and its example that measures it.
    fn example(self) -> (&'static str, &'static str) {
        match self {
            Self::Plan => ("nettune-planner", "bench_plan"),
        }
    }
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (package, example) = args.name.example();
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
    if args.check {
        bench.arg("--check");
    }
    let status = finish_visibly(bench).await?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
