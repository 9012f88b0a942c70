//! The nettune agent: keeps the kernel network sysctls of its node as the node's profile says.

mod cmd;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use futures::FutureExt;
use futures::future::Either;
use nettune_agent::agent::Agent;
use nettune_agent::api::profile_watch::ProfileWatch;
use nettune_agent::kernel::sandbox::Sandbox;
use nettune_agent::metrics::Metrics;
use nettune_agent::standalone::policy_watch::{self, PolicyMetrics};
use nettune_runtime::serve::{Endpoint, Health};
use nettune_runtime::{error, logging, metrics, shutdown, tls};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use cmd::args::{Command, RunArguments};
use cmd::host_env::HostEnv;

fn main() -> ExitCode {
    let arguments = match cmd::args::parse() {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    logging::init();
    if let Some(Command::Check(arguments)) = arguments.command {
        return cmd::check::run(&arguments).unwrap_or_else(|failure| {
            eprintln!("{}", nettune_offline::error::text(failure.as_ref()));
            ExitCode::FAILURE
        });
    }
    block_on(arguments.run).unwrap_or_else(|failure| {
        tracing::error!(
            error = error::chain(failure.as_ref()),
            "exiting after an error"
        );
        ExitCode::FAILURE
    })
}

fn block_on(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    tls::install();
    // Before there is another thread, or any input from outside.
    let sandbox = Sandbox::enforce(&arguments.needs());
    // One thread: reading the kernel's files takes microseconds, and an idle thread takes memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let ended = runtime.block_on(async {
        if arguments.once {
            cmd::once::run(arguments).await
        } else {
            run(arguments, &sandbox).await.map(|()| ExitCode::SUCCESS)
        }
    });
    // Without waiting for a pending DNS lookup.
    runtime.shutdown_background();
    ended
}

async fn run(arguments: RunArguments, sandbox: &Sandbox) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signal()?;
    let hangups = signal(SignalKind::hangup()).context("cannot install a SIGHUP handler")?;
    let env = HostEnv::of(&arguments.host, arguments.node_name)?;
    let mut registry = Registry::default();
    metrics::register_build_info(&mut registry, "nettune-agent", env!("CARGO_PKG_VERSION"));
    sandbox.register(&mut registry);
    let metrics = Metrics::register(&mut registry);
    let (update, updates) = watch::channel(None);
    let (report, reports) = watch::channel(None);
    let mut standalone = None;
    let mut first = None;
    if let Some(path) = arguments.policy {
        let policy_metrics = PolicyMetrics::register(&mut registry);
        let hints = arguments.hints.hints();
        let mut policy = env.standalone(path, hints, policy_metrics);
        first = cmd::host_env::first_update(&mut policy)?;
        standalone = Some(policy);
    }
    let mut agent = Agent::new(env.agent_config(metrics.clone(), report));
    first.into_iter().for_each(|update| agent.take(update));
    // Before anything that can fail or take time.
    agent.turn();

    let endpoint = Endpoint::bind(arguments.listen)?;
    let health = Health::new();
    let worked = agent.run(updates, health.clone(), shutdown.clone());
    let synced = match standalone {
        Some(policy) => {
            let reported = policy_watch::report(reports, env.node, shutdown.clone());
            let watched = policy.run(update, hangups, shutdown.clone());
            Either::Left(futures::future::join(watched, reported).map(|_| Ok(())))
        }
        None => {
            metrics.register_api(&mut registry);
            let watch =
                ProfileWatch::new(arguments.kubeconfig, &env.node, update, reports, metrics);
            Either::Right(watch.run(shutdown.clone()))
        }
    };
    let served = endpoint.run(Arc::new(registry), health, shutdown);
    tokio::try_join!(task(worked), task(synced), task(served))?;
    Ok(())
}

/// Runs a part in its own task: waking the main task takes a system call each time, which would be ten
/// times a second here.
async fn task<E: Into<anyhow::Error> + Send + 'static>(
    part: impl Future<Output = Result<(), E>> + Send + 'static,
) -> anyhow::Result<()> {
    tokio::spawn(part).await?.map_err(Into::into)
}
