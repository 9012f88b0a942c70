//! The operator and agents as processes, as they ship.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::net::{self, Page};
use crate::process::{Process, ProcessError, command};
use crate::workspace::{MissingBinary, binary};
use nettune_test_support::FakeNode;

const START_DEADLINE: Duration = Duration::from_secs(30);

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error(transparent)]
    Missing(#[from] MissingBinary),
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// An operator or an agent that runs; dropping it ends it.
#[derive(Debug)]
pub struct Program {
    process: Process,
    address: SocketAddr,
}

impl Program {
    /// Starts an operator as the administrator; `args` are more of its flags.
    pub async fn operator(
        control_plane: &ControlPlane,
        args: &[&str],
    ) -> Result<Self, ProgramError> {
        Self::operator_as(control_plane, control_plane.kubeconfig(), args).await
    }

    /// Starts an operator with this kubeconfig.
    pub async fn operator_as(
        control_plane: &ControlPlane,
        kubeconfig: &Path,
        args: &[&str],
    ) -> Result<Self, ProgramError> {
        let command = Self::operator_command(kubeconfig, args)?;
        Self::start(command, &control_plane.dir().join("operator.log")).await
    }

    /// The command of an operator, for a test that starts it in another way.
    pub fn operator_command(kubeconfig: &Path, args: &[&str]) -> Result<Command, MissingBinary> {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self::command("nettune-operator", args, kubeconfig)
    }

    /// Starts an agent over a directory node as the administrator; `args` are more of its flags.
    pub async fn agent(
        control_plane: &ControlPlane,
        node_name: &str,
        node: &FakeNode,
        args: &[&str],
    ) -> Result<Self, ProgramError> {
        Self::agent_as(
            control_plane,
            control_plane.kubeconfig(),
            node_name,
            node,
            args,
        )
        .await
    }

    /// Starts an agent over a directory node with this kubeconfig.
    pub async fn agent_as(
        control_plane: &ControlPlane,
        kubeconfig: &Path,
        node_name: &str,
        node: &FakeNode,
        args: &[&str],
    ) -> Result<Self, ProgramError> {
        let mut command = Self::agent_command(kubeconfig, node_name, node)?;
        command.args(args);
        let log = control_plane.dir().join(format!("agent-{node_name}.log"));
        Self::start(command, &log).await
    }

    /// The command of an agent over a directory node, for a test that starts it in another way.
    pub fn agent_command(
        kubeconfig: &Path,
        node_name: &str,
        node: &FakeNode,
    ) -> Result<Command, MissingBinary> {
        Self::command("nettune-agent", agent_args(node_name, node), kubeconfig)
    }

    fn command(name: &str, args: Vec<String>, kubeconfig: &Path) -> Result<Command, MissingBinary> {
        let mut command = command(binary(name)?);
        command.args(["--listen", "127.0.0.1:0", "--kubeconfig"]);
        command.arg(kubeconfig).args(args);
        Ok(command)
    }

    /// Starts a command with its output appended to the file `log`, after which it is named.
    async fn start(command: Command, log: &Path) -> Result<Self, ProgramError> {
        // What it logged before a restart is kept, and is not taken for what it says now.
        let said_before = std::fs::read_to_string(log)
            .map(|text| text.lines().count())
            .unwrap_or_default();
        let name = log.file_stem().unwrap_or_default().to_string_lossy();
        let mut process = Process::start(&name, command, log)?;
        let what = "the address it listens on";
        let address = process
            .wait_for_line(what, START_DEADLINE, said_before, listen_address)
            .await?;
        Ok(Self { process, address })
    }

    /// Where its metrics and health are.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One of its pages, for example `/metrics`.
    pub async fn get(&self, path: &str) -> io::Result<Page> {
        net::get(self.address, path).await
    }

    /// The process: its log, its id, signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process, to stop it or to check whether it has ended.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn agent_args(node_name: &str, node: &FakeNode) -> Vec<String> {
    let path = |path: PathBuf| path.display().to_string();
    let mut args = vec!["--node-name".to_owned(), node_name.to_owned()];
    args.extend(["--sysctl-root".to_owned(), path(node.sysctl_root())]);
    args.extend(["--proc-root".to_owned(), path(node.proc_root())]);
    args.extend(["--state-dir".to_owned(), path(node.state_dir())]);
    args
}

/// The address in a line like `{"message":"serving …","listen":"127.0.0.1:41234",…}`.
pub(crate) fn listen_address(line: &str) -> Option<SocketAddr> {
    serde_json::from_str::<Value>(line).ok()?["listen"]
        .as_str()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_a_log_line() {
        let line = r#"{"level":"INFO","message":"serving /metrics","listen":"127.0.0.1:41234"}"#;
        assert_eq!(
            listen_address(line),
            Some("127.0.0.1:41234".parse().unwrap())
        );
        assert_eq!(
            listen_address(r#"{"message":"cannot reach 127.0.0.1:6443"}"#),
            None
        );
        assert_eq!(listen_address("nettune-agent: no such flag"), None);
    }
}
