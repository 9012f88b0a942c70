//! What nobody should ever send, to the real process: said on its key or its object, nothing else
//! touched, memory bounded.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod node;
mod process;

use std::fs;

use node::{MAX, Node, SOMAXCONN, THRESH3};
use process::{Running, run};
use serde_json::{Value, json};

/// A debug build at rest takes 20 MiB; what is read of any input is bounded to 4 MiB.
const MOST_MEMORY_KIB: u64 = 64 * 1024;

/// A node whose state directory holds a profile, as if the API server had sent it.
fn with_profile(spec: &Value) -> Node {
    let node = Node::new();
    let state = json!({
        "format": "nettune-agent-state", "version": 1, "node": "n1", "boot_id": "boot-1",
        "originals_lost": false, "source": {"uid": "u", "generation": 1, "spec": spec},
        "records": {}, "applied_once": null, "released": null,
    });
    node.put(&node.state(), &state.to_string());
    node
}

fn once(node: &Node) -> (i32, String) {
    let away = [
        "--once",
        "--node-name",
        "n1",
        "--timeout",
        "1",
        "--kubeconfig",
        "/nonexistent",
    ];
    let (code, _, log) = run(node, &away);
    (code, log)
}

/// The most memory that an agent which runs has taken.
fn peak_kib(running: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn sysctl(name: &str, value: &Value) -> Value {
    json!({"name": name, "rule": "Exact", "value": value})
}

#[test]
fn invalid_entries_are_reported_and_the_valid_one_is_applied() {
    let bad = [
        ("kernel.panic", json!("1")),
        ("net.core.somaxconn/../../../kernel/panic", json!("1")),
        (
            "net.ipv4.neigh.../../../../kernel.gc_stale_time",
            json!("1"),
        ),
        ("net.core.somaxconn\nnet.core.optmem_max", json!("1")),
        ("net.core.optmem_max", json!(5)),
        ("net.core.netdev_budget", json!("1\n2")),
        (MAX, json!("0")),
        (THRESH3, json!("2147483648")),
    ];
    let mut entries: Vec<Value> = bad
        .iter()
        .map(|(name, value)| sysctl(name, value))
        .collect();
    entries.push(json!({"name": SOMAXCONN, "rule": "Wish", "value": "1"}));
    entries.push(json!(null));
    entries.push(sysctl(SOMAXCONN, &json!("5000")));
    let node = with_profile(&json!({"tuning": "t", "sysctls": entries, "unknown": {"a": 1}}));
    let values = || [MAX, THRESH3, "kernel.osrelease"].map(|name| node.get(name));
    run(&node, &["--version"]);
    let before = values();
    let (code, log) = once(&node);
    assert_eq!((code, node.get(SOMAXCONN).as_str()), (2, "5000"), "{log}");
    assert_eq!(values(), before);
    for (name, _) in bad {
        let name = json!(name).to_string();
        let said = log
            .lines()
            .find(|line| line.contains(&name) && line.contains("not applied"));
        assert!(said.is_some(), "{name}:\n{log}");
    }
}

#[test]
fn malformed_profile_changes_nothing() {
    for spec in [
        json!([]),
        json!("text"),
        json!({"mode": "Wish"}),
        json!({"sysctls": {"a": 1}}),
    ] {
        let node = with_profile(&spec);
        let (code, log) = once(&node);
        assert_ne!(code, 0, "{spec}: {log}");
        assert!(log.contains("cannot read the profile"), "{spec}: {log}");
        assert_eq!(node.get(SOMAXCONN), "128");
    }
}

#[test]
fn ten_thousand_entries_and_a_huge_reason_take_little_memory() {
    let many: Vec<Value> = (0..10_000)
        .map(|n| {
            sysctl(
                &format!("net.ipv4.neigh.eth{n}.gc_stale_time"),
                &json!("60"),
            )
        })
        .collect();
    let mut entries = vec![sysctl(SOMAXCONN, &json!("5000"))];
    entries[0]["reason"] = json!("x".repeat(1 << 20));
    entries.extend(many);
    let node = with_profile(&json!({"tuning": "t", "sysctls": entries}));
    let running = Running::start(
        &node,
        &["--node-name", "n1", "--kubeconfig", "/nonexistent"],
    );
    running.wait("the value", || node.get(SOMAXCONN) == "5000");
    running.wait("ready", || {
        running.page("/readyz").starts_with("HTTP/1.1 200")
    });
    assert!(
        peak_kib(&running) < MOST_MEMORY_KIB,
        "{} KiB",
        peak_kib(&running)
    );
    let metrics = running.page("/metrics");
    assert!(
        metrics.contains("nettune_agent_sysctls{state=\"Failed\"} 1"),
        "{metrics}"
    );
}

#[test]
fn garbage_and_huge_text_from_the_kernel_block_nothing() {
    let node = with_profile(&json!({"tuning": "t", "sysctls": [
        sysctl(SOMAXCONN, &json!("5000")),
        {"name": THRESH3, "rule": "AtLeast", "value": "8192"},
    ]}));
    let proc = node.dir.path().join("proc");
    let huge = "entries \u{0} zz\n".repeat(1 << 20);
    for (name, text) in [
        ("net/stat/arp_cache", huge.as_str()),
        ("net/stat/ndisc_cache", ""),
        (
            "net/stat/nf_conntrack",
            "entries drop\nffffffffffffffffffffff -1\n",
        ),
        ("net/route", huge.as_str()),
        ("net/dev", "\u{0}\u{0}"),
        ("stat", huge.as_str()),
        ("version_signature", "Ubuntu 99999999999.1.1"),
    ] {
        node.put(&proc.join(name), text);
    }
    node.link(MAX, "/dev/zero");
    let running = Running::start(
        &node,
        &["--node-name", "n1", "--kubeconfig", "/nonexistent"],
    );
    running.wait("both values", || {
        node.get(SOMAXCONN) == "5000" && node.get(THRESH3) == "8192"
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(
        running.page("/healthz").starts_with("HTTP/1.1 200"),
        "{}",
        running.log()
    );
    assert!(
        peak_kib(&running) < MOST_MEMORY_KIB,
        "{} KiB",
        peak_kib(&running)
    );
    assert_eq!(running.stop(), 0);
}

#[test]
fn zeroed_state_is_set_aside_and_the_policy_is_applied() {
    let node = Node::new();
    node.put(&node.state(), &"\u{0}".repeat(1 << 16));
    let path = node.dir.path().join("policy.yaml");
    let policy = "apiVersion: nettune.dev/v1alpha1\nkind: NodeNetworkTuning\nmetadata: {name: t}\n\
                  spec: {sysctls: [{name: net.core.somaxconn, value: '5000'}]}\n";
    fs::write(&path, policy).unwrap();
    let (code, _, log) = run(&node, &["--policy", path.to_str().unwrap(), "--once"]);
    assert_eq!((code, node.get(SOMAXCONN).as_str()), (0, "5000"), "{log}");
    assert!(
        log.contains("original values are unknown until the next boot"),
        "{log}"
    );
    let aside = node.state().with_file_name("state.json.bad");
    assert_eq!(fs::read(aside).unwrap().len(), 1 << 16);
}

#[test]
fn invalid_policy_files_are_named_and_rejected_quickly() {
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
        (0..12)
            .map(|n| {
                let (this, last) = (char::from(b'b' + n), char::from(b'a' + n));
                format!(
                    "{this}: &{this} [{}]\n",
                    vec![format!("*{last}"); 9].join(",")
                )
            })
            .collect::<String>()
    );
    let deep = "[".repeat(100_000);
    let large = " ".repeat((1 << 20) + 1);
    let node = Node::new();
    let path = node.dir.path().join("policy.yaml");
    for text in [
        bomb.as_str(),
        &deep,
        &large,
        "",
        "\u{0}",
        "5",
        "{",
        "- a\n- b",
    ] {
        fs::write(&path, text).unwrap();
        let began = std::time::Instant::now();
        let (code, _, log) = run(&node, &["check", "--policy", path.to_str().unwrap()]);
        let start: String = text.chars().take(20).collect();
        assert_eq!(code, 1, "{start:?}: {log}");
        assert!(log.contains("policy.yaml"), "{start:?}: {log}");
        assert!(log.len() < 4096, "{start:?}: {} bytes", log.len());
        assert!(
            began.elapsed().as_secs() < 5,
            "{start:?}: {:?}",
            began.elapsed()
        );
    }
    for path in ["/dev/zero", "/", "/nonexistent"] {
        let (code, _, log) = run(&node, &["check", "--policy", path]);
        assert_eq!(code, 1, "{log}");
        assert!(log.contains(path), "{log}");
    }
}
