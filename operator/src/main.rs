//! `nettune-operator`: sizes every node that a NodeNetworkTuning selects.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgAction, Parser};
use nettune_operator::{AgentSelector, Candidate, Clients, Metrics, Settings};
use nettune_runtime::serve::{Endpoint, Health};
use nettune_runtime::throttle::NotBefore;
use nettune_runtime::{api, logging, metrics::register_build_info, shutdown, tls};
use prometheus_client::registry::Registry;
use tracing::{error, info};

/// Sizes the kernel network tables of every node that a NodeNetworkTuning selects. Writes one
/// NodeNetworkProfile per node, which the node's agent applies.
///
/// Logs go to stderr (RUST_LOG sets the level). Exits within two seconds after SIGTERM.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address for metrics and health checks; port 0 picks a free port and logs it
    #[arg(long, default_value = "0.0.0.0:9465", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Path of a kubeconfig [default: the pod's service account]
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Elect a leader with the Lease nettune-operator, so that only one of several operators writes. Set
    /// false only if there is never more than one
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    leader_elect: bool,

    /// Namespace of the Lease [default: the namespace of the pod or the kubeconfig]
    #[arg(long, value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// Lease duration: another operator takes over when the leader has not renewed for this long. A leader
    /// that cannot renew stops writing and exits after two thirds of it
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=600), value_name = "SECONDS")]
    lease_seconds: u16,

    /// Remove the taint nettune.dev/not-ready from a Node once its profile is Ready, or after a minute.
    /// Set the taint when Nodes are created, for example with the kubelet's --register-with-taints
    #[arg(long)]
    startup_taint: bool,

    /// Watch the agents' Pods, for example nettune/app.kubernetes.io/name=nettune-agent. An agent whose Pod is
    /// not ready for rollout.nodeDeadlineSeconds is unresponsive. Requires permission to list and watch
    /// Pods in that namespace
    #[arg(long, value_name = "NAMESPACE/LABELS")]
    agent_selector: Option<AgentSelector>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tls::install();
    logging::init();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signal()?;
    let mut registry = Registry::default();
    register_build_info(&mut registry, "nettune-operator", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::register(&mut registry);
    let health = Health::new();
    let kubeconfig = arguments.kubeconfig.as_deref();
    let client = api::client(kubeconfig).await?;
    let not_before = NotBefore::default();
    let clients = Clients {
        others: client.clone(),
        writes: api::no_retry_client(kubeconfig, not_before.clone()).await?,
        not_before,
    };
    let endpoint = Endpoint::bind(arguments.listen)?;
    info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let served = endpoint.run(Arc::new(registry), health.clone(), shutdown.clone());
    let candidate = arguments.leader_elect.then(|| {
        let own = client.default_namespace().to_owned();
        let namespace = arguments.lease_namespace.unwrap_or(own);
        let duration = Duration::from_secs(arguments.lease_seconds.into());
        Candidate::new(client.clone(), &namespace, identity(), duration)
    });
    let settings = Settings {
        startup_taint: arguments.startup_taint,
        agents: arguments.agent_selector,
    };
    let operated = nettune_operator::run(clients, candidate, settings, metrics, health, shutdown);
    // Both end on shutdown. The first that fails ends the other.
    tokio::try_join!(
        async {
            served
                .await
                .context("cannot serve metrics and health checks")
        },
        async { operated.await.context("the operator stopped") },
    )?;
    Ok(())
}

/// The host name, and a random part: pods on the host network share the host name.
fn identity() -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    format!("{host}_{}", uuid::Uuid::new_v4())
}
