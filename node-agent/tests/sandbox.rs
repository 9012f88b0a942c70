//! The real agent as it runs in a pod: uid 0 without any capability, nothing writable but the two
//! mounts that it has; and what the kernel refuses to a process confined as the agent is.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod node;
mod running;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use nettune_agent::kernel::sandbox::{Landlock, Needs, Sandbox};
use node::{Node, SOMAXCONN, update};
use running::{Kernel, Running, eventually, save_profile};
use serde_json::json;

/// User, network and mount namespaces in which everything is read-only but /proc/sys/net and the state.
const POD: &str = r#"
    set -e
    mount --make-rprivate /
    mount --bind "$STATE" "$STATE"
    mount --bind /proc/sys/net /proc/sys/net
    findmnt --noheadings --raw --output TARGET | sort -u | while read -r target; do
        case "$(printf %b "$target")" in
            /proc/sys/net | "$STATE") ;;
            *) mount -o remount,bind,ro "$(printf %b "$target")" 2>/dev/null || true ;;
        esac
    done
    exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs -- "$@"
"#;

fn lines(pid: u32, wanted: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses =
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let text = statuses.collect::<String>();
    let found = text.lines().filter(|line| line.starts_with(wanted));
    found
        .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
        .collect()
}

fn node() -> Node {
    let mut node = Node::new();
    save_profile(
        &mut node,
        update(1, &json!({}), &[(SOMAXCONN, "Exact", "4321")]),
    );
    node
}

fn holds_inside(pid: u32, value: &str) {
    eventually("the value", || {
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid.to_string(), "--user", "--net"]);
        command.args([
            "--preserve-credentials",
            "cat",
            "/proc/sys/net/core/somaxconn",
        ]);
        let held = String::from_utf8(command.output().unwrap().stdout).unwrap();
        if held.trim() == value {
            Ok(())
        } else {
            Err(held)
        }
    });
}

#[test]
fn agent_works_without_capabilities_on_a_read_only_root() {
    let node = node();
    let state = node.dir.path().join("state");
    let state = format!("STATE={}", state.display());
    let namespaces = ["unshare", "--user", "--map-root-user", "--net", "--mount"];
    let shell = ["env", &state, "sh", "-c", POD, "sh"];
    let agent = Running::start(&node, &Kernel::Real, &[&namespaces[..], &shell].concat());
    holds_inside(agent.pid(), "4321");
    let log = agent.log();
    // The original is on disk: the state is written before the sysctl.
    let saved = fs::read_to_string(node.state()).unwrap();
    assert!(saved.contains("\"written\":\"4321\""), "{saved}\n{log}");
    assert!(!log.contains("ERROR"), "{log}");
    // Outside of the two mounts not even a file beside the state can be made.
    let root = format!("/proc/{}/root{}", agent.pid(), node.dir.path().display());
    let refused = fs::write(Path::new(&root).join("x"), "").unwrap_err();
    assert_eq!(
        refused.raw_os_error(),
        Some(30),
        "{refused}: not a read-only root"
    );
}

#[test]
fn every_thread_drops_all_capabilities() {
    let node = node();
    let agent = Running::start(&node, &Kernel::Directory, &[]);
    agent.has_looked();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        let sets = lines(agent.pid(), set);
        assert!(
            !sets.is_empty() && sets.iter().all(|set| set == "0000000000000000"),
            "{set} {sets:?}"
        );
    }
    assert!(
        lines(agent.pid(), "NoNewPrivs:")
            .iter()
            .all(|set| set == "1")
    );
    for restriction in ["no_capabilities", "no_new_privs"] {
        let name = format!("nettune_agent_sandbox{{restriction=\"{restriction}\"}}");
        assert_eq!(agent.metric(&name), Some(1.0));
    }
    assert!(agent.metric("nettune_agent_landlock_abi_version").is_some());
}

/// Confines this test's thread, which ends with the test.
#[test]
fn writes_outside_of_what_the_agent_needs_are_denied() {
    let node = Node::new();
    let state = node.dir.path().join("state");
    fs::create_dir_all(&state).unwrap();
    let sysctl = node.dir.path().join("proc/sys");
    let kernel = sysctl.join("kernel/osrelease");
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let needs = Needs {
        sysctls: sysctl.join("net"),
        state: state.clone(),
        reads: Vec::new(),
        listens: Some(0),
        starts_programs: false,
    };
    // The same is allowed before.
    fs::write(&kernel, "6.1").unwrap();
    let sandbox = Sandbox::enforce(&needs);
    assert_eq!(sandbox.capabilities, 0);
    assert!(sandbox.no_new_privs);
    let Landlock::Enforced { abi } = sandbox.landlock else {
        eprintln!("skipped: this kernel has no Landlock");
        return;
    };

    node.set(SOMAXCONN, "5");
    fs::write(state.join("state.json.new"), "1").unwrap();
    fs::rename(state.join("state.json.new"), state.join("state.json")).unwrap();
    for path in [
        kernel,
        node.dir.path().join("new"),
        "/proc/sys/kernel/domainname".into(),
    ] {
        let refused = fs::write(&path, "x").unwrap_err();
        assert_eq!(
            refused.kind(),
            std::io::ErrorKind::PermissionDenied,
            "{}",
            path.display()
        );
    }
    fs::read_to_string("/etc/passwd").unwrap();
    assert!(
        Command::new("true").status().is_err(),
        "it may start programs"
    );
    if abi >= 4 {
        TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = TcpListener::bind(free).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    }
}

#[test]
fn inaccessible_path_is_logged_with_its_owner() {
    let node = node();
    let state = node.dir.path().join("state");
    // Only root can give a file away.
    if std::os::unix::fs::chown(&state, Some(12345), Some(12345)).is_err() {
        eprintln!("skipped: this needs root");
        return;
    }
    let agent = Running::start(&node, &Kernel::Directory, &[]);
    let line = agent.says("change its owner or mode");
    assert!(
        line.contains("\"owner\":12345") && line.contains("state"),
        "{line}"
    );
}
