//! `cargo xtask demo`: the whole of nettune in ten minutes, on real kernels' tables, and nothing left behind.

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
    /// Leave everything up at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// Cold, on two cores.
const BUILD: Duration = Duration::from_secs(120);

pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    // The tools may take ten minutes to build; the plan needs none of them.
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
    heading(&format!(
        "That was the demo, in {}",
        in_words(started.elapsed())
    ))?;
    if !keep {
        drop(stage);
        note("Everything it started has ended. To look around yourself: cargo xtask demo --keep")?;
        note(
            "For your own cluster: kubectl get nodes -o json | cargo run -p kubectl-nettune -- plan --nodes-from -",
        )?;
        return Ok(());
    }
    note("Everything stays up until Ctrl-C. In another terminal:")?;
    note(&format!(
        "  export KUBECONFIG={}",
        stage.kubeconfig().display()
    ))?;
    note("  kubectl get nnt,nnp; kubectl explain nnt.spec; kubectl edit nnt default")?;
    // The signal ends the program by dropping this.
    std::future::pending().await
}
