//! The Helm chart: what it renders, and that what it grants is what the programs need.

use std::process::Command;

use anyhow::{Context as _, ensure};
use nettune_tests::artifacts::tools;
use nettune_tests::process::command;
use nettune_tests::workspace;
use serde_json::Value;

mod admission;
mod install;
mod render;
mod rights;

const NAMESPACE: &str = "nettune-system";

/// A helm command, run at the top of the workspace.
async fn helm(args: &[&str]) -> anyhow::Result<Command> {
    let program = tokio::task::spawn_blocking(tools::helm).await??;
    let mut helm = command(program);
    helm.current_dir(workspace::root()).args(args);
    Ok(helm)
}

/// Runs helm; what it prints, or its error.
async fn run(mut helm: Command) -> anyhow::Result<String> {
    let output = tokio::task::spawn_blocking(move || helm.output()).await??;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm: {}", stderr.trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// The chart's manifests as YAML.
async fn template(args: &[&str]) -> anyhow::Result<String> {
    let mut all = vec![
        "template",
        "nettune",
        "charts/nettune",
        "--namespace",
        NAMESPACE,
    ];
    all.extend(args);
    run(helm(&all).await?).await
}

/// The chart's objects.
async fn objects(args: &[&str]) -> anyhow::Result<Vec<Value>> {
    parse(&template(args).await?)
}

fn parse(yaml: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    Ok(documents.into_iter().filter(Value::is_object).collect())
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> anyhow::Result<&'a Value> {
    let found = objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.with_context(|| format!("no {kind} {name}"))
}

/// The only container of a Deployment or a DaemonSet.
fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

/// The flags of a container, without the address that it listens on.
fn flags(workload: &Value) -> Vec<String> {
    let args = container(workload)["args"].as_array().into_iter().flatten();
    args.filter_map(Value::as_str)
        .filter(|arg| !arg.starts_with("--listen"))
        .map(str::to_owned)
        .collect()
}
