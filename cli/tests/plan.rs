//! `kubectl nettune plan`, as a process.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests may fail them"
)]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const THRESH3: &str = "net.ipv4.neigh.default.gc_thresh3";

fn data(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "data", name]
        .iter()
        .collect();
    path.to_str().unwrap().to_owned()
}

fn run(arguments: &[&str], stdin: &str) -> Output {
    let mut plan = Command::new(env!("CARGO_BIN_EXE_kubectl-nettune"))
        .arg("plan")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The process may exit without reading stdin.
    let _ = plan.stdin.take().unwrap().write_all(stdin.as_bytes());
    plan.wait_with_output().unwrap()
}

fn text(arguments: &[&str]) -> String {
    let output = run(arguments, "");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&text(&[arguments, &["-o", "json"]].concat())).unwrap()
}

fn value<'a>(group: &'a Value, name: &str) -> &'a str {
    let sysctls = group["sysctls"].as_array().unwrap();
    let sysctl = sysctls.iter().find(|sysctl| sysctl["name"] == name);
    sysctl.map_or("", |sysctl| sysctl["value"].as_str().unwrap())
}

/// What a plan that is refused prints on stderr.
fn refusal(arguments: &[&str], stdin: &str) -> String {
    let output = run(arguments, stdin);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
    stderr
}

#[test]
fn flags_describe_a_cluster_of_equal_nodes() {
    let plan = json(&["--nodes", "605", "--pods-per-node", "30"]);
    let [group] = &plan["groups"].as_array().unwrap()[..] else {
        panic!("one group: {plan}")
    };
    assert_eq!(group["nodes"], 605);
    assert_eq!(group["nodeNames"], Value::Array(Vec::new()));
    let thresh3 = &group["sysctls"][2];
    assert_eq!(thresh3["name"], THRESH3);
    assert_eq!(thresh3["value"], "8192");
    assert_eq!(thresh3["rule"], "AtLeast");
    let reason = thresh3["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("605 nodes, sized for 908; 30 pods"),
        "{reason}"
    );
    assert_eq!(group["warnings"], Value::Array(Vec::new()));
}

#[test]
fn every_flag_reaches_the_model() {
    let plain = json(&[])["groups"][0].clone();
    for flags in [
        &["--nodes", "1000"][..],
        &["--pods-per-node", "500"],
        &["--pod-network", "flat"],
        &["--pod-links", "point-to-point"],
        &["--memory", "512Mi"],
        &["--cores", "32"],
        &["--kernel", "5.4"],
        &["--size-for-nodes", "5000"],
        &["--cloud"],
    ] {
        let group = json(flags)["groups"][0].clone();
        let values = |group: &Value| {
            let sysctls = group["sysctls"].as_array().unwrap().clone();
            sysctls
                .iter()
                .map(|s| s["value"].clone())
                .collect::<Vec<_>>()
        };
        assert_ne!(values(&group), values(&plain), "{flags:?}");
    }
}

#[test]
fn routed_networks_need_less_on_old_kernels() {
    let tinder = [
        "--nodes",
        "605",
        "--pods-per-node",
        "30",
        "--kernel",
        "4.14",
    ];
    let routed = [&tinder[..], &["--pod-network", "routed"]].concat();
    assert_eq!(value(&json(&tinder)["groups"][0], THRESH3), "16384");
    assert_eq!(value(&json(&routed)["groups"][0], THRESH3), "8192");
}

#[test]
fn the_table_fits_in_a_hundred_columns() {
    let flags = [
        "--nodes", "5000", "--memory", "1Gi", "--kernel", "4.14", "--cloud",
    ];
    let nodes = data("nodes.json");
    for arguments in [&flags[..], &["--nodes-from", &nodes]] {
        let text = text(arguments);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{widest:?} columns in\n{text}");
        assert!(text.contains("\nNAME "), "{text}");
    }
}

#[test]
fn warnings_come_after_the_table() {
    let text = text(&["--nodes", "5000", "--memory", "1Gi"]);
    let (table, warnings) = text.split_once("\nwarning: ").unwrap();
    assert!(table.contains(THRESH3));
    assert!(
        warnings.contains("1 GiB") && !warnings.contains("AtLeast"),
        "{warnings}"
    );
}

