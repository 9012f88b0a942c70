//! The real agent as a process, over a directory or in namespaces of its own, without a cluster: it
//! starts from a profile that an earlier one has saved.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail them")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nettune_agent::agent::ProfileUpdate;

use crate::node::Node;

/// Long enough for a machine that is busy with something else.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running agent; it ends with this.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

/// Where an agent finds its kernel.
pub(crate) enum Kernel {
    Directory,
    Real,
}

impl Running {
    /// Starts the agent with what is saved in the node's state. `wrapper` is a command that runs it,
    /// for example in a namespace.
    pub(crate) fn start(node: &Node, kernel: &Kernel, wrapper: &[&str]) -> Self {
        let log = node.dir.path().join("log");
        let mut command = Self::command(node, kernel, wrapper);
        let file = File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.process_group(0).spawn().unwrap();
        Self { child, log }
    }

    pub(crate) fn command(node: &Node, kernel: &Kernel, wrapper: &[&str]) -> Command {
        let dir = node.dir.path();
        node.put(&dir.join("kubeconfig"), KUBECONFIG);
        let tether = ["setpriv", "--pdeathsig", "KILL", "--"];
        let agent = env!("CARGO_BIN_EXE_nettune-agent");
        let mut words = wrapper.iter().chain(&tether).chain([&agent]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command.args(["--node-name", node.name, "--listen", "127.0.0.1:0"]);
        command.arg("--state-dir").arg(dir.join("state"));
        command.arg("--kubeconfig").arg(dir.join("kubeconfig"));
        if matches!(kernel, Kernel::Directory) {
            command.arg("--sysctl-root").arg(dir.join("proc/sys"));
            command.arg("--proc-root").arg(dir.join("proc"));
        }
        command
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log holds a text, and returns its line.
    pub(crate) fn says(&self, text: &str) -> String {
        let found = || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(text));
            line.map(ToOwned::to_owned)
        };
        eventually(&format!("{text} in the log"), || {
            found().ok_or_else(|| self.log())
        })
    }

    /// The process that `wrapper` became, once it is the agent.
    pub(crate) fn pid(&self) -> u32 {
        self.says("serving /metrics");
        self.child.id()
    }

    pub(crate) fn metrics(&self) -> String {
        let line = self.says("\"listen\":\"");
        let address = line.split("\"listen\":\"").nth(1).unwrap();
        let address = address.split('"').next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The value of a metric, named with its labels.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.metrics();
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        metrics.lines().find_map(value)
    }

    /// Waits until it has set everything for the first time.
    pub(crate) fn has_looked(&self) {
        let polling = "nettune_agent_change_detection{mode=\"polling\"}";
        eventually("the first look", || {
            self.metric(polling).ok_or_else(|| self.log())
        });
    }

    /// How often it has read something.
    pub(crate) fn reads(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/io", self.pid())).unwrap();
        let reads = text.lines().find_map(|line| line.strip_prefix("syscr: "));
        reads.unwrap().parse().unwrap()
    }

    /// Processor time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/schedstat", self.pid());
        let text = fs::read_to_string(path).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Nobody answers there.
const KUBECONFIG: &str = "{apiVersion: v1, kind: Config, current-context: x,
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}],
users: [{name: u, user: {}}], contexts: [{name: x, context: {cluster: c, user: u}}]}";

/// Lets an agent of this process save a profile, which the next one starts from.
pub(crate) fn save_profile(node: &mut Node, update: ProfileUpdate) {
    let mut agent = node.start();
    agent.take(update);
    agent.turn();
    assert!(node.state().exists());
}

/// Repeats something until it succeeds, and returns what came of it.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(why) => assert!(start.elapsed() < DEADLINE, "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a file holds a value.
pub(crate) fn holds(path: &Path, value: &str) {
    eventually(&path.display().to_string(), || {
        let held = fs::read_to_string(path).map_err(|error| error.to_string())?;
        if held.trim() == value {
            Ok(())
        } else {
            Err(held)
        }
    });
}
