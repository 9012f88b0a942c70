//! The agent over a directory that stands for /proc, with the faults that files can have.

mod node;

use std::fs;
use std::time::Duration;

use nettune_crds::KeyState;
use nettune_crds::conditions::{self, READY, RELEASED, reasons};
use node::{MAX, Node, SOMAXCONN, THRESH3, update, usual};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

#[test]
fn profile_is_applied_and_the_report_was_read_back() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    assert_eq!(
        [node.get(THRESH3), node.get(MAX), node.get(SOMAXCONN)],
        ["8192", "131072", "4096"]
    );
    let key = node.key(THRESH3);
    assert_eq!(
        (key.observed.as_deref(), key.original.as_deref()),
        (Some("8192"), Some("1024"))
    );
    assert_eq!(key.state, KeyState::Applied);
    let status = node.status();
    let ready = conditions::find(&status.conditions, READY).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.message.as_str()),
        ("True", "3 of 3 sysctls applied")
    );
    assert_eq!(
        status.tables.unwrap().neighbors.unwrap().usage,
        "<10% of 8192"
    );
}

#[test]
fn drift_is_undone_at_the_next_tick() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    node.set(THRESH3, "1024");
    agent.turn();
    assert_eq!(node.get(THRESH3), "8192");
    assert_eq!(node.key(THRESH3).drift_count, 1);
}

#[test]
fn key_that_disappears_is_applied_when_it_returns() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    fs::remove_file(node.path(MAX)).unwrap();
    agent.turn();
    let key = node.key(MAX);
    assert_eq!((key.state, key.observed), (KeyState::Waiting, None));
    assert!(key.message.contains("nf_conntrack"), "{}", key.message);
    node.set(MAX, "65536");
    agent.turn();
    assert_eq!(node.get(MAX), "131072");
    assert_eq!(node.key(MAX).drift_count, 0);
}

#[test]
fn replaced_file_is_read_again() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    let beside = node.dir.path().join("beside");
    node.put(&beside, "77\n");
    fs::rename(beside, node.path(SOMAXCONN)).unwrap();
    agent.turn();
    assert_eq!(node.get(SOMAXCONN), "4096");
}

/// Each with what the real system answers to root: a directory in a file's place, a file of procfs
/// that takes no such number, one that nobody may write, one whose start cannot be read.
#[test]
fn fault_of_a_key_is_reported_and_does_not_affect_others() {
    let faults = [
        ("/tmp", "EISDIR", "--sysctl-root"),
        (
            "/proc/self/oom_score_adj",
            "EINVAL",
            "set another one in the tuning",
        ),
        ("/proc/sys/kernel/osrelease", "EACCES", "as root"),
        ("/proc/self/mem", "EIO", "dmesg"),
    ];
    for (target, errno, what_to_do) in faults {
        let mut node = Node::new();
        node.link(SOMAXCONN, target);
        let mut agent = node.start();
        agent.take(usual());
        agent.turn();
        let key = node.key(SOMAXCONN);
        assert_eq!(key.state, KeyState::Failed, "{target}");
        assert!(
            key.message.contains(errno) && key.message.contains(what_to_do),
            "{}",
            key.message
        );
        assert_eq!(node.get(THRESH3), "8192");
        let status = node.status();
        let ready = conditions::find(&status.conditions, READY).unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", reasons::FAILED)
        );
        assert!(
            ready.message.starts_with("net.core.somaxconn: "),
            "{}",
            ready.message
        );
    }
}

#[test]
fn pipe_or_endless_file_does_not_block_the_agent() {
    let mut node = Node::new();
    node.link(SOMAXCONN, "/dev/zero");
    fs::remove_file(node.path(MAX)).unwrap();
    mknodat(CWD, node.path(MAX), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    assert_eq!(node.key(SOMAXCONN).state, KeyState::Failed);
    assert_eq!(node.key(MAX).state, KeyState::Failed);
    assert_eq!(node.get(THRESH3), "8192");
}

#[test]
fn endless_writer_is_undone_after_pauses_and_does_not_block_the_agent() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    for _ in 0..500 {
        node.set(THRESH3, "1024");
        agent.turn();
        assert_eq!(node.get(MAX), "131072");
    }
    let drifts = node.key(THRESH3).drift_count;
    assert!((2..=8).contains(&drifts), "{drifts}");
    assert_eq!(node.key(SOMAXCONN).state, KeyState::Applied);
}

#[test]
fn malformed_profile_is_reported_and_the_last_one_stays() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    agent.take(update(2, &json!({"mode": "Wish"}), &[]));
    node.set(THRESH3, "1024");
    agent.turn();
    assert_eq!(node.get(THRESH3), "8192");
    let status = node.status();
    let ready = conditions::find(&status.conditions, READY).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", reasons::INVALID)
    );
    assert!(ready.message.contains("Wish"), "{}", ready.message);
    assert_eq!(status.observed_generation, Some(2));
    agent.take(update(3, &json!({}), &[(THRESH3, "AtLeast", "16384")]));
    agent.turn();
    assert_eq!(node.get(THRESH3), "16384");
    let status = node.status();
    assert!(conditions::is_true(&status.conditions, READY));
}

#[test]
fn unchanged_state_causes_no_report() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    node.reports.borrow_and_update();
    // Past the moment at which everything is looked at again.
    std::thread::sleep(Duration::from_millis(1100));
    agent.take(usual());
    agent.turn();
    assert!(!node.reports.has_changed().unwrap());
    node.set(SOMAXCONN, "128");
    agent.turn();
    assert!(node.reports.has_changed().unwrap());
}

#[test]
fn release_restores_originals() {
    let mut node = Node::new();
    let mut agent = node.start();
    agent.take(usual());
    agent.turn();
    agent.take(update(2, &json!({"release": true}), &[]));
    agent.turn();
    assert_eq!([node.get(THRESH3), node.get(SOMAXCONN)], ["1024", "128"]);
    let status = node.status();
    assert!(conditions::is_true(&status.conditions, RELEASED));
}
