//! The operator's loop: changes in, decisions, writes out.

use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use kube::Client;
use kube::api::ListParams;
use nettune_crds::NodesCount;
use nettune_planner::{Kind, Leaving, Memory, Mono, Now, decide};
use nettune_runtime::api::in_words;
use nettune_runtime::not_before::NotBefore;
use nettune_runtime::serve::Health;
use nettune_runtime::shutdown::Shutdown;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::agents::AgentSelector;
use crate::events::pressure::PressureEvents;
use crate::events::recorder::{EventRecorder, NodeEvent};
use crate::events::release::ReleaseEvents;
use crate::lease::{Candidate, LeaseLost, MayWrite};
use crate::metrics::Metrics;
use crate::send::Done;
use crate::watch::{Change, Intake, changes, tunings};
use crate::write::Writer;

/// Decisions are at least this far apart: a burst of changes is one decision.
const BETWEEN_DECISIONS: Duration = Duration::from_millis(50);

/// They are also this many times as far apart as the last one took, as long as that is no more than
/// [`LONGEST_BETWEEN`]: while thousands of profiles are written each answer is a change, and deciding
/// about all of them again after each would take the processor from writing them.
const SPARE: u32 = 20;
const LONGEST_BETWEEN: Duration = Duration::from_secs(1);

/// An idle loop shows this often that it lives.
const BEAT: Duration = Duration::from_secs(5);

/// At the end, writes under way have this long to be answered, and the Lease this long to be given
/// back: together less than the 1.5 s after which the process ends in any case.
const LAST_ANSWERS: Duration = Duration::from_millis(800);
const GIVING_BACK: Duration = Duration::from_millis(500);

/// Why the loop ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Watches are endless; one that ends is a defect, and going on without it would be blind.
    #[error("the watch of {0:?}s has ended")]
    WatchEnded(Kind),
    /// All of them.
    #[error("the watches have ended")]
    WatchesEnded,
    /// Another operator may write now.
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
    /// Holding the Lease ended without a reason.
    #[error("the task that holds the Lease has ended")]
    LeaseEnded,
}

/// Two ways to the API server.
pub struct Clients {
    /// For all but the planner's writes.
    pub others: Client,
    /// For those writes. It does not retry: a write that failed is decided again.
    pub writes: Client,
    /// Set by `writes` when the API server throttles.
    pub not_before: NotBefore,
}

/// What an operator does beside sizing.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Take the startup taint off Nodes.
    pub startup_taint: bool,
    /// The agents' Pods, whose readiness is one more sign of whether they live; `None`: they are not
    /// watched.
    pub agents: Option<AgentSelector>,
}

/// Runs until shutdown is asked for. Without a candidate it is the only operator; with one it keeps
/// its world up to date all the time, and decides and writes while it holds the Lease.
///
/// # Errors
/// When the Lease is lost, or the watches end, which they never should.
pub async fn run(
    clients: Clients,
    candidate: Option<Candidate>,
    settings: Settings,
    metrics: Metrics,
    health: Health,
    mut shutdown: Shutdown,
) -> Result<(), RunError> {
    let mut leadership = Leadership::of(candidate);
    let client = clients.others.clone();
    let mut operator = Operator::new(clients, metrics, leadership.writable.clone());
    if settings.startup_taint {
        operator.intake.watched.take_startup_taints_off();
    }
    let mut incoming = changes(&client, settings.agents.as_ref());
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
    let _ = timeout(GIVING_BACK, leadership.give_back()).await;
    Ok(())
}

/// Whether this process may write, and the task that sees to it.
struct Leadership {
    writable: Writable,
    holding: Option<Holding>,
}

/// The task that holds the Lease. Dropping `stop` asks it to give the Lease back.
struct Holding {
    task: JoinHandle<Result<(), LeaseLost>>,
    stop: oneshot::Sender<()>,
}

impl Leadership {
    fn of(candidate: Option<Candidate>) -> Self {
        let Some(candidate) = candidate else {
            return Self {
                writable: Writable::Always,
                holding: None,
            };
        };
        let (stop, stopped) = oneshot::channel();
        let (tell, until) = watch::channel(None);
        let task = tokio::spawn(candidate.run(tell, stopped));
        Self {
            writable: Writable::While(until),
            holding: Some(Holding { task, stop }),
        }
    }

    /// Waits until the Lease is taken or renewed; an error when it is lost.
    async fn changed(&mut self) -> Result<(), RunError> {
        let (Writable::While(until), Some(holding)) = (&mut self.writable, &mut self.holding)
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            Ok(()) = until.changed() => Ok(()),
            ended = &mut holding.task => {
                ended.map_err(|_| RunError::LeaseEnded)??;
                Err(RunError::LeaseEnded)
            }
        }
    }

    async fn give_back(self) {
        if let Some(Holding { task, stop }) = self.holding {
            drop(stop);
            let _ = task.await;
        }
    }
}

/// How far the next decision is from one that took so long.
fn apart(took: Duration) -> Duration {
    (took * SPARE).clamp(BETWEEN_DECISIONS, LONGEST_BETWEEN)
}

