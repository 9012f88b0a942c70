//! The real agent notices what others do to its keys: at once where a bell rings, at the next look
//! where none does, and never by spinning.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod node;
mod running;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use node::{Node, SOMAXCONN, update};
use running::{DEADLINE, Kernel, Running, eventually, holds, save_profile};
use serde_json::json;

const KEYS: [&str; 16] = [
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_retries1",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
];
const WANTED: &str = "5";

/// A directory with all the keys, and a saved profile that sets each to 5.
fn node() -> Node {
    let mut node = Node::new();
    for key in KEYS {
        node.set(key, "1");
    }
    let wanted = KEYS.map(|key| (key, "Exact", WANTED));
    save_profile(&mut node, update(1, &json!({}), &wanted));
    node
}

/// How long each key differs after another process has written it, sorted.
fn repairs(node: &Node) -> Vec<Duration> {
    let mut times: Vec<_> = KEYS
        .map(|key| {
            let path = node.path(key);
            let start = Instant::now();
            // In one step, as a write to the kernel is.
            let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all(b"77\n").unwrap();
            drop(file);
            until_repaired(&path, start);
            start.elapsed()
        })
        .into();
    times.sort();
    times
}

fn until_repaired(path: &Path, start: Instant) {
    while fs::read_to_string(path).unwrap().trim() != WANTED {
        assert!(start.elapsed() < DEADLINE, "{}", path.display());
        std::thread::yield_now();
    }
}

#[test]
fn write_is_undone_long_before_the_next_tick() {
    let node = node();
    let agent = Running::start(&node, &Kernel::Directory, &[]);
    agent.has_looked();
    let times = repairs(&node);
    // Looks alone would take 50 ms in the middle.
    assert!(
        times[times.len() / 2] < Duration::from_millis(20),
        "{times:?}"
    );
    let metric = |state| {
        agent.metric(&format!(
            "nettune_agent_change_detection{{mode=\"{state}\"}}"
        ))
    };
    assert_eq!(
        (metric("inotify"), metric("polling")),
        (Some(1.0), Some(0.0))
    );
}

#[test]
fn without_inotify_it_polls_and_logs_that_once() {
    let node = node();
    // A user namespace has a limit of its own.
    let none = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$@\"";
    let wrapper = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        none,
        "sh",
    ];
    let agent = Running::start(&node, &Kernel::Directory, &wrapper);
    let line = agent.says("inotify is unavailable");
    assert!(line.contains("Too many open files"), "{line}");
    let times = repairs(&node);
    assert!(
        times[times.len() / 2] < Duration::from_millis(500),
        "{times:?}"
    );
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(agent.log().matches("inotify is unavailable").count(), 1);
    let metric = |state| {
        agent.metric(&format!(
            "nettune_agent_change_detection{{mode=\"{state}\"}}"
        ))
    };
    assert_eq!(
        (metric("inotify"), metric("polling")),
        (Some(0.0), Some(1.0))
    );
}

#[test]
fn own_writes_cause_no_work() {
    let node = node();
    let agent = Running::start(&node, &Kernel::Directory, &[]);
    agent.has_looked();
    repairs(&node);
    let writes = "nettune_agent_writes_total{result=\"ok\"}";
    eventually("every write counted", || match agent.metric(writes) {
        Some(16.0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let before = agent.cpu();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(agent.metric(writes), Some(16.0));
    let used = agent.cpu() - before;
    assert!(used < Duration::from_millis(200), "{used:?}");
}

/// It changes nothing, so there is nothing to repair, but rings without end.
#[test]
fn endless_writer_does_not_keep_the_agent_busy() {
    let node = node();
    let agent = Running::start(&node, &Kernel::Directory, &[]);
    agent.has_looked();
    let over = AtomicBool::new(false);
    let used = std::thread::scope(|scope| {
        let paths = [SOMAXCONN, KEYS[0]].map(|key| node.path(key));
        let over = &over;
        // One thread, so that the agent has a processor to keep busy.
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for path in &paths {
                    drop(fs::OpenOptions::new().write(true).open(path).unwrap());
                }
            }
        });
        let before = agent.reads();
        std::thread::sleep(Duration::from_secs(3));
        over.store(true, Ordering::Relaxed);
        agent.reads() - before
    });
    // 600 looks at some 20 files at the most; without the bound half a million were seen.
    assert!(used < 30_000, "{used} reads");
}

