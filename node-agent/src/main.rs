//! The nettune agent: keeps the kernel network tables of its node as the node's profile says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use futures::FutureExt;
use nettune_agent::agent::{Agent, Setup};
use nettune_agent::facts::Identity;
use nettune_agent::link::Link;
use nettune_agent::metrics::Metrics;
use nettune_agent::procfs::Roots;
use nettune_agent::state::StateDir;
use nettune_daemon::serve::{Endpoint, Health};
use nettune_daemon::{api, error, logging, metrics, shutdown, tls};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// Keeps the kernel network tables of this node as its NodeNetworkProfile says.
///
/// It writes allow-listed sysctls below net/ and nothing else, needs no Linux capability, and goes on
/// with the last profile while the API server is away.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Name of this node; its profile has the same name.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// What stands for /proc/sys: in a pod, where the host's is mounted.
    #[arg(long, default_value = "/proc/sys")]
    sysctl_root: PathBuf,
    /// What stands for /proc: counters, routes, boot id.
    #[arg(long, default_value = "/proc")]
    proc_root: PathBuf,
    /// Where originals and the last profile are kept across restarts.
    #[arg(long, default_value = "/var/lib/nettune")]
    state_dir: PathBuf,
    /// Address of /metrics, /healthz and /readyz; port 0 takes a free one and logs it.
    #[arg(long, default_value = "127.0.0.1:9464")]
    listen: SocketAddr,
    /// The kubeconfig to reach the API server with; without it, the pod's service account.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::init();
    tls::install();
    // One thread: reading the kernel's files takes microseconds, and an idle thread takes memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime");
    let ended = runtime.and_then(|runtime| {
        let ended = runtime.block_on(run(arguments));
        // Not waiting for a name that is still being resolved.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!(error = error::chain(failure.as_ref()), "ending");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let shutdown = shutdown::signal()?;
    let client = api::client(arguments.kubeconfig.as_deref()).await?;
    let roots = Roots {
        sysctl: arguments.sysctl_root,
        proc: arguments.proc_root,
    };
    let identity = Arc::new(Identity::read(&roots)?);
    let endpoint = Endpoint::bind(arguments.listen)?;
    let mut registry = Registry::default();
    metrics::register_build_info(&mut registry, "nettune-agent", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::register(&mut registry);
    let (order, orders) = watch::channel(None);
    let (found, findings) = watch::channel(None);
    let node = arguments.node_name;
    let link = Link::new(client, &node, order, findings, metrics.clone());
    let agent = Agent::new(Setup {
        state: StateDir::new(&arguments.state_dir, &node, &identity.boot_id),
        node,
        roots,
        identity,
        metrics,
        findings: found,
    });
    let health = Health::new();
    let worked = agent.run(orders, health.clone(), shutdown.clone());
    let worked = worked.map(Ok::<(), anyhow::Error>);
    let linked = link.run(shutdown.clone());
    let served = endpoint.run(Arc::new(registry), health, shutdown);
    tokio::try_join!(task(worked), task(linked), task(served))?;
    Ok(())
}

/// Runs a part in a task of its own: one that is woken in the main one goes through the kernel each
/// time, which is ten times a second here.
async fn task<E: Into<anyhow::Error> + Send + 'static>(
    part: impl Future<Output = Result<(), E>> + Send + 'static,
) -> anyhow::Result<()> {
    tokio::spawn(part).await?.map_err(Into::into)
}
