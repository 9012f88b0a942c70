//! The operator's loop: changes in, decisions, writes out.

use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use kube::Client;
use kube::api::ListParams;
use nettune_crds::NodesCount;
use nettune_planner::{Memory, Mono, Now, ReleaseReport, decide};
use nettune_runtime::api::in_words;
use nettune_runtime::serve::Health;
use nettune_runtime::throttle::NotBefore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::apply::request::Done;
use crate::apply::writer::Writer;
use crate::error::RunError;
use crate::events::pressure::PressureEvents;
use crate::events::recorder::{EventRecorder, NodeEvent};
use crate::events::release::ReleaseEvents;
use crate::leader::handle::{Leadership, Writable};
use crate::leader::lease::Candidate;
use crate::metrics::Metrics;
use crate::watch::{AgentSelector, Change, WatchHandler, changes, tunings};

/// The shortest time between decisions: a burst of changes is one decision.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// Decisions are also this many times as far apart as the last one took, up to [`LONGEST_INTERVAL`].
/// Otherwise, while thousands of profiles are written, deciding after each answer would take the
/// processor from writing.
const INTERVAL_FACTOR: u32 = 20;
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);

/// How often an idle loop reports that it is alive.
const BEAT: Duration = Duration::from_secs(5);

/// On shutdown, the deadline for answers of writes in flight, and for releasing the Lease: together less
/// than the 1.5 s after which the process exits anyway.
const LAST_ANSWERS: Duration = Duration::from_millis(800);
const LEASE_RELEASE: Duration = Duration::from_millis(500);

/// How long after the deletion of the last tuning a list has to confirm it. A deleted CRD deletes its
/// objects first, and answers 404 a moment later.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);

/// Clients of the API server.
pub struct Clients {
    /// For all but the planner's writes.
    pub others: Client,
    /// For those writes. It retries nothing: a failed write is decided again.
    pub writes: Client,
    /// Set by `writes` when the API server throttles.
    pub not_before: NotBefore,
}

#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Whether to remove the startup taint from Nodes.
    pub startup_taint: bool,
    /// The agents' Pods; `None`: they are not watched.
    pub agents: Option<AgentSelector>,
}

/// Runs until shutdown. Without a candidate this is the only operator. With one, it keeps its cache up to date
/// all the time, and decides and writes while it holds the Lease.
///
/// # Errors
/// When the Lease is lost, or a watch ends, which it never should.
pub async fn run(
    clients: Clients,
    candidate: Option<Candidate>,
    settings: Settings,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let mut leadership = Leadership::new(candidate);
    let client = clients.others.clone();
    let mut operator = Operator::new(clients, metrics, leadership.writable.clone());
    if settings.startup_taint {
        operator.handler.cache.take_startup_taints_off();
    }
    let mut incoming = changes(&client, settings.agents.as_ref());
    let mut confirmations = FuturesUnordered::new();
    loop {
        health.beat();
        if operator.handler.is_last_deletion_unconfirmed && confirmations.is_empty() {
            confirmations.push(has_no_tunings(client.clone()));
        }
        let beat = Instant::now() + BEAT;
        let wake = operator.due.map_or(beat, |due| due.min(beat));
        tokio::select! {
            () = shutdown.cancelled() => break,
            change = incoming.next() => {
                operator.take(change.ok_or(RunError::WatchesEnded)?)?;
                // All changes that have arrived belong to the same decision.
                while let Some(Some(change)) = incoming.next().now_or_never() {
                    operator.take(change)?;
                }
            }
            Some(done) = operator.writer.answer(), if operator.writer.is_busy() => {
                operator.settle(done);
            }
            Some(confirmed) = confirmations.next() => operator.confirm(confirmed),
            changed = leadership.changed() => {
                changed?;
                operator.lease_changed();
            }
            () = sleep_until(wake) => operator.report_pressure(),
        }
        operator.decide_if_due(&health);
    }
    info!("stopping");
    let _ = timeout(LAST_ANSWERS, operator.finish()).await;
    let _ = timeout(LEASE_RELEASE, leadership.release()).await;
    Ok(())
}

/// The time until the next decision, after one that took this long.
fn interval(took: Duration) -> Duration {
    (took * INTERVAL_FACTOR).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)
}

async fn has_no_tunings(client: Client) -> Result<bool, String> {
    tokio::time::sleep(CONFIRM_AFTER).await;
    let one = ListParams::default().limit(1);
    match timeout(CONFIRM_AFTER, tunings(&client).list(&one)).await {
        Ok(Ok(list)) => Ok(list.items.is_empty()),
        Ok(Err(error)) => Err(in_words(&error)),
        Err(_) => Err(format!("no answer within {} s", CONFIRM_AFTER.as_secs())),
    }
}

struct Operator {
    handler: WatchHandler,
    writer: Writer,
    recorder: EventRecorder,
    release_events: ReleaseEvents,
    pressure_events: PressureEvents,
    /// The releases of the last decision.
    release_reports: Vec<ReleaseReport>,
    metrics: Metrics,
    /// From the last decision for the next one. Its times are since `started`.
    memory: Memory,
    started: Instant,
    /// When to decide next; `None`: when something changes.
    due: Option<Instant>,
    /// The earliest time of the next decision.
    soonest: Instant,
    /// Whether there were tunings when that was last logged.
    had_tunings: Option<bool>,
    writable: Writable,
    leads: bool,
}

