//! `cargo xtask …`: everything one does in this workspace that cargo has no command for.

#![allow(
    clippy::print_stdout,
    reason = "a command line tool: what it prints is what it is for"
)]

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

/// What a shell reports of a program that SIGINT ended.
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
    /// Show nettune on a real control plane and a real kernel, in two minutes
    Demo(demo::Args),
    /// Run the tests, tier by tier, cheapest first
    Test(test::Args),
    /// Everything that a change has to pass, ending with all tests
    Ci,
    /// Check file and folder sizes, circles of imports, and the paths in ARCHITECTURE.md
    Structure,
    /// Feed every parser what breaks parsers, guided by the code that it reaches
    Fuzz(fuzz::Args),
    /// Write what is generated: the CRDs' manifests and docs/api.md
    Generate(generate::Args),
    /// Measure, and print each figure beside its goal
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
    // A build that was interrupted may still hold a thread.
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

/// Drops the work when a signal comes: whatever it holds, processes and folders, goes with it.
async fn until_interrupted(work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    tokio::select! {
        result = work => result.unwrap_or_else(|error| failure(&error)),
        name = interrupted() => {
            eprintln!("ended by {name}");
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
