//! `cargo xtask …`: the tasks of this workspace that cargo has no command for.

#![allow(clippy::print_stdout, reason = "a command line tool prints")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

mod bench;
mod cargo;
mod ci;
mod demo;
mod deny;
mod fuzz;
mod generate;
mod imports;
mod structure;
mod test;
mod workflows;

/// The exit status that a shell reports for a program ended by SIGINT.
const INTERRUPTED: u8 = 130;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Build, test and show nettune",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show nettune on a real control plane and a real kernel (2 minutes; the first run builds tools for 10)
    Demo(demo::Args),
    /// Run the tests tier by tier, the fastest tier first
    Test(test::Args),
    /// Run all checks that a change must pass, and all tests
    Ci,
    /// Check file and folder sizes, import cycles, and the paths in ARCHITECTURE.md
    Structure,
    /// Fuzz every parser, guided by code coverage
    Fuzz(fuzz::Args),
    /// Generate the CRD manifests and docs/api.md
    Generate(generate::Args),
    /// Run a benchmark and print each figure beside its goal
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error.into()),
    };
    let code = runtime.block_on(until_interrupted(run(cli.command)));
    // An interrupted build may still hold a thread.
    runtime.shutdown_background();
    code
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(&args).await,
        Command::Test(args) => test::run(&args).await,
        Command::Ci => ci::run().await,
        Command::Structure => structure::run(),
        Command::Fuzz(args) => fuzz::run(&args).await,
        Command::Generate(args) => generate::run(&args).await,
        Command::Bench(args) => bench::run(&args).await,
    }
}

/// Drops the work on a signal, and with it the processes and folders that it holds.
async fn until_interrupted(work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    tokio::select! {
        result = work => result.unwrap_or_else(|error| failure(&error)),
        name = interrupted() => {
            eprintln!("stopped by {name}");
            ExitCode::from(INTERRUPTED)
        }
    }
}

async fn interrupted() -> &'static str {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        // Without handlers the signals end the program in the default way.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
