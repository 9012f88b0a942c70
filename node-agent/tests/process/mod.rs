//! The agent as a process, over a directory that stands for a node's /proc.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail them"
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::node::Node;

const DEADLINE: Duration = Duration::from_secs(20);

/// A command of the agent for a node; neither the environment's kubeconfig nor its node name counts.
pub(crate) fn agent(node: &Node, arguments: &[&str]) -> Command {
    node.put(&node.path("kernel.random.boot_id"), node.boot_id);
    node.put(&node.path("kernel.osrelease"), "6.1.0-1-amd64\n");
    let proc = node.dir.path().join("proc");
    node.put(&proc.join("meminfo"), "MemTotal: 16384000 kB\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nettune-agent"));
    command
        .args(arguments)
        .arg("--sysctl-root")
        .arg(proc.join("sys"))
        .arg("--proc-root")
        .arg(proc)
        .arg("--state-dir")
        .arg(node.dir.path().join("state"))
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env_remove("NODE_NAME");
    command
}

/// Runs it to its end: exit code, what it printed, what it logged.
pub(crate) fn run(node: &Node, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = agent(node, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// An agent that runs until it is dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn start(node: &Node, arguments: &[&str]) -> Self {
        let log = node.dir.path().join("log");
        let arguments = [arguments, &["--listen", "127.0.0.1:0"]].concat();
        let child = agent(node, &arguments)
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until something is so.
    pub(crate) fn wait(&self, what: &str, mut is: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < DEADLINE, "{what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A page of its endpoint, head and body.
    pub(crate) fn page(&self, path: &str) -> String {
        let mut address = None;
        self.wait("an address that it listens on", || {
            let log = self.log();
            let said = log.split("\"listen\":\"").nth(1);
            address = said.and_then(|said| said.split('"').next().map(str::to_owned));
            address.is_some()
        });
        let mut stream = TcpStream::connect(address.unwrap()).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Ends it, and waits for its end.
    pub(crate) fn stop(mut self) -> i32 {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
