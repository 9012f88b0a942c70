//! `--once`: applies the profile once, logs the result, and exits.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nettune_agent::agent::{Agent, ProfileUpdate};
use nettune_agent::api::profiles::{FetchError, fetch};
use nettune_agent::metrics::Metrics;
use nettune_agent::standalone::policy_watch::PolicyMetrics;
use nettune_agent::status::NodeReport;
use nettune_crds::KeyState;
use nettune_runtime::api::in_words;
use nettune_runtime::backoff::pauses;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::cmd::args::RunArguments;
use crate::cmd::host_env::{HostEnv, first_update};

/// Not every sysctl has its desired value.
const NOT_APPLIED: u8 = 2;

pub(crate) async fn run(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let env = HostEnv::of(&arguments.host, arguments.node_name)?;
    let (report, reports) = watch::channel(None);
    // Nobody scrapes a process that exits at once.
    let metrics = Metrics::register(&mut Registry::default());
    let mut agent = Agent::new(env.agent_config(metrics, report));
    let is_current = match arguments.policy {
        Some(path) => {
            let hints = arguments.hints.hints();
            let mut policy = env.standalone(path, hints, PolicyMetrics::default());
            let update = first_update(&mut policy)?;
            let is_current = update.is_some();
            update.into_iter().for_each(|update| agent.take(update));
            agent.turn();
            is_current
        }
        None => {
            // First the last saved profile, before anything that takes time.
            agent.turn();
            let wait = Duration::from_secs(arguments.timeout);
            match ask(arguments.kubeconfig.as_deref(), &env.node, wait).await {
                Ok(update) => {
                    agent.take(update);
                    agent.turn();
                }
                Err(error)
                    if last_report(&reports).is_some_and(|found| found.revision.is_some()) =>
                {
                    let (node, error) = (&env.node, in_words(&error));
                    tracing::warn!(
                        node,
                        error,
                        "no answer from the API server; applied the last saved profile"
                    );
                }
                Err(error) => return Err(error.into()),
            }
            true
        }
    };
    let applied = last_report(&reports).is_some_and(|found| is_applied(&env.node, &found));
    Ok(match (is_current, applied) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(NOT_APPLIED),
    })
}

/// Asks for the profile until there is one or the time is up: a new node's profile is written a moment
/// after the node has joined.
async fn ask(
    kubeconfig: Option<&Path>,
    node: &str,
    wait: Duration,
) -> Result<ProfileUpdate, FetchError> {
    let until = Instant::now() + wait;
    let mut pauses = pauses();
    let mut last = None;
    loop {
        match timeout_at(until, fetch(kubeconfig, node)).await {
            Ok(Ok(update @ ProfileUpdate::Profile(_))) => return Ok(update),
            Ok(answer) => last = Some(answer),
            Err(_) => {}
        }
        let next = Instant::now() + pauses.next().unwrap_or_default();
        if next >= until {
            let unresponsive = || Err(FetchError::Silent { waited: wait });
            return last.unwrap_or_else(unresponsive);
        }
        sleep_until(next).await;
    }
}

fn last_report(reports: &watch::Receiver<Option<Arc<NodeReport>>>) -> Option<Arc<NodeReport>> {
    reports.borrow().clone()
}

/// Logs each key that is not applied; returns whether all are, as far as possible now.
fn is_applied(node: &str, found: &NodeReport) -> bool {
    let mut applied = true;
    if let Some((_, error)) = &found.malformed {
        applied = false;
        tracing::error!(node, error, "cannot read the profile");
    }
    if found.revision.is_none() {
        tracing::info!(node, "this node has no profile; nothing to apply");
    }
    // Keys that are no longer managed were logged before.
    let managed = || found.keys.iter().filter(|key| !key.dropped);
    for key in managed() {
        let (name, state, message) = (&*key.name, key.state, &key.message);
        match state {
            KeyState::Applied => {}
            KeyState::Waiting | KeyState::NotApplicable => {
                tracing::info!(
                    node,
                    key = name,
                    ?state,
                    message,
                    "not applied yet, or not applicable"
                );
            }
            KeyState::Drifted | KeyState::Contested | KeyState::Failed => {
                applied = false;
                tracing::error!(node, key = name, ?state, message, "not applied");
            }
        }
    }
    let holds = managed().filter(|key| key.state == KeyState::Applied);
    let (holds, of) = (holds.count(), managed().count());
    tracing::info!(node, applied = holds, of, "applied once");
    applied
}