/// Whether a write may be started.
#[derive(Clone)]
pub(crate) enum Writable {
    /// There is no other operator.
    Always,
    /// As long as the Lease is held for sure.
    While(watch::Receiver<MayWrite>),
}

impl Writable {
    pub(crate) fn now(&self) -> bool {
        match self {
            Self::Always => true,
            Self::While(until) => {
                let until = *until.borrow();
                until.is_some_and(|until| std::time::Instant::now() < until)
            }
        }
    }
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
    recorder: EventRecorder,
    release_events: ReleaseEvents,
    /// How releases went when it was last decided.
    leaving: Vec<Leaving>,
    pressure_events: PressureEvents,
    metrics: Metrics,
    /// What one decision leaves for the next; its times are since `started`.
    memory: Memory,
    started: Instant,
    /// When to decide next; `None`: when something changes.
    due: Option<Instant>,
    /// When to decide next at the soonest.
    soonest: Instant,
    idle: Idle,
    writable: Writable,
    leads: bool,
}

/// What was last said about having nothing to do.
#[derive(PartialEq, Eq)]
enum Idle {
    NotSaid,
    NoTuning,
    Busy,
}

impl Operator {
    fn new(clients: Clients, metrics: Metrics, writable: Writable) -> Self {
        let leads = writable.now();
        metrics.leader.set(leads.into());
        Self {
            intake: Intake::default(),
            writer: Writer::new(
                clients.writes,
                clients.not_before,
                metrics.clone(),
                writable.clone(),
            ),
            recorder: EventRecorder::new(clients.others),
            release_events: ReleaseEvents::default(),
            leaving: Vec::new(),
            pressure_events: PressureEvents::default(),
            metrics,
            memory: Memory::default(),
            started: Instant::now(),
            due: None,
            soonest: Instant::now(),
            idle: Idle::NotSaid,
            writable,
            leads,
        }
    }

    /// The Lease was taken, or renewed.
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
        self.intake.take(change).map_err(RunError::WatchEnded)?;
        self.due_by(Instant::now());
        Ok(())
    }

    fn report_pressure(&mut self) {
        if self.writable.now()
            && let Some(world) = self.intake.watched.world()
        {
            self.recorder.summarize(world);
        }
        let counts = self.pressure_events.counts();
        self.metrics.under_pressure(&counts);
    }

    /// Publishes Events while this operator leads. One that stands by has the same state, and continues
    /// from there.
    fn record(&mut self, events: Vec<NodeEvent>) {
        if self.writable.now() {
            for event in events {
                self.recorder.on_node(event);
            }
        }
    }

    fn settle(&mut self, done: Done) {
        if let Some(told) = self.writer.settle(done, &mut self.intake.watched) {
            for announcement in told.announcements {
                self.recorder
                    .on_tuning(&told.tuning, &told.uid, announcement);
            }
        }
        self.due_by(Instant::now());
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
        let Some(world) = self.intake.watched.world() else {
            return;
        };
        // One that only stands by is ready too: it can take over at once.
        health.set_ready(true);
        self.soonest = now + BETWEEN_DECISIONS;
        if !self.writable.now() {
            self.leaving.clear();
            self.measure();
            return;
        }
        let present = Now {
            mono: Mono::at(now.duration_since(self.started)),
            wall: Timestamp::now(),
        };
        let decision = decide(world, &self.memory, present);
        self.memory = decision.memory;
        let wake = decision.wake_at.map(|wake| now + wake.since(present.mono));
        self.metrics.decided(now.elapsed());
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
        let events = self.release_events.take(&decision.leaving);
        self.leaving = decision.leaving;
        self.record(events);
        self.measure();
        let held = self.writer.plan(decision.writes, now);
        self.soonest = now + apart(now.elapsed());
        for wake in wake.into_iter().chain(held) {
            self.due_by(wake);
        }
    }

    /// Sets the metrics of what is known.
    fn measure(&self) {
        let Some(world) = self.intake.watched.world() else {
            return;
        };
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.nodes.set(number(world.nodes()));
        self.metrics.known_tunings.set(number(world.tunings()));
        let gone = self.leaving.iter().filter_map(|leaving| {
            let count = NodesCount {
                failed: leaving.failed,
                unresponsive: leaving.unresponsive,
                releasing: leaving.releasing,
                ..NodesCount::default()
            };
            let tuning = &*leaving.tuning;
            let is_gone = world.tuning_uid(tuning).is_none();
            is_gone.then_some((tuning, count, leaving.stopped.is_some()))
        });
        self.metrics.tunings(world.counts().chain(gone));
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
    fn deciding_takes_a_twentieth_of_the_time_at_most_but_never_waits_for_long() {
        let apart = |took| super::apart(Duration::from_millis(took)).as_millis();
        assert_eq!((apart(0), apart(2)), (50, 50));
        assert_eq!((apart(5), apart(20)), (100, 400));
        assert_eq!(apart(500), 1000);
    }
}