#[test]
fn nodes_are_grouped_by_their_values() {
    let plan = json(&["--nodes-from", &data("nodes.json")]);
    let groups = plan["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2, "{plan}");
    assert_eq!(
        groups[0]["nodeNames"],
        serde_json::json!(["worker-1", "worker-2"])
    );
    assert_eq!(groups[0]["factsDiffer"], serde_json::json!(["memoryMiB"]));
    assert_eq!(groups[1]["nodeNames"], serde_json::json!(["big-1"]));
    assert_eq!(groups[1]["facts"]["kernel"], "5.4");
    assert_eq!(value(&groups[0], "net.ipv4.vs.conn_reuse_mode"), "1");
    assert_eq!(value(&groups[1], "net.ipv4.vs.conn_reuse_mode"), "0");
    let source = groups[0]["facts"]["podNetworkFrom"].as_str().unwrap();
    assert!(source.contains("Flannel"), "{source}");
}

#[test]
fn yaml_and_stdin_give_the_same_plan_as_a_json_file() {
    let from_file = json(&["--nodes-from", &data("nodes.json")]);
    assert_eq!(json(&["--nodes-from", &data("nodes.yaml")]), from_file);
    let stdin = std::fs::read_to_string(data("nodes.yaml")).unwrap();
    let output = run(&["--nodes-from", "-", "-o", "json"], &stdin);
    let from_stdin: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(from_stdin, from_file);
}

#[test]
fn a_single_node_is_accepted_as_well_as_a_list() {
    let list: Value =
        serde_json::from_str(&std::fs::read_to_string(data("nodes.json")).unwrap()).unwrap();
    let output = run(
        &["--nodes-from", "-", "-o", "json"],
        &list["items"][0].to_string(),
    );
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        plan["groups"][0]["nodeNames"],
        serde_json::json!(["worker-1"])
    );
}

#[test]
fn thousands_of_nodes_are_read_from_yaml() {
    let node = |n| {
        format!(
            "- kind: Node\n  metadata: {{name: n{n}, annotations: {{a: b, c: d, e: f}}}}\n  \
             status: {{capacity: {{cpu: '4', memory: 16Gi, pods: '110'}}}}\n"
        )
    };
    let list: String = (0..15_000).map(node).collect();
    let output = run(
        &["--nodes-from", "-", "-o", "json"],
        &format!("apiVersion: v1\nkind: List\nitems:\n{list}"),
    );
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["groups"][0]["nodes"], 15_000);
}

#[test]
fn tunings_select_nodes_by_labels() {
    let plan = json(&["--nodes-from", &data("nodes.json"), "-f", &data("big.yaml")]);
    let groups = plan["groups"].as_array().unwrap();
    assert_eq!(groups[0]["tuning"], "workers");
    assert_eq!(value(&groups[0], THRESH3), "");
    assert_eq!(groups[1]["tuning"], "big");
    assert_eq!(value(&groups[1], THRESH3), "60000");
    assert_eq!(value(&groups[1], "net.core.somaxconn"), "4096");
    let warning = groups[1]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("net.core.somaxconn"), "{warning}");
}

#[test]
fn unselected_nodes_are_listed() {
    let tuning = std::fs::read_to_string(data("big.yaml")).unwrap();
    let big = tuning.split("---").next().unwrap();
    let nodes = data("nodes.json");
    let arguments = ["--nodes-from", &nodes, "-f", "-"];
    let output = run(&[&arguments[..], &["-o", "json"]].concat(), big);
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        plan["notSelected"],
        serde_json::json!(["worker-1", "worker-2"])
    );
    let output = run(&arguments, big);
    let text = String::from_utf8(output.stdout).unwrap();
    let last = "2 nodes are not selected by any tuning: worker-1, worker-2\n";
    assert!(text.ends_with(last), "{text}");
}

#[test]
fn yaml_and_json_output_are_equal() {
    let nodes = data("nodes.json");
    let yaml = text(&["--nodes-from", &nodes, "-o", "yaml"]);
    let yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(yaml, json(&["--nodes-from", &nodes]));
}

