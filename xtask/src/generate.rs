//! `cargo xtask generate`: the CRDs' manifests and docs/api.md, from the API's Rust types.

use std::process::{Command, ExitCode};

use crate::cargo::{cargo, finish_visibly};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing, and exit with 1 where a file is not what would be written
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let status = finish_visibly(command(args.check)).await?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The generator, which lives beside the types.
pub(crate) fn command(check: bool) -> Command {
    let mut generator = cargo(["run", "--quiet", "-p", "nettune-crds", "--bin", "generate"]);
    if check {
        generator.args(["--", "--check"]);
    }
    generator
}
