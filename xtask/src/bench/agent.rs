//! `cargo xtask bench agent`: the agent as it ships, in a network namespace of its own, beside the
//! programs that write sysctls today.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nettune_tests::process::command;
use nettune_tests::{DirectoryNode, workspace};
use tempfile::TempDir;

use crate::cargo::{cargo, finish_visibly};

/// Two pairs of these and the loopback, with eight keys each, are 40 keys that can be written without
/// touching the machine's own.
const LINKS: &str = "ip link add b0 type veth peer name b1; ip link add b2 type veth peer name b3";
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
const OURS: &str = "3000";
const OURS_NEXT: &str = "4000";
const RIVALS: &str = "5000";

const ROUNDS: usize = 5;
const POLLED: usize = 20;
const IDLE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(10);

/// Builds the agent and measures it in namespaces, where this program starts itself again.
pub(crate) async fn run(check: bool) -> anyhow::Result<ExitCode> {
    let mut build = cargo(["build", "--quiet", "--release", "--workspace", "--bin"]);
    build.arg("nettune-agent");
    ensure!(
        finish_visibly(build).await?.success(),
        "the agent was not built"
    );
    let mut inside = command("unshare");
    inside.args(["--user", "--map-root-user", "--net", "--", "sh", "-c"]);
    inside.arg(format!("{LINKS}; exec \"$@\"")).arg("sh");
    inside.arg(std::env::current_exe()?);
    inside.args(["bench", "agent", "--inside"]);
    inside.args(check.then_some("--check"));
    Ok(match finish_visibly(inside).await?.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Measures; to be called in namespaces of its own.
pub(crate) fn run_inside(check: bool) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    let directory = Place::directory()?;
    let kernel = Place::kernel()?;

    for place in [&directory, &kernel] {
        let times = repairs_by_event(place)?;
        let what = format!("repair by an event, {}", place.name);
        report.row(
            &format!("{what}, p50"),
            ms(quantile(&times, 50)),
            "ms",
            None,
        );
        report.row(
            &format!("{what}, p99 of {}", times.len()),
            ms(quantile(&times, 99)),
            "ms",
            Some(2.0),
        );
    }
    let times = repairs_without_a_bell(&kernel)?;
    report.row(
        "repair of a writer with its own procfs, p50",
        ms(quantile(&times, 50)),
        "ms",
        None,
    );
    report.row(
        &format!("… the longest of {}", times.len()),
        ms(quantile(&times, 100)),
        "ms",
        Some(110.0),
    );

    let starts = (0..ROUNDS)
        .map(|_| start_to_applied(&kernel))
        .collect::<anyhow::Result<Vec<_>>>()?;
    report.row(
        "start to 40 keys applied, median",
        ms(median(starts)),
        "ms",
        None,
    );

    applying(&kernel, &mut report)?;
    idle(&kernel, &mut report)?;
    println!("sysctl -p, systemd-sysctl and tuned-adm write once: none of them repairs");
    Ok(report.verdict(check))
}

fn repairs_by_event(place: &Place) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    // A fresh agent for each round: it meets who comes again with patience.
    for _ in 0..ROUNDS {
        let _agent = place.start_settled()?;
        for path in place.paths() {
            let start = Instant::now();
            put(&path, RIVALS)?;
            until(&path, OURS)?;
            times.push(start.elapsed());
            // Ten writes a tick: somebody who writes without a pause is answered by the ticks alone.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(times)
}

/// From the moment that the foreign value is seen.
fn repairs_without_a_bell(place: &Place) -> anyhow::Result<Vec<Duration>> {
    let _agent = place.start_settled()?;
    let mut times = Vec::new();
    for path in place.paths().into_iter().take(POLLED) {
        let mut container = Command::new("unshare");
        container.args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c"]);
        container.arg(format!("echo {RIVALS} >{}", path.display()));
        let mut container = container.spawn().context("cannot run unshare")?;
        until(&path, RIVALS)?;
        let start = Instant::now();
        until(&path, OURS)?;
        times.push(start.elapsed());
        ensure!(
            container.wait()?.success(),
            "no procfs of its own can be mounted"
        );
    }
    Ok(times)
}

fn start_to_applied(place: &Place) -> anyhow::Result<Duration> {
    place.put_all(RIVALS)?;
    let start = Instant::now();
    let _agent = place.start()?;
    for path in place.paths() {
        until(&path, OURS)?;
    }
    Ok(start.elapsed())
}

/// 20 changed keys: by the agent that is told of another policy, by a new agent, and by the others.
fn applying(place: &Place, report: &mut Report) -> anyhow::Result<()> {
    let (changed, same) = place.keys.split_at(20);
    let (ours, next) = (
        policy(changed, OURS, same),
        policy(changed, OURS_NEXT, same),
    );
    let conf = place.dir.path().join("20.conf");
    let lines = changed
        .iter()
        .map(|key| format!("{} = {OURS_NEXT}\n", key.replace('.', "/")));
    fs::write(&conf, lines.collect::<String>())?;

    let profile = place.dir.path().join("tuned/bench");
    fs::create_dir_all(&profile)?;
    let lines = changed
        .iter()
        .map(|key| format!("{}={OURS_NEXT}\n", key.replace('.', "/")));
    fs::write(
        profile.join("tuned.conf"),
        format!(
            "[main]\nsummary=bench\n[sysctl]\n{}",
            lines.collect::<String>()
        ),
    )?;

    let mut times = [const { Vec::new() }; 4];
    for _ in 0..2 * ROUNDS {
        {
            let mut agent = place.start_settled()?;
            place.replace_policy(&next)?;
            let start = Instant::now();
            agent.hang_up()?;
            for key in changed {
                until(&place.path(key), OURS_NEXT)?;
            }
            times[0].push(start.elapsed());
            place.replace_policy(&ours)?;
        }
        let mut timed = |index: usize, mut command: Command| -> anyhow::Result<()> {
            place.put_all(OURS)?;
            let start = Instant::now();
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            times[index].push(start.elapsed());
            ensure!(
                status.is_ok_and(|status| status.success()),
                "{command:?} failed"
            );
            ensure!(
                fs::read_to_string(place.path(&changed[19]))?.trim() == OURS_NEXT,
                "{command:?} wrote nothing"
            );
            Ok(())
        };
        let mut sysctl = Command::new("sysctl");
        sysctl.arg("-p").arg(&conf);
        timed(1, sysctl)?;
        if Path::new(SYSTEMD_SYSCTL).exists() {
            let mut systemd = Command::new(SYSTEMD_SYSCTL);
            systemd.arg(&conf);
            timed(2, systemd)?;
        }
        place.replace_policy(&next)?;
        let mut once = place.command();
        once.arg("--once");
        timed(3, once)?;
        place.replace_policy(&ours)?;
    }
    let tuned = (0..ROUNDS)
        .map(|_| tuned(place, changed))
        .collect::<anyhow::Result<Option<Vec<_>>>>()?;
    let [agent, sysctl, systemd, once] = times;
    let (agent, sysctl) = (median(agent), median(sysctl));
    report.row(
        "20 changed keys: the agent, from SIGHUP on, median",
        ms(agent),
        "ms",
        None,
    );
    report.row(
        "20 changed keys: sysctl -p (procps), median",
        ms(sysctl),
        "ms",
        None,
    );
    report.row("… ratio of both", ms(agent) / ms(sysctl), "", Some(1.0));
    report.row(
        "20 changed keys: nettune-agent --once, median",
        ms(median(once)),
        "ms",
        None,
    );
    if !systemd.is_empty() {
        report.row(
            "20 changed keys: systemd-sysctl, median",
            ms(median(systemd)),
            "ms",
            None,
        );
    }
    if let Some(tuned) = tuned {
        report.row(
            "20 changed keys: TuneD, from its start on, median",
            ms(median(tuned)),
            "ms",
            None,
        );
    }
    Ok(())
}

/// TuneD with a profile of these keys, where it is installed. Its folders are its own for this run.
fn tuned(place: &Place, keys: &[String]) -> anyhow::Result<Option<Duration>> {
    if !Path::new(TUNED).exists() {
        return Ok(None);
    }
    place.put_all(OURS)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]).arg(
        "mount -t tmpfs none /run && mkdir /run/tuned && cp /etc/tuned/*.conf \"$1\" && mount --bind \"$1\" /etc/tuned && \
         exec \"$2\" --no-dbus --no-socket --profile bench --log /dev/null",
    );
    command
        .arg("sh")
        .arg(place.dir.path().join("tuned"))
        .arg(TUNED);
    let log = File::create(place.dir.path().join("tuned.log"))?;
    command.stdout(log.try_clone()?).stderr(log);
    let start = Instant::now();
    let _tuned = Agent(command.spawn().context("cannot start TuneD")?);
    for key in keys {
        let log = || fs::read_to_string(place.dir.path().join("tuned.log")).unwrap_or_default();
        until(&place.path(key), OURS_NEXT).with_context(log)?;
    }
    Ok(Some(start.elapsed()))
}

