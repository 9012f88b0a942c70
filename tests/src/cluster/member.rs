//! A program of a cluster.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ClusterError;
use crate::net;
use crate::process::{Process, last_lines, text_of};
use crate::programs::listen_address;
use crate::workspace::MissingBinary;

/// A program that is restarted when it has ended.
#[derive(Debug)]
pub struct Member {
    name: String,
    kubeconfig: PathBuf,
    log: PathBuf,
    process: Option<Process>,
    starts: usize,
}

impl Member {
    pub(super) fn new(name: &str, kubeconfig: &Path, dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            kubeconfig: kubeconfig.to_path_buf(),
            log: dir.join(format!("{name}.log")),
            process: None,
            starts: 0,
        }
    }

    /// Its name, such as `operator-0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process, until it is killed.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    pub fn starts(&self) -> usize {
        self.starts
    }

    /// Its whole log.
    pub fn log(&self) -> String {
        text_of(&self.log)
    }

    /// The last lines of that.
    pub fn end_of_log(&self, lines: usize) -> String {
        last_lines(&self.log(), lines)
    }

    /// The current value of a metric; none if there is no such metric.
    pub async fn metric(&self, name: &str) -> io::Result<Option<String>> {
        let log = self.log();
        let address = log.lines().rev().find_map(listen_address);
        let address = address.ok_or_else(|| io::Error::other("it does not listen yet"))?;
        let page = net::get(address, "/metrics").await?;
        Ok(page.metric(name).map(str::to_owned))
    }

    /// Kills it; it stays down until it is revived.
    pub fn kill(&mut self) -> Result<(), ClusterError> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Starts it unless it runs.
    pub(super) fn revive(
        &mut self,
        command: impl FnOnce(&Path) -> Result<Command, MissingBinary>,
        environment: &[(String, String, String)],
    ) -> Result<(), ClusterError> {
        if let Some(process) = &mut self.process
            && process.exit_status()?.is_none()
        {
            return Ok(());
        }
        let mut command = command(&self.kubeconfig)?;
        for (program, name, value) in environment {
            if *program == self.name {
                command.env(name, value);
            }
        }
        self.process = Some(Process::start(&self.name, command, &self.log)?);
        self.starts += 1;
        Ok(())
    }
}