impl Operator {
    fn new(clients: Clients, metrics: Metrics, writable: Writable) -> Self {
        let leads = writable.now();
        metrics.leader.set(leads.into());
        Self {
            handler: WatchHandler::default(),
            writer: Writer::new(
                clients.writes,
                clients.not_before,
                metrics.clone(),
                writable.clone(),
            ),
            recorder: EventRecorder::new(clients.others),
            release_events: ReleaseEvents::default(),
            pressure_events: PressureEvents::default(),
            release_reports: Vec::new(),
            metrics,
            memory: Memory::default(),
            started: Instant::now(),
            due: None,
            soonest: Instant::now(),
            had_tunings: None,
            writable,
            leads,
        }
    }

    /// The Lease was acquired or renewed.
    fn lease_changed(&mut self) {
        let leads = self.writable.now();
        if leads && !self.leads {
            self.due_by(Instant::now());
        }
        self.leads = leads;
        self.metrics.leader.set(leads.into());
    }

    fn take(&mut self, change: Change) -> Result<(), RunError> {
        if let Change::Profile(event) = &change {
            let events = self.pressure_events.take(event);
            self.record(events);
        }
        self.handler.take(change).map_err(RunError::WatchEnded)?;
        self.due_by(Instant::now());
        Ok(())
    }

    fn report_pressure(&mut self) {
        if self.writable.now()
            && let Some(cluster) = self.handler.cache.state()
        {
            self.recorder.summarize(cluster);
        }
        let counts = self.pressure_events.counts();
        self.metrics.under_pressure(&counts);
    }

    /// Publishes Events if this operator leads. A standby has the same state, and continues from there.
    fn record(&mut self, events: Vec<NodeEvent>) {
        if self.writable.now() {
            for event in events {
                self.recorder.on_node(event);
            }
        }
    }

    fn settle(&mut self, done: Done) {
        if let Some(events) = self.writer.settle(done, &mut self.handler.cache) {
            for announcement in events.announcements {
                self.recorder
                    .on_tuning(&events.tuning, &events.uid, announcement);
            }
        }
        self.due_by(Instant::now());
    }

    fn confirm(&mut self, has_no_tunings: Result<bool, String>) {
        match has_no_tunings {
            Ok(true) => {
                info!("the last NodeNetworkTuning was deleted; releasing its nodes");
                self.handler.confirm_last_deletion();
            }
            // The watch brings it.
            Ok(false) => {}
            Err(error) => {
                warn!(
                    error,
                    "no NodeNetworkTuning is left, but they cannot be listed; not releasing nodes"
                );
            }
        }
        self.due_by(Instant::now());
    }

    fn due_by(&mut self, at: Instant) {
        let at = at.max(self.soonest);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn decide_if_due(&mut self, health: &Health) {
        let now = Instant::now();
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        let Some(cluster) = self.handler.cache.state() else {
            return;
        };
        // A standby is ready too: it can take over at once.
        health.set_ready(true);
        self.soonest = now + SHORTEST_INTERVAL;
        if !self.writable.now() {
            self.release_reports.clear();
            self.update_metrics();
            return;
        }
        let present = Now {
            mono: Mono::at(now.duration_since(self.started)),
            wall: Timestamp::now(),
        };
        let decision = decide(cluster, &self.memory, present);
        self.memory = decision.memory;
        let wake = decision.wake_at.map(|wake| now + wake.since(present.mono));
        self.metrics.decided(now.elapsed());
        let (nodes, tunings) = (cluster.nodes(), cluster.tunings());
        if self.had_tunings.replace(tunings > 0) != Some(tunings > 0) {
            match tunings {
                0 => info!("there is no NodeNetworkTuning; waiting for one"),
                _ => info!(nodes, tunings, "sizing nodes"),
            }
        }
        let events = self.release_events.take(&decision.release_reports);
        self.release_reports = decision.release_reports;
        self.record(events);
        self.update_metrics();
        let waiting = self.writer.plan(decision.writes, now);
        self.soonest = now + interval(now.elapsed());
        for wake in wake.into_iter().chain(waiting) {
            self.due_by(wake);
        }
    }

    fn update_metrics(&self) {
        let Some(cluster) = self.handler.cache.state() else {
            return;
        };
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.nodes.set(number(cluster.nodes()));
        self.metrics.known_tunings.set(number(cluster.tunings()));
        let deleted = self.release_reports.iter().filter_map(|report| {
            let count = NodesCount {
                failed: report.failed,
                unresponsive: report.unresponsive,
                releasing: report.releasing,
                ..NodesCount::default()
            };
            let tuning = &*report.tuning;
            let is_deleted = cluster.tuning_uid(tuning).is_none();
            is_deleted.then_some((tuning, count, report.stopped.is_some()))
        });
        self.metrics.tunings(cluster.counts().chain(deleted));
    }

    async fn finish(&mut self) {
        self.writer.stop();
        while let Some(done) = self.writer.answer().await {
            self.settle(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_twenty_times_the_last_decision_within_limits() {
        let interval = |took| super::interval(Duration::from_millis(took)).as_millis();
        assert_eq!((interval(0), interval(2)), (50, 50));
        assert_eq!((interval(5), interval(20)), (100, 400));
        assert_eq!(interval(500), 1000);
    }
}
