//! `--once`: applies, says what came of it, and ends.

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

/// Not all is as wanted.
const NOT_APPLIED: u8 = 2;

pub(crate) async fn run(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let env = HostEnv::of(&arguments.host, arguments.node_name)?;
    let (report, reports) = watch::channel(None);
    // Nobody asks a process for metrics that ends at once.
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
            // What was kept of the last profile, before anything that has to be waited for.
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
                        "no word from the API server: what was kept of the last profile is applied"
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

/// Asks for the profile until there is one or the time is over: that of a new node is written a
/// moment after the node has joined.
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

/// Says of each key that is not applied what it is, and whether it is all right so.
fn is_applied(node: &str, found: &NodeReport) -> bool {
    let mut applied = true;
    if let Some((_, error)) = &found.malformed {
        applied = false;
        tracing::error!(node, error, "the profile cannot be read");
    }
    if found.revision.is_none() {
        tracing::info!(
            node,
            "there is no profile for this node: nothing is applied"
        );
    }
    // What is left of a key that is not managed any more was said before.
    let managed = || found.keys.iter().filter(|key| !key.dropped);
    for key in managed() {
        let (name, state, message) = (&*key.name, key.state, &key.message);
        match state {
            KeyState::Applied => {}
            KeyState::Waiting | KeyState::NotApplicable => {
                tracing::info!(node, key = name, ?state, message, "not yet, or not here");
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
