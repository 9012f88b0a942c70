//! `nettune-operator`: sizes every node that a NodeNetworkTuning selects.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgAction, Parser};
use nettune_operator::{AgentSelector, Candidate, Clients, Metrics, Settings};
use nettune_runtime::not_before::NotBefore;
use nettune_runtime::serve::{Endpoint, Health};
use nettune_runtime::{api, logging, metrics::register_build_info, shutdown, tls};
use prometheus_client::registry::Registry;
use tracing::{error, info};

/// Sizes the kernel network tables of every node that a NodeNetworkTuning selects, and writes a
/// NodeNetworkProfile for each, which the node's agent applies.
///
/// Logs go to stderr (RUST_LOG sets the level). Ends within two seconds on SIGTERM.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where metrics and health are served; port 0 takes a free one and logs it
    #[arg(long, default_value = "0.0.0.0:9465", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// A kubeconfig; left out, the pod's service account
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Of several operators only the one writes that holds the Lease nettune-operator; false where it
    /// is certain that there is one at most
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    leader_elect: bool,

    /// Namespace of the Lease; left out, that of the pod, or the kubeconfig's
    #[arg(long, value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// After this long without a renewal another operator takes over; the one that cannot renew stops
    /// writing and ends after two thirds of it
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=600), value_name = "SECONDS")]
    lease_seconds: u16,

    /// Take the taint nettune.dev/not-ready off a Node when its profile is first Ready, or a minute
    /// after the Node was seen with it. Whoever creates Nodes sets it (the kubelet's
    /// --register-with-taints)
    #[arg(long)]
    startup_taint: bool,

    /// The agents' Pods, by namespace and labels, for example
    /// nettune/app.kubernetes.io/name=nettune-agent: one that is not ready for
    /// rollout.nodeDeadlineSeconds counts as unresponsive. Needs the right to list and watch Pods there. Left
    /// out, agents are judged by their Nodes and profiles alone
    #[arg(long, value_name = "NAMESPACE/LABELS")]
    agent_selector: Option<AgentSelector>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tls::install();
    logging::init();
    match operate(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure:#}");
            ExitCode::FAILURE
        }
    }
}

async fn operate(arguments: Arguments) -> anyhow::Result<()> {
    let shutdown = shutdown::signal()?;
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
    info!(
        version = env!("CARGO_PKG_VERSION"),
        "nettune-operator starts"
    );
    let served = endpoint.run(Arc::new(registry), health.clone(), shutdown.clone());
    let candidate = arguments.leader_elect.then(|| {
        let own = client.default_namespace().to_owned();
        let namespace = arguments.lease_namespace.unwrap_or(own);
        let good_for = Duration::from_secs(arguments.lease_seconds.into());
        Candidate::new(client.clone(), &namespace, identity(), good_for)
    });
    let settings = Settings {
        startup_taint: arguments.startup_taint,
        agents: arguments.agent_selector,
    };
    let operated = nettune_operator::run(clients, candidate, settings, metrics, health, shutdown);
    // Both end when shutdown is asked for; the first that fails ends the other.
    tokio::try_join!(
        async { served.await.context("serving metrics and health") },
        async { operated.await.context("operating") },
    )?;
    Ok(())
}

/// The host's name, for people, and what no other process has: pods on the host's network share its name.
fn identity() -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    format!("{host}_{}", uuid::Uuid::new_v4())
}
