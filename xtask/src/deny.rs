//! cargo-deny: licenses, duplicate versions, sources and, when they can be fetched, advisories.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nettune_tests::artifacts::cache::{self, CacheError};
use nettune_tests::process::{command, output_of};
use nettune_tests::progress::Progress;
use nettune_tests::workspace;
use tokio::time::timeout;

use crate::cargo::{Finished, finish};

/// Pinned: another version may report other problems.
const VERSION: &str = "0.20.2";
/// Without a network, Git may wait for minutes.
const FETCH: Duration = Duration::from_secs(60);
const INSTALL: Duration = Duration::from_secs(6 * 60);

/// Checks the dependencies; the first line of the result says so if advisories could not be fetched.
pub(crate) async fn check() -> anyhow::Result<Finished> {
    let program = tokio::task::spawn_blocking(installed).await??;
    let fetch = timeout(FETCH, finish(deny(&program, &["fetch", "db"]), |_| ())).await;
    let advisories = matches!(fetch, Ok(Ok(fetched)) if fetched.status.success());
    let mut checks = vec![
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ];
    if advisories {
        checks.push("advisories");
    }
    let mut finished = finish(deny(&program, &checks), |_| ()).await?;
    if !advisories {
        finished.lines.insert(
            0,
            "advisories not checked: cannot fetch their database".to_owned(),
        );
    }
    Ok(finished)
}

fn deny(program: &Path, args: &[&str]) -> Command {
    let mut deny = command(program);
    deny.args(args).current_dir(workspace::root());
    deny
}

/// The program in the cache folder, installed there the first time.
fn installed() -> anyhow::Result<PathBuf> {
    let dir =
        cache::entry(&format!("tools/cargo-deny-{VERSION}"), install).map_err(
            |error| match error {
                CacheError::Fill(InstallError(text)) => anyhow::anyhow!(text),
                other => other.into(),
            },
        )?;
    Ok(dir.join("bin/cargo-deny"))
}

#[derive(Debug)]
struct InstallError(String);

impl std::fmt::Display for InstallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InstallError {}

fn install(dir: &Path) -> Result<(), InstallError> {
    let progress = Progress::start(&format!("building cargo-deny {VERSION}, once"), INSTALL);
    let mut install = command("cargo");
    install
        .args([
            "install",
            "--locked",
            "--quiet",
            "cargo-deny",
            "--version",
            VERSION,
            "--root",
        ])
        .arg(dir);
    let failed = |text: &dyn std::fmt::Display| {
        InstallError(format!(
            "`cargo install --locked cargo-deny --version {VERSION}`: {text}"
        ))
    };
    let output = output_of(install).map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    progress.done();
    Ok(())
}
