//! Child processes that never outlive the test: not on a panic, not on Ctrl-C, not on SIGKILL.
//!
//! Each child is made by [`command`], which is `setpriv --pdeathsig KILL`, so the kernel itself ends it
//! when this process is gone, and in a process group of its own, so that Ctrl-C reaches this process
//! alone, which then ends its children in order. The parent-death signal fires when the *thread* that
//! started the child ends, hence the one thread of `spawner` for all.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::wait::{TimedOut, eventually};

mod spawner;

pub use spawner::{output_of, spawn};

/// How long a process may take to end after SIGTERM before it gets SIGKILL.
const TERM_DEADLINE: Duration = Duration::from_secs(8);
/// Arguments of setpriv(1) before the program.
const TETHER: [&str; 3] = ["--pdeathsig", "KILL", "--"];
const POLL: Duration = Duration::from_millis(10);
/// How much of a log goes into an error.
const TAIL_LINES: usize = 15;

/// What can go wrong with a child process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("cannot create the log of {name} at {}", path.display())]
    Log {
        name: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start `{command}` (setpriv of util-linux is needed to tie it to this process)")]
    Spawn {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {attempt} {name} (pid {pid})")]
    Control {
        attempt: &'static str,
        name: String,
        pid: u32,
        #[source]
        source: io::Error,
    },
    #[error("{name} ended with {status}; the end of {}:\n{tail}", log.display())]
    Ended {
        name: String,
        status: ExitStatus,
        log: PathBuf,
        tail: String,
    },
    #[error("the log of {name} says nothing yet; its end:\n{tail}")]
    Silent {
        name: String,
        tail: String,
        #[source]
        source: TimedOut,
    },
}

/// A running child process; dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error in the file `log`, which is appended to.
    ///
    /// Standard input is what the command says, by default nothing.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self, ProcessError> {
        let log_file = || File::options().create(true).append(true).open(log);
        let both = log_file().and_then(|out| Ok((out.try_clone()?, out)));
        let (out, err) = both.map_err(|source| ProcessError::Log {
            name: name.to_owned(),
            path: log.to_path_buf(),
            source,
        })?;
        command.stdout(out).stderr(err);
        Self::start_piped(name, command, log)
    }

    /// Starts `command` with the output that it was given; `log` is only what [`Process::log`] reads.
    pub fn start_piped(name: &str, mut command: Command, log: &Path) -> Result<Self, ProcessError> {
        command.process_group(0);
        let line = command_line(&command);
        let child = spawn(command).map_err(|source| ProcessError::Spawn {
            command: line,
            source,
        })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        text_of(&self.log)
    }

    /// The path of its log.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Takes the pipe to its standard input, if it has one.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The lines that come from those of its standard output and error that are pipes, until it closes them.
    pub fn take_lines(&mut self) -> UnboundedReceiver<String> {
        let (sender, lines) = unbounded_channel();
        if let Some(stdout) = self.child.stdout.take() {
            pass_on_lines(stdout, sender.clone());
        }
        if let Some(stderr) = self.child.stderr.take() {
            pass_on_lines(stderr, sender);
        }
        lines
    }

    /// `None` while it runs.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        self.child
            .try_wait()
            .map_err(|source| self.control("wait for", source))
    }

    /// An error when it has ended, with the end of its log.
    pub fn still_running(&mut self) -> Result<(), ProcessError> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => Err(ProcessError::Ended {
                name: self.name.clone(),
                status,
                log: self.log.clone(),
                tail: self.tail(),
            }),
        }
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let sent = self.pid().and_then(|pid| kill_process(pid, signal));
        sent.map_err(|errno| self.control("signal", errno.into()))
    }

    /// Sends a signal to it and to those it has started in its process group.
    fn signal_group(&self, signal: Signal) -> Result<(), ProcessError> {
        let sent = self.pid().and_then(|pid| kill_process_group(pid, signal));
        sent.map_err(|errno| self.control("signal", errno.into()))
    }

    fn pid(&self) -> rustix::io::Result<Pid> {
        i32::try_from(self.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(rustix::io::Errno::SRCH)
    }

    /// Ends it: SIGTERM, and SIGKILL when that has no effect within 8 s. Returns how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus, ProcessError> {
        self.stop_within(TERM_DEADLINE)
    }

    fn stop_within(&mut self, deadline: Duration) -> Result<ExitStatus, ProcessError> {
        if let Some(status) = self.exit_status()? {
            return Ok(status);
        }
        self.signal_group(Signal::TERM)?;
        match self.wait(deadline)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    /// Ends it by SIGKILL, as a crash would.
    pub fn kill(&mut self) -> Result<ExitStatus, ProcessError> {
        self.signal_group(Signal::KILL)?;
        self.child
            .wait()
            .map_err(|source| self.control("wait for", source))
    }

    /// Waits until it ends by itself, at most for `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> Result<Option<ExitStatus>, ProcessError> {
        let started = Instant::now();
        loop {
            match self.exit_status()? {
                None if started.elapsed() < deadline => sleep(POLL),
                status => return Ok(status),
            }
        }
    }

    /// Waits until `pick` finds what it wants in a line of the log after the first `skip` ones.
    pub async fn wait_for_line<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        skip: usize,
        pick: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ProcessError> {
        let found = eventually(what, deadline, || {
            let picked = self.log().lines().skip(skip).find_map(&pick);
            let ended = self.still_running().err();
            async move {
                match (picked, ended) {
                    (Some(value), _) => Ok(Ok(value)),
                    (None, Some(ended)) => Ok(Err(ended)),
                    (None, None) => Err("no such line in the log"),
                }
            }
        });
        match found.await {
            Ok(result) => result,
            Err(source) => Err(ProcessError::Silent {
                name: self.name.clone(),
                tail: self.tail(),
                source,
            }),
        }
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        last_lines(&self.log(), TAIL_LINES)
    }

    fn control(&self, attempt: &'static str, source: io::Error) -> ProcessError {
        ProcessError::Control {
            attempt,
            name: self.name.clone(),
            pid: self.id(),
            source,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The temporary folder with the whole log is about to go; libtest shows this with the failed test.
            eprintln!(
                "--- the end of the log of {} ---\n{}",
                self.name,
                self.tail()
            );
        }
        if let Err(error) = self.stop() {
            eprintln!("{error}");
        }
    }
}

/// A log's text; empty if there is no log yet.
pub(crate) fn text_of(log: &Path) -> String {
    std::fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// The end of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Reads on its own thread, which ends when the other side closes the pipe or the receiver is dropped.
fn pass_on_lines(pipe: impl Read + Send + 'static, sender: UnboundedSender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                .is_err()
            {
                return;
            }
        }
    });
}

/// A command that the kernel kills when this process is gone, and that reads nothing.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(TETHER).arg(program).stdin(Stdio::null());
    command
}

/// A command of [`command`] as typed in a shell.
pub fn command_line(command: &Command) -> String {
    let words = command.get_args().skip(TETHER.len());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests;
