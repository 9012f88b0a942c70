//! Runs cargo and other programs, tied to this process, and takes what they print.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::Context as _;
use nettune_tests::process::{Process, command, command_line};
use nettune_tests::workspace;

/// 0 for success, 1 for failure.
pub(crate) fn exit_code(success: bool) -> ExitCode {
    ExitCode::from(u8::from(!success))
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// What it printed, on both channels.
    pub(crate) lines: Vec<String>,
}

impl Finished {
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// The lines, or an error with them in it when the program failed.
    pub(crate) fn succeeded(self, what: &str) -> anyhow::Result<Vec<String>> {
        anyhow::ensure!(
            self.status.success(),
            "`{what}` ended with {}:\n{}",
            self.status,
            self.text()
        );
        Ok(self.lines)
    }
}

/// `cargo ARGS` at the top of the workspace.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    // The cargo that runs this, so that a toolchain chosen by `cargo +NAME` stays chosen.
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args).current_dir(workspace::root());
    cargo
}

/// Runs a command to its end; `on_line` sees each line as it comes.
pub(crate) async fn finish(
    mut command: Command,
    mut on_line: impl FnMut(&str),
) -> anyhow::Result<Finished> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let line = command_line(&command);
    let mut process = Process::start_piped(&line, command, Path::new(""))?;
    let mut output = process.take_lines();
    let mut lines = Vec::new();
    while let Some(line) = output.recv().await {
        on_line(&line);
        lines.push(line);
    }
    // It has closed its output, so it is about to end.
    let waited =
        tokio::task::spawn_blocking(move || process.wait(std::time::Duration::from_secs(60)))
            .await??;
    let status = waited.with_context(|| format!("`{line}` closed its output and does not end"))?;
    Ok(Finished { status, lines })
}

/// Runs a command whose output goes where this one's goes.
pub(crate) async fn finish_visibly(mut command: Command) -> anyhow::Result<ExitStatus> {
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let line = command_line(&command);
    let mut process = Process::start_piped(&line, command, Path::new(""))?;
    loop {
        if let Some(status) = process.exit_status()? {
            return Ok(status);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
