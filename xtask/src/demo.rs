//! `cargo xtask demo`: nettune on a real control plane and a real kernel, in about two minutes.
//!
//! The first run also builds the tools, which takes about ten minutes. Nothing is left behind.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nettune_tests::progress::{Progress, in_words};

use self::show::{heading, note};
use self::stage::Stage;
use crate::cargo::{cargo, finish};

mod acts;
mod plans;
mod show;
mod stage;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep the cluster running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// From scratch, on two cores.
const BUILD: Duration = Duration::from_secs(120);

pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    // The first time, the tools take about ten minutes to build; the plan needs none of them.
    let tools = tokio::task::spawn_blocking(stage::get_tools);
    build_programs().await?;
    plans::show().await?;
    tools.await??;

    let stage = Stage::start().await?;
    acts::apply(&stage).await?;
    acts::grow(&stage).await?;
    acts::lower_a_threshold(&stage).await?;
    acts::apply_what_is_wrong(&stage).await?;
    end(stage, args.keep, started).await?;
    Ok(ExitCode::SUCCESS)
}

async fn build_programs() -> anyhow::Result<()> {
    let progress = Progress::start("building nettune", BUILD);
    let build = ["build", "--workspace", "--bins"];
    finish(cargo(build), |line| progress.at(line.trim()))
        .await?
        .succeeded("cargo build --workspace --bins")?;
    progress.done();
    Ok(())
}

async fn end(stage: Stage, keep: bool, started: Instant) -> anyhow::Result<()> {
    heading(&format!("The demo took {}", in_words(started.elapsed())))?;
    if !keep {
        drop(stage);
        note(
            "Everything it started is stopped. To keep the cluster running: cargo xtask demo --keep",
        )?;
        note(
            "To plan for your own cluster: kubectl get nodes -o json | cargo run -p kubectl-nettune -- plan --nodes-from -",
        )?;
        return Ok(());
    }
    note("The cluster runs until you press Ctrl-C. In another terminal:")?;
    note(&format!(
        "  export KUBECONFIG={}",
        stage.kubeconfig().display()
    ))?;
    note("  kubectl get nnt,nnp; kubectl explain nnt.spec; kubectl edit nnt default")?;
    // The signal ends the program by dropping this.
    std::future::pending().await
}
