//! Builds all test binaries at once, and runs each as cargo would.
//!
//! One build for all tiers: for each set of packages cargo may choose other features of the dependencies, and compile
//! them again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use nettune_tests::process::command;
use nettune_tests::progress::Progress;
use serde_json::Value;

use super::tier::Tier;
use crate::cargo::{cargo, finish};

/// From scratch, on two cores.
const BUILD: Duration = Duration::from_secs(150);

/// A program with tests.
#[derive(Debug)]
pub(super) struct TestBinary {
    /// Package and target.
    pub(super) name: String,
    pub(super) tier: Tier,
    executable: PathBuf,
    package_dir: PathBuf,
}

impl TestBinary {
    /// The program, where cargo would run it.
    pub(super) fn command(&self) -> Command {
        let mut command = command(&self.executable);
        command
            .current_dir(&self.package_dir)
            .env("CARGO_MANIFEST_DIR", &self.package_dir);
        command
    }

    /// How many tests it has.
    pub(super) async fn list(&self) -> anyhow::Result<usize> {
        let mut command = self.command();
        command.args(["--list", "--format", "terse"]);
        let lines = finish(command, |_| ())
            .await?
            .succeeded(&format!("{} --list", self.name))?;
        Ok(lines.iter().filter(|line| line.ends_with(": test")).count())
    }
}

/// Where cargo put the workspace's own programs: beside the folder of the test binaries.
pub(super) fn bin_dir(binary: &TestBinary) -> &Path {
    binary
        .executable
        .parent()
        .and_then(Path::parent)
        .unwrap_or(&binary.package_dir)
}

/// Builds the programs and the tests of the whole workspace.
pub(super) async fn build() -> anyhow::Result<Vec<TestBinary>> {
    let progress = Progress::start("building the tests", BUILD);
    let bins = cargo(["build", "--workspace", "--bins"]);
    finish(bins, |line| progress.at(line.trim()))
        .await?
        .succeeded("cargo build --workspace --bins")?;
    let tests = cargo([
        "test",
        "--workspace",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let finished = finish(tests, |line| {
        if !line.starts_with('{') {
            progress.at(line.trim())
        }
    })
    .await?;
    let lines = finished
        .succeeded("cargo test --workspace --no-run")
        .map_err(without_messages)?;
    progress.done();
    let messages = lines.iter().filter(|line| line.starts_with('{'));
    messages
        .filter_map(|line| test_binary(line).transpose())
        .collect()
}

/// Leaves out cargo's JSON messages: the compiler's own output is enough.
fn without_messages(error: anyhow::Error) -> anyhow::Error {
    let text = error.to_string();
    anyhow::anyhow!(
        text.lines()
            .filter(|line| !line.starts_with('{'))
            .collect::<Vec<_>>()
            .join("\n")
    )
}

/// The test binary in a message of cargo; none for other kinds of messages.
fn test_binary(message: &str) -> anyhow::Result<Option<TestBinary>> {
    let message: Value =
        serde_json::from_str(message).context("cargo printed a message that is not JSON")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (Some(executable), Some(true)) = (
        text(&message["executable"]),
        message["profile"]["test"].as_bool(),
    ) else {
        return Ok(None);
    };
    let (manifest, target) = (
        text(&message["manifest_path"]),
        text(&message["target"]["name"]),
    );
    let (manifest, target) = (
        PathBuf::from(manifest.unwrap_or_default()),
        target.unwrap_or_default(),
    );
    let package_dir = manifest
        .parent()
        .context("a package has a folder")?
        .to_path_buf();
    let package = package_dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let tier = Tier::of(&package, &target)?;
    Ok(Some(TestBinary {
        name: format!("{package} {target}"),
        tier,
        executable: executable.into(),
        package_dir,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_binaries_are_taken_from_cargos_messages() {
        let artifact = |test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": "/w/tests/Cargo.toml",
                "target": {"name": "kernel"},
                "profile": {"test": test},
                "executable": "/w/target/debug/deps/kernel-1",
            })
            .to_string()
        };
        let binary = test_binary(&artifact(true)).unwrap().unwrap();
        assert_eq!(
            (binary.tier, bin_dir(&binary)),
            (Tier::Kernel, Path::new("/w/target/debug"))
        );
        assert!(test_binary(&artifact(false)).unwrap().is_none());
        assert!(
            test_binary(r#"{"reason":"build-finished","success":true}"#)
                .unwrap()
                .is_none()
        );
    }
}
