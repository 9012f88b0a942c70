//! What users see of a fault: conditions and metrics.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::ensure;
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use nettune_crds::{NodeNetworkTuning, NodeNetworkTuningStatus};
use nettune_tests::Cluster;
use nettune_tests::cluster::Member;
use tokio::task::JoinHandle;

use super::pool::Fault;
use super::{SOON, TUNING};

/// Every status that the tuning had since a moment, even briefly.
#[derive(Debug)]
pub(super) struct StatusLog {
    lines: Arc<Mutex<Vec<String>>>,
    watching: JoinHandle<()>,
}

impl StatusLog {
    fn by_the_tuning(client: Client) -> Self {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let reported = Arc::clone(&lines);
        let tunings = Api::<NodeNetworkTuning>::all(client);
        let watching = tokio::spawn(async move {
            let found = watcher::watch_object(tunings, TUNING).default_backoff();
            let mut found = std::pin::pin!(found);
            while let Some(found) = found.next().await {
                let status = found.ok().flatten().and_then(|tuning| tuning.status);
                if let Some(status) = status {
                    let mut lines = reported.lock().unwrap_or_else(PoisonError::into_inner);
                    lines.push(line(&status));
                }
            }
        });
        Self { lines, watching }
    }

    fn all(&self) -> Vec<String> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.dedup();
        lines.clone()
    }

    /// Fails unless one status contains all of these.
    pub(super) fn has_said(&self, all_of: &[&str]) -> anyhow::Result<()> {
        let lines = self.all();
        let has_it = |line: &String| all_of.iter().all(|one| line.contains(one));
        ensure!(
            lines.iter().any(has_it),
            "{all_of:?} was not said: {lines:#?}"
        );
        Ok(())
    }

    /// Fails if a status contains this.
    pub(super) fn never_said(&self, what: &str) -> anyhow::Result<()> {
        let lines = self.all();
        let has_it = |line: &String| line.contains(what);
        ensure!(!lines.iter().any(has_it), "{what} was said: {lines:#?}");
        Ok(())
    }
}

impl Drop for StatusLog {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// One status: its counts and its conditions.
fn line(status: &NodeNetworkTuningStatus) -> String {
    let count = status.nodes.unwrap_or_default();
    let counted = format!("{} of {} ready", count.ready, count.selected);
    status.conditions.iter().fold(counted, |line, condition| {
        let (type_, status) = (&condition.type_, &condition.status);
        format!(
            "{line}; {type_}={status} {}: {}",
            condition.reason, condition.message
        )
    })
}

impl Fault {
    /// Records the tuning's status from now on.
    pub(super) fn listen(&self) -> StatusLog {
        StatusLog::by_the_tuning(self.client.clone())
    }

    /// Waits until the tuning's conditions say all of these at once. A watch that an earlier fault has cut may
    /// bring a change some seconds late.
    pub(super) async fn comes_to_say(&mut self, all_of: &[&str]) -> anyhow::Result<()> {
        let conditions = r#"jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}"#;
        let look = async |cluster: &Cluster| {
            let args = ["get", "nnt", TUNING, "-o", conditions];
            let said = cluster.control_plane.kubectl_ok(&args).await?;
            ensure!(
                all_of.iter().all(|one| said.contains(one)),
                "it says {said}"
            );
            Ok::<_, anyhow::Error>(())
        };
        self.cluster.until(SOON, look).await?;
        Ok(())
    }

    /// How many nodes' profiles have a condition `True`.
    pub(super) async fn nodes_that_say(&self, condition: &str) -> anyhow::Result<usize> {
        let is_true = format!(
            r#"jsonpath={{range .items[*]}}{{.status.conditions[?(@.type=="{condition}")].status}}{{"\n"}}{{end}}"#
        );
        let said = self.kubectl(&["get", "nnp", "-o", &is_true]).await?;
        Ok(said.lines().filter(|line| *line == "True").count())
    }

    /// Fails unless the tuning's status is still about the previous generation.
    pub(super) async fn is_unanswered(&self) -> anyhow::Result<()> {
        let tunings = Api::<NodeNetworkTuning>::all(self.client.clone());
        let tuning = tunings.get(TUNING).await?;
        let said = tuning.status.and_then(|status| status.observed_generation);
        let generation = tuning.metadata.generation;
        ensure!(
            said < generation,
            "generation {generation:?}, said of {said:?}"
        );
        Ok(())
    }

    /// Waits until all agents' metrics say that they reach the API server, or that they do not.
    pub(super) async fn agents_reach_the_api_server(&mut self, is_so: bool) -> anyhow::Result<()> {
        let value = if is_so { "1" } else { "0" };
        let look = async |cluster: &Cluster| {
            let agents = cluster.machines.iter().map(|machine| &machine.agent);
            all_report(agents, "nettune_agent_api_reachable", value).await
        };
        self.cluster.until(SOON, look).await?;
        Ok(())
    }

    /// Waits until no operator leads, by their own metrics.
    pub(super) async fn no_operator_leads(&mut self) -> anyhow::Result<()> {
        let look = async |cluster: &Cluster| {
            all_report(cluster.operators.iter(), "nettune_operator_leader", "0").await
        };
        self.cluster.until(SOON, look).await?;
        Ok(())
    }
}

async fn all_report(
    members: impl Iterator<Item = &Member>,
    metric: &str,
    value: &str,
) -> Result<(), String> {
    for member in members {
        let reported = member.metric(metric).await;
        let reported = reported.map_err(|error| format!("{}: {error}", member.name()))?;
        if reported.as_deref() != Some(value) {
            return Err(format!("{}: {metric} is {reported:?}", member.name()));
        }
    }
    Ok(())
}