const TUNED: &str = "/usr/sbin/tuned";

const SYSTEMD_SYSCTL: &str = "/usr/lib/systemd/systemd-sysctl";

/// Beside threads of this program that do no more than to read as many files as often, and to wake up.
fn idle(place: &Place, report: &mut Report) -> anyhow::Result<()> {
    let agent = place.start_settled()?;
    std::thread::sleep(Duration::from_secs(2));
    let before = agent.cpu()?;
    let (reads, sleeps) = std::thread::scope(|scope| {
        let of_paths = |paths| scope.spawn(move || read_ten_times_a_second(paths));
        let (reader, sleeper) = (of_paths(place.paths()), of_paths(Vec::new()));
        let ended = |_| anyhow::anyhow!("a thread has ended");
        anyhow::Ok((
            reader.join().map_err(ended)??,
            sleeper.join().map_err(ended)??,
        ))
    })?;
    let used = agent.cpu()? - before;
    let percent = |time: Duration| time.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    report.row(
        "idle with 40 keys over 60 s, of a core",
        percent(used),
        "%",
        Some(0.05),
    );
    report.row(
        "… a thread that only reads 40 files as often",
        percent(reads),
        "%",
        None,
    );
    report.row(
        "… a thread that only wakes up as often",
        percent(sleeps),
        "%",
        None,
    );
    report.row("resident memory", agent.resident_mib()?, "MiB", Some(8.0));
    Ok(())
}