#[test]
fn invalid_flags_print_one_line_and_exit_with_2() {
    for (arguments, part) in [
        (&["--nodes", "x"][..], "a whole number from 1 to 100000"),
        (&["--nodes", "0"], "a whole number from 1 to 100000"),
        (&["--pod-network", "mesh"], "overlay, routed, flat"),
        (&["--memory", "12XB"], "16Gi"),
        (&["--kernel", "latest"], "5.15.0-1053-aws"),
        (&["--bogus"], "--bogus"),
        (&["--nodes-from", "x", "--nodes", "3"], "--nodes <N>"),
        (&["-f", "-", "--nodes-from", "-"], "stdin"),
        (&["-o", "xml"], "text, json, yaml"),
    ] {
        let line = refusal(arguments, "");
        assert!(line.contains(part), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

#[test]
fn unusable_files_are_named_in_the_error() {
    let nodes = data("nodes.json");
    for (arguments, stdin, part) in [
        (&["-f", "/nowhere.yaml"][..], "", "/nowhere.yaml"),
        (&["-f", "-"], "a: [", "stdin is not valid YAML"),
        (
            &["--nodes-from", "-"],
            "{\"kind\":",
            "stdin is not valid JSON",
        ),
        (&["--nodes-from", "-"], "", "contains no Node"),
        (&["--nodes-from", "-"], "kind: Pod", "a Pod, not a Node"),
        (&["-f", &nodes], "", "a Node, not a NodeNetworkTuning"),
        (&["-f", &data("big.yaml")], "", "2 tunings"),
    ] {
        let line = refusal(arguments, stdin);
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn an_invalid_tuning_is_refused_with_the_path_of_the_field() {
    for (spec, part) in [
        ("{conntrak: {}}", "spec.conntrak is not a known field"),
        (
            "{neighbors: {podNetwork: Mesh}}",
            "expected one of Auto, Overlay",
        ),
        (
            "{neighbors: {sizeForNodes: 0}}",
            "spec.neighbors.sizeForNodes is 0",
        ),
        ("{neighbors: {sizeForNodes: many}}", "a whole number from 1"),
        (
            "{neighbors: {thresholds: {gcThresh1: 1}}}",
            "gcThresh2 is required",
        ),
        (
            "{neighbors: {thresholds: {gcThresh1: 3, gcThresh2: 2, gcThresh3: 4}}}",
            "must be in ascending order",
        ),
        (
            "{sysctls: [{name: net.core.somaxconn, value: 1}]}",
            "spec.sysctls[0].value is 1; expected a string in quotes",
        ),
        (
            "{sysctls: [{name: kernel.panic, value: '1'}]}",
            "allow-list",
        ),
        (
            "{sysctls: [{name: net.netfilter.nf_conntrack_max, value: '1'}]}",
            "managed by `spec.conntrack`",
        ),
        (
            "{conntrack: {minEntries: 5, maxEntries: 4}}",
            "greater than maxEntries",
        ),
        ("[]", "spec is []"),
    ] {
        let tuning = format!(
            "apiVersion: nettune.dev/v1alpha1\nkind: NodeNetworkTuning\n\
             metadata: {{name: mine}}\nspec: {spec}"
        );
        let line = refusal(&["-f", "-"], &tuning);
        let what = "error: stdin: NodeNetworkTuning mine is invalid\n  caused by: spec";
        assert!(line.starts_with(what), "{line}");
        assert_eq!(line.matches(part).count(), 1, "{part} in {line}");
    }
}

#[test]
fn errors_are_text_with_each_cause_on_its_own_line() {
    assert_eq!(
        refusal(&["-f", "/nowhere.yaml"], ""),
        "error: cannot read /nowhere.yaml\n  caused by: No such file or directory (os error 2)\n"
    );
}

#[test]
fn help_has_examples() {
    let help = text(&["--help"]);
    for part in ["kubectl get nodes -o json |", "[default: 16Gi]", "AtLeast"] {
        assert!(help.contains(part), "{part}");
    }
}

#[test]
fn a_closed_stdout_is_not_an_error() {
    let mut plan = Command::new(env!("CARGO_BIN_EXE_kubectl-nettune"))
        .args(["plan", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(plan.stdout.take());
    let output = plan.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}
