//! `cargo xtask bench agent`: the agent as it ships, in a network namespace of its own, beside the
//! programs that write sysctls today.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nettune_tests::process::command;

use self::place::{Agent, LINKS, OURS, OURS_NEXT, Place, RIVALS, cpu, policy, put, until};
use crate::cargo::{cargo, exit_code, finish_visibly};

mod place;

const ROUNDS: usize = 5;
const POLLED: usize = 20;
const IDLE: Duration = Duration::from_secs(60);

/// Builds the agent and measures it in namespaces, where this program starts itself again.
pub(crate) async fn run(check: bool) -> anyhow::Result<ExitCode> {
    let mut build = cargo(["build", "--quiet", "--release", "--workspace", "--bin"]);
    build.arg("nettune-agent");
    ensure!(
        finish_visibly(build).await?.success(),
        "cannot build the agent"
    );
    let mut inside = command("unshare");
    inside.args(["--user", "--map-root-user", "--net", "--", "sh", "-c"]);
    inside.arg(format!("{LINKS}; exec \"$@\"")).arg("sh");
    inside.arg(std::env::current_exe()?);
    inside.args(["bench", "agent", "--inside"]);
    inside.args(check.then_some("--check"));
    Ok(exit_code(finish_visibly(inside).await?.success()))
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
    let times = repairs_without_an_event(&kernel)?;
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
    // A new agent for each round: it waits longer each time that a value changes again.
    for _ in 0..ROUNDS {
        let _agent = place.start_settled()?;
        for path in place.paths() {
            let start = Instant::now();
            put(&path, RIVALS)?;
            until(&path, OURS)?;
            times.push(start.elapsed());
            // Only the periodic look answers a program that writes without a pause.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(times)
}

/// From the moment that the foreign value is seen.
fn repairs_without_an_event(place: &Place) -> anyhow::Result<Vec<Duration>> {
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
        ensure!(container.wait()?.success(), "cannot mount a procfs");
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

/// 20 changed keys: a running agent with a new policy, a new agent, and the other programs.
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
        exit_code(!check || self.missed == 0)
    }
}