#[test]
fn replaced_folder_is_noticed() {
    let node = node();
    let agent = Running::start(&node, &Kernel::Directory, &[]);
    agent.has_looked();
    let core = node.path("net.core");
    fs::rename(&core, node.dir.path().join("old")).unwrap();
    node.set(SOMAXCONN, "77");
    // The files that it holds open are as they were.
    holds(&node.path(SOMAXCONN), WANTED);
}

/// Real sysctls of a network namespace of its own: an interface goes, and another comes in its place.
#[test]
fn keys_of_a_recreated_interface_are_applied_again() {
    const STALE: &str = "net.ipv4.neigh.nt0.gc_stale_time";
    let mut node = Node::new();
    let wanted = [(STALE, "Exact", "300"), (SOMAXCONN, "Exact", "5")];
    save_profile(&mut node, update(1, &json!({}), &wanted));
    let with_link = "ip link add nt0 type veth peer name nt1 && exec \"$@\"";
    let wrapper = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "sh",
        "-c",
        with_link,
        "sh",
    ];
    let agent = Running::start(&node, &Kernel::Real, &wrapper);
    let inside = Inside(agent.pid(), "--net");
    let stale = PathBuf::from("/proc/sys").join(STALE.replace('.', "/"));
    inside.holds(&stale, "300");
    for _ in 0..2 {
        inside.run("ip link del nt0 && ip link add nt0 type veth peer name nt1");
        inside.holds(&stale, "300");
    }
    inside.run("ip link del nt0");
    std::thread::sleep(Duration::from_millis(300));
    inside.run("ip link add nt0 type veth peer name nt1");
    inside.holds(&stale, "300");
    // A container has a procfs of its own, which rings no bell.
    let container = "unshare --mount --pid --fork --mount-proc sh -c";
    inside.run(&format!(
        "{container} 'echo 77 >/proc/sys/net/core/somaxconn'"
    ));
    inside.holds(Path::new("/proc/sys/net/core/somaxconn"), "5");
}

/// A mount changes nothing on the descriptor, and causes no event.
#[test]
fn mount_over_a_key_is_noticed_within_a_second() {
    let node = node();
    let wrapper = ["unshare", "--user", "--map-root-user", "--mount"];
    let agent = Running::start(&node, &Kernel::Directory, &wrapper);
    agent.has_looked();
    let over = node.dir.path().join("over");
    node.put(&over, "77\n");
    let inside = Inside(agent.pid(), "--mount");
    let key = node.path(SOMAXCONN);
    inside.run(&format!(
        "mount --bind {} {}",
        over.display(),
        key.display()
    ));
    let mounted = Instant::now();
    holds(&over, WANTED);
    let unnoticed = mounted.elapsed();
    assert!(unnoticed < Duration::from_secs(2), "{unnoticed:?}");
}

/// A process's namespaces: of users, and the one that the option of nsenter says.
struct Inside(u32, &'static str);

impl Inside {
    fn run(&self, script: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.to_string(), "--user", self.1]);
        command.args(["--preserve-credentials", "sh", "-c", script]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn holds(&self, path: &Path, value: &str) {
        eventually(&path.display().to_string(), || {
            match self
                .run(&format!("cat {} 2>&1 || true", path.display()))
                .trim()
            {
                held if held == value => Ok(()),
                held => Err(held.to_owned()),
            }
        });
    }
}
