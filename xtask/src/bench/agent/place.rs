//! Where the agent is measured: its keys, its policy, and its process.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nettune_tests::{FakeNode, workspace};
use tempfile::TempDir;

/// Two pairs of these and the loopback, with eight keys each, are 40 keys that can be written without
/// touching the machine's own.
pub(super) const LINKS: &str =
    "ip link add b0 type veth peer name b1; ip link add b2 type veth peer name b3";
const INTERFACES: [&str; 5] = ["lo", "b0", "b1", "b2", "b3"];
const LEAVES: [&str; 8] = [
    "app_solicit",
    "base_reachable_time_ms",
    "delay_first_probe_time",
    "gc_stale_time",
    "mcast_solicit",
    "retrans_time_ms",
    "ucast_solicit",
    "unres_qlen_bytes",
];
pub(super) const OURS: &str = "3000";
pub(super) const OURS_NEXT: &str = "4000";
pub(super) const RIVALS: &str = "5000";

const DEADLINE: Duration = Duration::from_secs(10);

/// Where an agent works.
pub(super) struct Place {
    pub(super) name: &'static str,
    node: FakeNode,
    pub(super) dir: TempDir,
    pub(super) keys: Vec<String>,
    is_kernel: bool,
}

impl Place {
    pub(super) fn directory() -> anyhow::Result<Self> {
        Self::new("directory", false)
    }

    pub(super) fn kernel() -> anyhow::Result<Self> {
        Self::new("/proc/sys", true)
    }

    fn new(name: &'static str, is_kernel: bool) -> anyhow::Result<Self> {
        let key = |interface, leaf| format!("net.ipv4.neigh.{interface}.{leaf}");
        let of = |interface| LEAVES.map(|leaf| key(interface, leaf));
        let keys: Vec<_> = INTERFACES.into_iter().flat_map(of).collect();
        let node = FakeNode::new("00000000-0000-4000-8000-000000000001")?;
        for key in &keys {
            node.put(&format!("sys/{}", key.replace('.', "/")), "1\n")?;
        }
        let dir = tempfile::tempdir()?;
        let place = Self {
            name,
            node,
            dir,
            keys,
            is_kernel,
        };
        place.replace_policy(&policy(&place.keys, OURS, &[]))?;
        Ok(place)
    }

    pub(super) fn path(&self, key: &str) -> PathBuf {
        let root = if self.is_kernel {
            PathBuf::from("/proc/sys")
        } else {
            self.node.sysctl_root()
        };
        root.join(key.replace('.', "/"))
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.keys.iter().map(|key| self.path(key)).collect()
    }

    pub(super) fn put_all(&self, value: &str) -> anyhow::Result<()> {
        self.paths().iter().try_for_each(|path| put(path, value))
    }

    pub(super) fn replace_policy(&self, text: &str) -> anyhow::Result<()> {
        let (new, path) = (
            self.dir.path().join("new"),
            self.dir.path().join("policy.yaml"),
        );
        fs::write(&new, text)?;
        Ok(fs::rename(new, path)?)
    }

    pub(super) fn command(&self) -> Command {
        let agent = workspace::root().join("target/release/nettune-agent");
        let mut command = Command::new(agent);
        command
            .arg("--policy")
            .arg(self.dir.path().join("policy.yaml"));
        command
            .arg("--state-dir")
            .arg(self.dir.path().join("state"));
        command.args(["--node-name", "bench", "--listen", "127.0.0.1:0"]);
        if !self.is_kernel {
            command.arg("--sysctl-root").arg(self.node.sysctl_root());
            command.arg("--proc-root").arg(self.node.proc_root());
        }
        command.env_remove("KUBECONFIG").env_remove("NODE_NAME");
        command
    }

    pub(super) fn start(&self) -> anyhow::Result<Agent> {
        let mut command = self.command();
        let log = File::create(self.dir.path().join("log"))?;
        command
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(Agent(command.spawn().context("cannot start the agent")?))
    }

    /// An agent that has applied all, and listens.
    pub(super) fn start_settled(&self) -> anyhow::Result<Agent> {
        let agent = self.start()?;
        for path in self.paths() {
            until(&path, OURS).with_context(|| self.log())?;
        }
        std::thread::sleep(Duration::from_millis(300));
        Ok(agent)
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A running agent; it ends with this.
pub(super) struct Agent(pub(super) Child);

impl Agent {
    pub(super) fn hang_up(&mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        Ok(rustix::process::kill_process(
            pid,
            rustix::process::Signal::HUP,
        )?)
    }

    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(Path::new(&format!("/proc/{}/schedstat", self.0.id())))
    }

    pub(super) fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|line| line.split_whitespace().next())
            .context("no VmRSS")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Time on a processor, in nanoseconds in the first column.
pub(super) fn cpu(schedstat: &Path) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(schedstat)?;
    let nanoseconds = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

pub(super) fn policy(keys: &[String], value: &str, same: &[String]) -> String {
    let entry = |key: &String, value: &str| format!("    - {{name: {key}, value: '{value}'}}\n");
    let entries = keys.iter().map(|key| entry(key, value));
    let entries = entries.chain(same.iter().map(|key| entry(key, OURS)));
    format!(
        "apiVersion: nettune.dev/v1alpha1\nkind: NodeNetworkTuning\nmetadata: {{name: bench}}\nspec:\n  sysctls:\n{}",
        entries.collect::<String>()
    )
}

/// In one step, as a write to the kernel is.
pub(super) fn put(path: &Path, value: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path);
    let written = file
        .as_mut()
        .map(|file| file.write_all(format!("{value}\n").as_bytes()));
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error).context(path.display().to_string()),
        Err(error) => anyhow::bail!("{}: {error}", path.display()),
    }
}

pub(super) fn until(path: &Path, value: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    while fs::read_to_string(path)?.trim() != value {
        ensure!(
            start.elapsed() < DEADLINE,
            "{} does not become {value}",
            path.display()
        );
        std::thread::yield_now();
    }
    Ok(())
}
