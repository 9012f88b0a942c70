//! Ends a process at a system call that is chosen beforehand, by strace(8): the kernel delivers SIGKILL when the call is
//! entered, before it has done anything. No hook in the program, and no clock.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use nettune_tests::artifacts::debian::find_program;
use nettune_tests::process::command;

/// A call at which the process can be killed: the `nth` of this name on these paths.
#[derive(Debug, Clone)]
pub(super) struct KillPoint {
    pub(super) watch: Watch,
    call: String,
    nth: usize,
    /// The call with the last parts of the paths that it names.
    pub(super) words: String,
}

/// Which calls are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Watch {
    /// Everything that changes a file of the state directory, and the closing of each: after the last flush it is the
    /// only call.
    State,
    /// The closing of each sysctl: the value is written, and nothing else has been done. The write itself is no kill
    /// point here, because opening a file of a directory cuts it to nothing, which the kernel's files know nothing of.
    Sysctls,
}

impl Watch {
    fn calls(self) -> &'static str {
        match self {
            Self::State => {
                "mkdir,mkdirat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,\
                 unlinkat,close"
            }
            Self::Sysctls => "close",
        }
    }
}

/// The traced process: `kill_at` is where it ends, `log` where its calls are written down.
pub(super) fn traced(
    program: &Command,
    watch: Watch,
    paths: &[PathBuf],
    kill_at: Option<&KillPoint>,
    log: &Path,
) -> anyhow::Result<Command> {
    let strace = find_program("strace").context("there is no strace; Debian's strace has it")?;
    let mut traced = command(strace);
    traced.args(["-f", "-y", "-s", "16", "-o"]).arg(log);
    traced.args(["-e", &format!("trace={}", watch.calls())]);
    if let Some(KillPoint { call, nth, .. }) = kill_at {
        traced.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
    }
    for path in paths {
        traced.arg("-P").arg(path);
    }
    // The program's own tether goes along: a tracer that is killed leaves what it traced running.
    traced.arg(program.get_program()).args(program.get_args());
    Ok(traced)
}

/// The calls that a trace has, in their order.
pub(super) fn kill_points(
    watch: Watch,
    paths: &[PathBuf],
    log: &str,
) -> anyhow::Result<Vec<KillPoint>> {
    let mut points: Vec<KillPoint> = Vec::new();
    let mut threads = Vec::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let call = call.trim_start();
        let Some((name, arguments)) = call.split_once('(') else {
            continue;
        };
        if !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            continue;
        }
        if !threads.contains(&thread) {
            threads.push(thread);
        }
        let before = points.iter().filter(|point| point.call == name).count();
        points.push(KillPoint {
            watch,
            call: name.to_owned(),
            nth: before + 1,
            words: format!("{name} {}", files(arguments, paths)),
        });
    }
    // strace counts the calls of each thread for itself.
    anyhow::ensure!(threads.len() <= 1, "calls of several threads:\n{log}");
    Ok(points)
}

/// The last parts of the watched paths that arguments name, in their order.
fn files(arguments: &str, paths: &[PathBuf]) -> String {
    let arguments = arguments.split(") = ").next().unwrap_or(arguments);
    let quoted = arguments.split(['"', '<', '>']);
    let named = quoted.filter(|part| paths.iter().any(|path| path == Path::new(part)));
    let names = named.filter_map(|path| path.rsplit('/').next());
    names.collect::<Vec<_>>().join(" to ")
}

#[test]
fn calls_are_counted_by_name_and_file() -> anyhow::Result<()> {
    let paths = ["/d/state", "/d/state/state.json", "/d/state/state.json.new"].map(PathBuf::from);
    let log = "7 close(11</d/state/state.json>) = 0\n\
               7 rename(\"/d/state/state.json.new\", \"/d/state/state.json\") = 0\n\
               7 --- SIGTERM {si_signo=SIGTERM} ---\n\
               7 close(16</d/state>) = ?\n\
               7 +++ killed by SIGKILL +++\n";
    let points = kill_points(Watch::State, &paths, log)?;
    let words: Vec<_> = points
        .iter()
        .map(|point| (point.words.as_str(), point.nth))
        .collect();
    let rename = "rename state.json.new to state.json";
    assert_eq!(
        words,
        [("close state.json", 1), (rename, 1), ("close state", 2)]
    );
    assert!(kill_points(Watch::State, &paths, "7 close(1) = 0\n8 close(1) = 0\n").is_err());
    Ok(())
}
