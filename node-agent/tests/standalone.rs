//! The agent with a policy file and no cluster, as a process over a directory.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod node;
mod process;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use node::{MAX, Node, SOMAXCONN, THRESH3};
use process::{Running, run};
use rustix::process::Signal;

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: nettune.dev/v1alpha1\nkind: NodeNetworkTuning\nmetadata: {{name: host}}\nspec: {spec}\n"
    )
}

fn somaxconn(value: &str, more: &str) -> String {
    let entry = format!("{{name: net.core.somaxconn, value: '{value}'}}");
    policy(&format!("{{sysctls: [{entry}]{more}}}"))
}

/// Writes a file in one step, as an administrator's editor or configuration management does.
fn replace(node: &Node, text: &str) -> String {
    let path = node.dir.path().join("policy.yaml");
    let beside = node.dir.path().join("policy.yaml.new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Every file below a directory with its text.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.insert(path.clone(), Vec::new());
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn check_lists_changes_in_order_and_writes_nothing() {
    let node = Node::new();
    let path = replace(
        &node,
        &policy("{neighbors: {sizeForNodes: 605}, conntrack: {}, ipvs: {}}"),
    );
    // Its files of /proc are written with the command.
    run(&node, &["--version"]);
    let before = files(node.dir.path());
    let check = ["check", "--policy", &path, "--nodes", "3", "--pods", "30"];
    let (code, table, log) = run(&node, &check);
    assert_eq!((code, log.as_str()), (2, ""), "{table}");
    assert_eq!(files(node.dir.path()), before);
    assert!(
        table.contains("one of 3 nodes with up to 30 pods"),
        "{table}"
    );
    let row = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap();
    let words: Vec<&str> = row(THRESH3).split_whitespace().skip(1).collect();
    assert_eq!(words, ["1024", "8192", "AtLeast", "set"], "{table}");
    assert!(
        row("net.ipv4.vs.conn_reuse_mode").ends_with("waits"),
        "{table}"
    );
    let [three, two] = [3, 2].map(|n| table.find(&format!("gc_thresh{n} = ")).unwrap());
    assert!(three < two, "{table}");
    assert!(
        table.lines().all(|line| line.chars().count() <= 100),
        "{table}"
    );

    let apply = ["--policy", &path, "--nodes", "3", "--pods", "30", "--once"];
    assert_eq!(run(&node, &apply).0, 0);
    let (code, table, _) = run(&node, &check);
    assert_eq!(code, 0, "{table}");
    assert!(table.ends_with("Nothing would be changed.\n"), "{table}");
}

#[test]
fn check_prints_errors_as_text_with_each_cause_on_its_own_line() {
    let node = Node::new();
    let path = replace(&node, &policy("{conntrak: {}, mode: Enforced}"));
    let (code, table, error) = run(&node, &["check", "--policy", &path]);
    assert_eq!((code, table.as_str()), (1, ""));
    let lines: Vec<_> = error.lines().collect();
    let [what, cause] = lines[..] else {
        panic!("two lines: {error}")
    };
    assert_eq!(
        what,
        format!("error: {path}: NodeNetworkTuning host is invalid")
    );
    assert!(
        cause.starts_with("  caused by: spec.conntrak is not a known field"),
        "{error}"
    );
    assert!(cause.contains("; spec.mode is \"Enforced\""), "{error}");
}

#[test]
fn check_uses_the_saved_state() {
    let node = Node::new();
    let large = replace(
        &node,
        &policy("{conntrack: {minEntries: 1048576, maxEntries: 1048576}}"),
    );
    assert_eq!(run(&node, &["--policy", &large, "--once"]).0, 0);
    node.set("net.netfilter.nf_conntrack_count", "5");
    let path = replace(&node, &policy("{conntrack: {}}"));
    let (code, table, _) = run(&node, &["check", "--policy", &path, "--pods", "10"]);
    // At least 131072, and what is there above it is nettune's own.
    assert_eq!(code, 2, "{table}");
    assert!(table.contains(&format!("{MAX} = 131072")), "{table}");
}

#[test]
fn once_applies_and_exits_with_the_result() {
    let node = Node::new();
    let path = replace(&node, &somaxconn("5000", ", ipvs: {}"));
    let (code, _, log) = run(&node, &["--policy", &path, "--once"]);
    assert_eq!((code, node.get(SOMAXCONN).as_str()), (0, "5000"), "{log}");
    let waits = log.lines().filter(|line| line.contains("Waiting"));
    assert_eq!(waits.count(), 3, "{log}");

    node.link(SOMAXCONN, "/tmp");
    let path = replace(&node, &somaxconn("5001", ""));
    let (code, _, log) = run(&node, &["--policy", &path, "--once"]);
    assert_eq!(code, 2, "{log}");
    assert!(log.contains("EISDIR") && log.contains(SOMAXCONN), "{log}");
}

#[test]
fn policy_is_applied_watched_and_repaired_without_a_cluster() {
    let node = Node::new();
    let path = replace(
        &node,
        &somaxconn("5000", ", nodeSelector: {matchLabels: {a: b}}"),
    );
    let running = Running::start(&node, &["--policy", &path]);
    running.wait("the value", || node.get(SOMAXCONN) == "5000");
    running.wait("ready", || {
        running.page("/readyz").starts_with("HTTP/1.1 200")
    });
    let log = running.log();
    assert!(
        log.contains("ignored policy fields") && log.contains("nodeSelector"),
        "{log}"
    );
    node.set(SOMAXCONN, "1");
    running.wait("the repair", || node.get(SOMAXCONN) == "5000");
    running.wait("the report", || {
        running.log().contains("1 of 1 sysctl applied")
    });
    let metrics = running.page("/metrics");
    // There is no API server here: an alert on it would never end.
    assert!(
        !metrics.contains("nettune_agent_api_reachable"),
        "{metrics}"
    );
    for line in [
        "nettune_agent_policy_current 1",
        "nettune_agent_policy_loads_total{result=\"ok\"} 1",
        "nettune_agent_drifts_total{sysctl=\"net.core.somaxconn\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }
    assert_eq!(running.stop(), 0);
}

#[test]
fn changed_file_is_applied_and_an_invalid_or_missing_one_is_ignored() {
    let node = Node::new();
    let path = replace(&node, &somaxconn("5000", ""));
    let running = Running::start(&node, &["--policy", &path]);
    running.wait("the value", || node.get(SOMAXCONN) == "5000");

    replace(&node, &somaxconn("5001", ""));
    running.wait("a rename over it", || node.get(SOMAXCONN) == "5001");
    fs::write(&path, somaxconn("5002", "")).unwrap();
    running.wait("a write", || node.get(SOMAXCONN) == "5002");

    replace(&node, &policy("{conntrak: {}}"));
    let is_kept = || {
        let metrics = running.page("/metrics");
        metrics.contains("nettune_agent_policy_current 0")
    };
    running.wait("the refusal", is_kept);
    let log = running.log();
    let said = log
        .lines()
        .find(|line| line.contains("spec.conntrak"))
        .unwrap();
    assert!(
        said.contains("ERROR") && said.contains(&path) && said.contains("stays in force"),
        "{said}"
    );
    node.set(SOMAXCONN, "1");
    running.wait("the last one to be kept", || node.get(SOMAXCONN) == "5002");

    fs::remove_file(&path).unwrap();
    running.wait("the loss", || {
        running.log().contains("the policy file was deleted")
    });
    node.set(SOMAXCONN, "1");
    running.wait("the last one to be kept", || node.get(SOMAXCONN) == "5002");
    replace(&node, &somaxconn("5003", ""));
    running.wait("the file to be back", || node.get(SOMAXCONN) == "5003");
    assert!(!is_kept());
}

/// As kubelet writes it: the file is a link through `..data`, which is turned in one step.
#[test]
fn swapped_config_map_is_applied() {
    let node = Node::new();
    let dir = node.dir.path().join("mounted");
    for (version, value) in [("..1", "5000"), ("..2", "5001")] {
        fs::create_dir_all(dir.join(version)).unwrap();
        fs::write(dir.join(version).join("policy.yaml"), somaxconn(value, "")).unwrap();
    }
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/policy.yaml", dir.join("policy.yaml")).unwrap();
    let path = dir.join("policy.yaml");
    let running = Running::start(&node, &["--policy", path.to_str().unwrap()]);
    running.wait("the value", || node.get(SOMAXCONN) == "5000");
    symlink("..2", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    running.wait("the next one", || node.get(SOMAXCONN) == "5001");
}

#[test]
fn sighup_reads_the_policy_and_does_not_reapply_the_same() {
    let node = Node::new();
    let path = replace(&node, &somaxconn("5000", ", mode: ApplyOnce"));
    let running = Running::start(&node, &["--policy", &path]);
    running.wait("the value", || node.get(SOMAXCONN) == "5000");
    running.wait("its report", || {
        running.log().contains("1 of 1 sysctl applied")
    });
    node.set(SOMAXCONN, "1");
    running.signal(Signal::HUP);
    let loaded_twice = || {
        running
            .page("/metrics")
            .contains("loads_total{result=\"ok\"} 2")
    };
    running.wait("the second load", loaded_twice);
    running.wait("the drift to be said", || {
        running.log().contains("ApplyOnce does not undo")
    });
    assert_eq!(running.stop(), 0);
    assert_eq!(run(&node, &["--policy", &path, "--once"]).0, 2);
    assert_eq!(
        node.get(SOMAXCONN),
        "1",
        "it was applied once, in this boot too"
    );
}

#[test]
fn invalid_policy_at_startup_keeps_the_saved_profile() {
    let mut node = Node::new();
    let path = replace(&node, "spec: [");
    let (code, _, log) = run(&node, &["--policy", &path]);
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains(&path) && log.contains("not valid YAML"),
        "{log}"
    );

    replace(&node, &somaxconn("5000", ""));
    assert_eq!(run(&node, &["--policy", &path, "--once"]).0, 0);
    replace(&node, "spec: [");
    node.boot_id = "boot-2";
    node.set(SOMAXCONN, "128");
    let running = Running::start(&node, &["--policy", &path]);
    running.wait("the value", || node.get(SOMAXCONN) == "5000");
    assert!(
        running.log().contains("not valid YAML"),
        "{}",
        running.log()
    );
    drop(running);
    node.set(SOMAXCONN, "128");
    let (code, _, log) = run(&node, &["--policy", &path, "--once"]);
    assert_eq!((code, node.get(SOMAXCONN).as_str()), (1, "5000"), "{log}");
}

#[test]
fn conflict_over_an_observed_key_does_not_fill_the_log() {
    for mode in ["Observe", "ApplyOnce"] {
        let node = Node::new();
        node.set(SOMAXCONN, "5000");
        let path = replace(&node, &somaxconn("5000", &format!(", mode: {mode}")));
        let running = Running::start(&node, &["--policy", &path]);
        running.wait("the first report", || {
            running.log().contains("1 of 1 sysctl applied")
        });
        for _ in 0..60 {
            for value in ["1", "5000"] {
                node.set(SOMAXCONN, value);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        let log = running.log();
        let drifts = log.matches("sysctl was changed by another process").count();
        assert_eq!(drifts, 1, "{log}");
        assert!(log.lines().count() < 60, "{log}");
        // The metric has each of them.
        let metrics = running.page("/metrics");
        let counted = metrics.split("nettune_agent_drifts_total{sysctl=\"net.core.somaxconn\"} ");
        let counted = counted.last().unwrap().lines().next().unwrap();
        assert!(counted.parse::<u64>().unwrap() > 10, "{counted}");
    }
}

#[test]
fn removed_table_has_no_metrics() {
    let node = Node::new();
    let path = replace(&node, &somaxconn("5000", ""));
    let running = Running::start(&node, &["--policy", &path]);
    let entries = "nettune_table_entries{table=\"conntrack\"}";
    running.wait("its entries", || running.page("/metrics").contains(entries));
    fs::remove_file(node.path("net.netfilter.nf_conntrack_count")).unwrap();
    running.wait("no entries", || !running.page("/metrics").contains(entries));
}

#[test]
fn sysctl_root_without_net_is_an_error() {
    let node = Node::new();
    let path = replace(&node, &somaxconn("5000", ", neighbors: {}"));
    fs::remove_dir_all(node.dir.path().join("proc/sys/net")).unwrap();
    for command in [
        &["--policy", &path, "--once"][..],
        &["check", "--policy", &path],
    ] {
        let (code, _, log) = run(&node, command);
        assert_eq!(code, 1, "{log}");
        assert!(log.contains("--sysctl-root"), "{log}");
    }
}

#[test]
fn problems_are_logged_as_warnings() {
    let node = Node::new();
    let path = replace(&node, &somaxconn("5000", ""));
    let running = Running::start(&node, &["--policy", &path]);
    let level = |status: &str| {
        let log = running.log();
        let is_ready =
            |line: &&str| line.contains("\"Ready\"") && line.contains(&format!("\"{status}\""));
        let line = log.lines().rfind(is_ready)?;
        Some(["WARN", "INFO"].map(|level| line.contains(level)))
    };
    running.wait("readiness", || level("True") == Some([false, true]));
    node.link(SOMAXCONN, "/");
    running.wait("a warning", || level("False").is_some());
    assert_eq!(level("False"), Some([true, false]), "{}", running.log());
}

#[test]
fn restoring_policy_restores_everything_and_reports_what_is_left() {
    let node = Node::new();
    let sysctls = "[{name: net.core.somaxconn, value: '5000'}]";
    let path = replace(
        &node,
        &policy(&format!("{{conntrack: {{}}, sysctls: {sysctls}}}")),
    );
    assert_eq!(run(&node, &["--policy", &path, "--once"]).0, 0);
    assert_eq!(node.get(SOMAXCONN), "5000");
    node.set(MAX, "77777");
    replace(&node, &policy("{releasePolicy: Restore}"));
    let (code, _, log) = run(&node, &["--policy", &path, "--once"]);
    assert_eq!((code, node.get(SOMAXCONN).as_str()), (0, "128"), "{log}");
    assert_eq!(node.get(MAX), "77777");
    let left = log.lines().filter(|line| line.contains(MAX));
    let left: Vec<&str> = left.collect();
    assert!(
        left.len() == 1 && left[0].contains("another process has set it since"),
        "{log}"
    );
}
