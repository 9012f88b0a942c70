//! The agent of a cluster whose API server is away, as a process over a directory.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail them")]

mod node;
mod process;

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use node::{Node, SOMAXCONN};
use process::{Running, run};

const AWAY: [&str; 4] = ["--kubeconfig", "/nonexistent/kubeconfig", "--timeout", "1"];

/// A node whose agent has saved a profile, and whose value was lost since.
fn with_saved_profile(node_name: &str) -> Node {
    let node = Node::new();
    let path = node.dir.path().join("policy.yaml");
    let policy = "apiVersion: nettune.dev/v1alpha1\nkind: NodeNetworkTuning\nmetadata: {name: t}\n\
                  spec: {sysctls: [{name: net.core.somaxconn, value: '5000'}]}\n";
    fs::write(&path, policy).unwrap();
    let path = path.to_str().unwrap();
    let once = ["--policy", path, "--once", "--node-name", node_name];
    let (code, _, log) = run(&node, &once);
    assert_eq!(code, 0, "{log}");
    node.set(SOMAXCONN, "128");
    node
}

fn once(node: &Node, name: &str) -> (i32, String) {
    let arguments = [&["--once", "--node-name", name], &AWAY[..]].concat();
    let (code, _, log) = run(node, &arguments);
    (code, log)
}

#[test]
fn missing_kubeconfig_or_token_does_not_block_the_saved_profile() {
    let kubeconfig = [
        "--node-name",
        "n1",
        "--kubeconfig",
        "/nonexistent/kubeconfig",
    ];
    let pod = ["--node-name", "n1"];
    for arguments in [&kubeconfig[..], &pod] {
        let node = with_saved_profile("n1");
        let running = Running::start(&node, arguments);
        running.wait("the value", || node.get(SOMAXCONN) == "5000");
        running.wait("ready", || {
            running.page("/readyz").starts_with("HTTP/1.1 200")
        });
        node.set(SOMAXCONN, "1");
        running.wait("the repair", || node.get(SOMAXCONN) == "5000");
        let metrics = running.page("/metrics");
        assert!(
            metrics.contains("nettune_agent_api_reachable 0"),
            "{metrics}"
        );
        let log = running.log();
        let said = log.matches("API server unreachable; retrying");
        assert_eq!(said.count(), 1, "{log}");
        assert_eq!(running.stop(), 0);
    }
}

#[test]
fn agent_without_a_profile_is_ready_and_changes_nothing() {
    let node = Node::new();
    let before = node.get(SOMAXCONN);
    let arguments = [&["--node-name", "n1"], &AWAY[..2]].concat();
    let running = Running::start(&node, &arguments);
    running.wait("ready", || {
        running.page("/readyz").starts_with("HTTP/1.1 200")
    });
    assert_eq!(node.get(SOMAXCONN), before);
    assert_eq!(running.stop(), 0);
}

#[test]
fn once_applies_the_saved_profile_within_its_timeout() {
    let node = with_saved_profile("n1");
    let began = Instant::now();
    let (code, log) = once(&node, "n1");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!((code, node.get(SOMAXCONN).as_str()), (0, "5000"), "{log}");
    assert!(log.contains("no answer from the API server"), "{log}");
    assert!(log.contains("/nonexistent/kubeconfig"), "{log}");
}

#[test]
fn profile_of_another_node_is_not_applied_and_once_fails() {
    let node = with_saved_profile("another");
    let (code, log) = once(&node, "n1");
    assert_eq!((code, node.get(SOMAXCONN).as_str()), (1, "128"), "{log}");
    assert!(log.contains("/nonexistent/kubeconfig"), "{log}");
}

#[test]
fn profile_of_another_boot_is_applied_to_the_new_originals() {
    let mut node = with_saved_profile("n1");
    node.boot_id = "boot-2";
    node.set(SOMAXCONN, "77");
    let (code, log) = once(&node, "n1");
    assert_eq!((code, node.get(SOMAXCONN).as_str()), (0, "5000"), "{log}");
    let state = fs::read_to_string(node.state()).unwrap();
    assert!(state.contains(r#""original":"77""#), "{state}");
    assert!(state.contains(r#""boot_id":"boot-2""#), "{state}");
}

/// A kubeconfig whose token a program gets.
fn kubeconfig_with_a_program(node: &Node, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let program = node.dir.path().join("program");
    node.put(&program, &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = node.dir.path().join("kubeconfig");
    let exec = format!(
        "{{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: {}}}",
        program.display()
    );
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: x, \
          clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:9'}}}}], \
          users: [{{name: u, user: {{exec: {exec}}}}}], \
          contexts: [{{name: x, context: {{cluster: c, user: u}}}}]}}"
    );
    node.put(&path, &text);
    path.to_str().unwrap().to_owned()
}

#[test]
fn hanging_credential_plugin_blocks_neither_repair_nor_shutdown() {
    let node = with_saved_profile("n1");
    let path = kubeconfig_with_a_program(&node, "exec sleep 20");
    let running = Running::start(&node, &["--node-name", "n1", "--kubeconfig", &path]);
    running.wait("the value", || node.get(SOMAXCONN) == "5000");
    std::thread::sleep(Duration::from_millis(500));
    node.set(SOMAXCONN, "1");
    running.wait("the repair", || node.get(SOMAXCONN) == "5000");
    running.wait("the word", || {
        running.log().contains("has not answered within 5 s")
    });
    assert_eq!(running.stop(), 0);
}

#[test]
fn credential_plugin_may_write_to_dev_null() {
    let node = with_saved_profile("n1");
    let said = "if true >/dev/null; then echo it-may; else echo it-may-not; fi >&2; exit 1";
    let path = kubeconfig_with_a_program(&node, said);
    let running = Running::start(&node, &["--node-name", "n1", "--kubeconfig", &path]);
    running.wait("its word", || running.log().contains("it-may"));
    assert!(!running.log().contains("it-may-not"), "{}", running.log());
}

/// An API server that has lost the kind of the profiles: it answers 404 to whatever is asked.
fn kubeconfig_of_a_server_without_the_kind(node: &Node) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .count();
            let body = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","code":404}"#;
            let length = body.len();
            let head =
                "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: close";
            write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        }
    });
    let path = node.dir.path().join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: x, \
          clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}], \
          users: [{{name: u, user: {{}}}}], \
          contexts: [{{name: x, context: {{cluster: c, user: u}}}}]}}"
    );
    node.put(&path, &text);
    path.to_str().unwrap().to_owned()
}

#[test]
fn missing_kind_is_not_a_missing_profile_for_once() {
    let node = with_saved_profile("n1");
    let path = kubeconfig_of_a_server_without_the_kind(&node);
    let arguments = ["--once", "--timeout", "1", "--node-name", "n1"];
    let (code, _, log) = run(&node, &[&arguments[..], &["--kubeconfig", &path]].concat());
    assert_eq!((code, node.get(SOMAXCONN).as_str()), (0, "5000"), "{log}");
    assert!(log.contains("no answer from the API server"), "{log}");
    let state = fs::read_to_string(node.state()).unwrap();
    assert!(state.contains("net.core.somaxconn"), "{state}");
    assert!(!state.contains(r#""source":null"#), "{state}");
}