fn read_ten_times_a_second(paths: Vec<PathBuf>) -> anyhow::Result<Duration> {
    use std::os::unix::fs::FileExt as _;
    let files = paths
        .into_iter()
        .map(File::open)
        .collect::<Result<Vec<_>, _>>()?;
    let cpu = || cpu(Path::new("/proc/thread-self/schedstat"));
    let (start, before) = (Instant::now(), cpu()?);
    while start.elapsed() < IDLE {
        std::thread::sleep(Duration::from_millis(100));
        for file in &files {
            file.read_at(&mut [0; 128], 0)?;
        }
    }
    Ok(cpu()? - before)
}

/// Where an agent works.
struct Place {
    name: &'static str,
    node: DirectoryNode,
    dir: TempDir,
    keys: Vec<String>,
    is_kernel: bool,
}

impl Place {
    fn directory() -> anyhow::Result<Self> {
        Self::new("directory", false)
    }

    fn kernel() -> anyhow::Result<Self> {
        Self::new("/proc/sys", true)
    }

    fn new(name: &'static str, is_kernel: bool) -> anyhow::Result<Self> {
        let key = |interface, leaf| format!("net.ipv4.neigh.{interface}.{leaf}");
        let of = |interface| LEAVES.map(|leaf| key(interface, leaf));
        let keys: Vec<_> = INTERFACES.into_iter().flat_map(of).collect();
        let node = DirectoryNode::new("00000000-0000-4000-8000-000000000001")?;
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

    fn path(&self, key: &str) -> PathBuf {
        let root = if self.is_kernel {
            PathBuf::from("/proc/sys")
        } else {
            self.node.sysctl_root()
        };
        root.join(key.replace('.', "/"))
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.keys.iter().map(|key| self.path(key)).collect()
    }

    fn put_all(&self, value: &str) -> anyhow::Result<()> {
        self.paths().iter().try_for_each(|path| put(path, value))
    }

    fn replace_policy(&self, text: &str) -> anyhow::Result<()> {
        let (new, path) = (
            self.dir.path().join("new"),
            self.dir.path().join("policy.yaml"),
        );
        fs::write(&new, text)?;
        Ok(fs::rename(new, path)?)
    }

    fn command(&self) -> Command {
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

    fn start(&self) -> anyhow::Result<Agent> {
        let mut command = self.command();
        let log = File::create(self.dir.path().join("log"))?;
        command
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(Agent(command.spawn().context("cannot start the agent")?))
    }

    /// An agent that has applied all, and listens.
    fn start_settled(&self) -> anyhow::Result<Agent> {
        let agent = self.start()?;
        for path in self.paths() {
            until(&path, OURS).with_context(|| self.log())?;
        }
        std::thread::sleep(Duration::from_millis(300));
        Ok(agent)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A running agent; it ends with this.
struct Agent(Child);

impl Agent {
    fn hang_up(&mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        Ok(rustix::process::kill_process(
            pid,
            rustix::process::Signal::HUP,
        )?)
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(Path::new(&format!("/proc/{}/schedstat", self.0.id())))
    }

    fn resident_mib(&self) -> anyhow::Result<f64> {
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
fn cpu(schedstat: &Path) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(schedstat)?;
    let nanoseconds = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

fn policy(keys: &[String], value: &str, same: &[String]) -> String {
    let entry = |key: &String, value: &str| format!("    - {{name: {key}, value: '{value}'}}\n");
    let entries = keys.iter().map(|key| entry(key, value));
    let entries = entries.chain(same.iter().map(|key| entry(key, OURS)));
    format!(
        "apiVersion: nettune.dev/v1alpha1\nkind: NodeNetworkTuning\nmetadata: {{name: bench}}\nspec:\n  sysctls:\n{}",
        entries.collect::<String>()
    )
}

/// In one step, as a write to the kernel is.
fn put(path: &Path, value: &str) -> anyhow::Result<()> {
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

fn until(path: &Path, value: &str) -> anyhow::Result<()> {
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

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn quantile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or_default()
}

fn median(times: Vec<Duration>) -> Duration {
    quantile(&times, 50)
}

#[derive(Default)]
struct Report {
    missed: usize,
}

impl Report {
    fn row(&mut self, what: &str, figure: f64, unit: &str, goal: Option<f64>) {
        let goal = goal.map_or(String::new(), |goal| {
            let missed = figure > goal;
            self.missed += usize::from(missed);
            format!(
                "   goal ≤ {goal} {unit}{}",
                if missed { "   missed" } else { "" }
            )
        });
        println!("{what:<55} {figure:>9.3} {unit:<3}{goal}");
    }

    fn verdict(&self, check: bool) -> ExitCode {
        if check && self.missed > 0 {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}
