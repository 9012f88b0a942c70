//! The operator's loop: changes in, decisions, writes out.

use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use kube::Client;
use kube::api::ListParams;
use nettune_daemon::api::in_words;
use nettune_daemon::serve::Health;
use nettune_daemon::shutdown::Shutdown;
use nettune_planner::{Kind, decide};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::events::Announcer;
use crate::metrics::Metrics;
use crate::watch::{Change, Intake, changes, tunings};
use crate::write::{Done, Writer};

/// Decisions are at least this far apart: a burst of changes is one decision.
const BETWEEN_DECISIONS: Duration = Duration::from_millis(50);

/// An idle loop shows this often that it lives.
const BEAT: Duration = Duration::from_secs(5);

/// At the end, writes under way have this long to be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Why the loop ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Watches are endless; one that ends is a defect, and going on without it would be blind.
    #[error("the watch of {0:?}s has ended")]
    WatchEnded(Kind),
    /// All of them.
    #[error("the watches have ended")]
    WatchesEnded,
}

/// Runs until shutdown is asked for.
///
/// # Errors
/// When the watches end, which they never should.
pub async fn run(
    client: Client,
    metrics: Metrics,
    health: Health,
    mut shutdown: Shutdown,
) -> Result<(), RunError> {
    let mut operator = Operator::new(client.clone(), metrics);
    let mut incoming = changes(&client);
    let mut confirmations = FuturesUnordered::new();
    loop {
        health.beat();
        if operator.intake.doubts_tunings && confirmations.is_empty() {
            confirmations.push(none_is_left(client.clone()));
        }
        let beat = Instant::now() + BEAT;
        let wake = operator.due.map_or(beat, |due| due.min(beat));
        tokio::select! {
            () = shutdown.requested() => break,
            change = incoming.next() => {
                operator.take(change.ok_or(RunError::WatchesEnded)?)?;
                // All that has come already belongs to the same decision.
                while let Some(Some(change)) = incoming.next().now_or_never() {
                    operator.take(change)?;
                }
            }
            Some(done) = operator.writer.answer(), if operator.writer.is_busy() => {
                operator.settle(done);
            }
            Some(confirmed) = confirmations.next() => operator.confirmed(confirmed),
            () = sleep_until(wake) => {}
        }
        operator.decide_if_due(&health);
    }
    info!("stopping");
    let _ = timeout(LAST_ANSWERS, operator.finish()).await;
    Ok(())
}

/// After the last tuning went, this long passes before a list is asked: a CRD that is deleted takes its
/// objects first, and answers that it is gone a moment later.
const DOUBT: Duration = Duration::from_secs(5);

async fn none_is_left(client: Client) -> Result<bool, String> {
    tokio::time::sleep(DOUBT).await;
    let one = ListParams::default().limit(1);
    let tunings = tunings(&client);
    match timeout(DOUBT, tunings.list(&one)).await {
        Ok(Ok(list)) => Ok(list.items.is_empty()),
        Ok(Err(error)) => Err(in_words(&error)),
        Err(_) => Err(format!("no answer within {} s", DOUBT.as_secs())),
    }
}

struct Operator {
    intake: Intake,
    writer: Writer,
    announcer: Announcer,
    metrics: Metrics,
    /// When to decide next; `None`: when something changes.
    due: Option<Instant>,
    last: Option<Instant>,
    idle: Idle,
}

/// What was last said about having nothing to do.
#[derive(PartialEq, Eq)]
enum Idle {
    NotSaid,
    NoTuning,
    Busy,
}

impl Operator {
    fn new(client: Client, metrics: Metrics) -> Self {
        Self {
            intake: Intake::default(),
            writer: Writer::new(client.clone(), metrics.clone()),
            announcer: Announcer::new(client),
            metrics,
            due: None,
            last: None,
            idle: Idle::NotSaid,
        }
    }

    fn take(&mut self, change: Change) -> Result<(), RunError> {
        self.intake.take(change).map_err(RunError::WatchEnded)?;
        self.due_by(self.soonest());
        Ok(())
    }

    fn settle(&mut self, done: Done) {
        if let Some(told) = self.writer.settle(done, &mut self.intake.watched) {
            self.announcer
                .announce(&told.tuning, &told.uid, told.announcements);
        }
        self.due_by(self.soonest());
    }

    fn confirmed(&mut self, none_is_left: Result<bool, String>) {
        match none_is_left {
            Ok(true) => {
                info!("the last NodeNetworkTuning was deleted: its nodes are released");
                self.intake.no_tuning_is_confirmed();
            }
            // The watch brings it.
            Ok(false) => {}
            Err(error) => {
                warn!(
                    error,
                    "the tunings are gone and cannot be listed: nothing is released"
                );
            }
        }
        self.due_by(self.soonest());
    }

    fn soonest(&self) -> Instant {
        let now = Instant::now();
        self.last
            .map_or(now, |last| now.max(last + BETWEEN_DECISIONS))
    }

    fn due_by(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn decide_if_due(&mut self, health: &Health) {
        let now = Instant::now();
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        let Some(world) = self.intake.watched.world() else {
            return;
        };
        self.last = Some(now);
        let decision = decide(world, Timestamp::now());
        self.metrics.decided(now.elapsed());
        self.metrics
            .nodes
            .set(i64::try_from(world.nodes()).unwrap_or(i64::MAX));
        self.metrics
            .tunings
            .set(i64::try_from(world.tunings()).unwrap_or(i64::MAX));
        let idle = if world.tunings() == 0 {
            Idle::NoTuning
        } else {
            Idle::Busy
        };
        if idle != self.idle {
            match idle {
                Idle::NoTuning => {
                    info!("there is no NodeNetworkTuning: nothing to do until one is applied")
                }
                _ => info!(
                    nodes = world.nodes(),
                    tunings = world.tunings(),
                    "sizing nodes"
                ),
            }
            self.idle = idle;
        }
        health.set_ready(true);
        if let Some(wake) = self.writer.plan(decision, now) {
            self.due_by(wake);
        }
    }

    async fn finish(&mut self) {
        self.writer.stop();
        while let Some(done) = self.writer.answer().await {
            self.settle(done);
        }
    }
}
