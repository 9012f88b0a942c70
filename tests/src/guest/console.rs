//! The guest's virtio port: one script at a time goes in, its status and output come back.
//!
//! `init.sh` is the other end; it says how requests and answers look.

use std::io::{self, Write as _};
use std::process::ChildStdin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

/// The guest kills a script at its deadline; this is how long its answer may then take.
const GRACE: Duration = Duration::from_secs(60);

/// What a script did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// Its exit status.
    pub status: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Why the console did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error("the guest went away while {waiting_for}")]
    Gone { waiting_for: String },
    #[error("no answer of the guest within {} s while {waiting_for}", deadline.as_secs())]
    NoAnswer {
        waiting_for: String,
        deadline: Duration,
    },
    #[error("cannot send a script to the guest")]
    Send(#[source] io::Error),
}

/// This end of the port.
#[derive(Debug)]
pub(super) struct Console {
    stdin: ChildStdin,
    lines: UnboundedReceiver<String>,
    last_id: u64,
}

impl Console {
    pub(super) fn new(stdin: ChildStdin, lines: UnboundedReceiver<String>) -> Self {
        Self {
            stdin,
            lines,
            last_id: 0,
        }
    }

    pub(super) async fn wait_until_ready(
        &mut self,
        deadline: Duration,
    ) -> Result<(), ConsoleError> {
        self.collect_until("@ready", "it boots", deadline)
            .await
            .map(drop)
    }

    pub(super) async fn run(
        &mut self,
        script: &str,
        deadline: Duration,
    ) -> Result<CommandOutput, ConsoleError> {
        // An answer that came too late has another id, and is passed over.
        self.last_id += 1;
        let id = self.last_id;
        let request = format!(
            "{id} {} {}\n",
            deadline.as_secs().max(1),
            STANDARD.encode(script)
        );
        self.stdin
            .write_all(request.as_bytes())
            .and_then(|()| self.stdin.flush())
            .map_err(ConsoleError::Send)?;

        let waiting_for = format!("it runs `{script}`");
        let deadline = deadline + GRACE;
        self.collect_until(&format!("@{id} stdout"), &waiting_for, deadline)
            .await?;
        let (stdout, _) = self
            .collect_until(&format!("@{id} stderr"), &waiting_for, deadline)
            .await?;
        let (stderr, status) = self
            .collect_until(&format!("@{id} status "), &waiting_for, deadline)
            .await?;
        Ok(CommandOutput {
            status: status.parse().unwrap_or(-1),
            stdout: decode(&stdout),
            stderr: decode(&stderr),
        })
    }

    /// The lines before the one that starts with `mark`, joined, and what follows the mark.
    async fn collect_until(
        &mut self,
        mark: &str,
        waiting_for: &str,
        deadline: Duration,
    ) -> Result<(String, String), ConsoleError> {
        let collect = async {
            let mut before = String::new();
            while let Some(line) = self.lines.recv().await {
                match line.strip_prefix(mark) {
                    Some(rest) => return Some((before, rest.to_owned())),
                    None => before.push_str(&line),
                }
            }
            None
        };
        let waiting_for = waiting_for.to_owned();
        match timeout(deadline, collect).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(ConsoleError::Gone { waiting_for }),
            Err(_) => Err(ConsoleError::NoAnswer {
                waiting_for,
                deadline,
            }),
        }
    }
}

fn decode(base64: &str) -> String {
    let bytes = STANDARD
        .decode(base64)
        .unwrap_or_else(|error| format!("<not base64: {error}>").into_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}
