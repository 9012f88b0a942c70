//! The loop around [`step`]: observe, step, perform one effect, observe again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nettune_runtime::error::chain;
use nettune_runtime::serve::Health;
use nettune_sizing::{Mono, SysctlKey};
use rustix::io::Errno;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::kernel::facts::{self, Identity};
use crate::kernel::inotify::Events;
use crate::kernel::sysctl::{ChangeDetection, Roots, Sysctls};
use crate::metrics::Metrics;
use crate::pressure::monitor::TableMonitor;
use crate::state::store::{SaveError, StateDir};
use crate::status::NodeReport;
use nettune_reconcile::desired::{DesiredState, Revision, Source};
use nettune_reconcile::drift::Drift;
use nettune_reconcile::effect::{Effect, Left, Persisted};
use nettune_reconcile::memory::Memory;
use nettune_reconcile::observed::{Content, ObservedState};
use nettune_reconcile::step::{Step, keys_to_read, step};

/// How often all keys are read: the longest that a change goes unnoticed.
const LOOK: Duration = Duration::from_millis(100);

/// How often the tables' counters are read at least.
const COUNT: Duration = Duration::from_secs(1);

/// How often the node's facts are read.
const FACTS: Duration = Duration::from_secs(30);

/// The pause after a failed flush.
const FLUSH_AGAIN: Duration = Duration::from_secs(60);

/// A profile that needs more effects than this at a time has a fault; the agent continues at the next tick.
const MOST_EFFECTS: usize = 2000;

/// What the API server, or a policy file, wants of this node.
#[derive(Debug, Clone, PartialEq)]
pub enum ProfileUpdate {
    Profile(Arc<Source>),
    NoProfile,
}

/// What an agent is built from.
#[derive(Debug)]
pub struct AgentConfig {
    pub node: String,
    pub roots: Roots,
    pub identity: Arc<Identity>,
    pub state: StateDir,
    pub metrics: Metrics,
    /// Receives a report whenever one differs from the last.
    pub reports: watch::Sender<Option<Arc<NodeReport>>>,
}

/// The agent of one node.
#[derive(Debug)]
pub struct Agent {
    node: String,
    roots: Roots,
    identity: Arc<Identity>,
    state: StateDir,
    metrics: Metrics,
    reports: watch::Sender<Option<Arc<NodeReport>>>,
    started: Instant,
    sysctls: Sysctls,
    tables: TableMonitor,
    desired: DesiredState,
    memory: Memory,
    malformed: Option<(Revision, String)>,
    facts: nettune_crds::ProfileFacts,
    facts_read: Mono,
    /// When to decide again although no key has changed.
    due: Mono,
    /// How it notices changes, as logged last.
    change_detection: Option<ChangeDetection>,
    /// When to flush the state next; `None` if it is flushed.
    flush_at: Option<Mono>,
}

impl Agent {
    /// Starts from the saved state: the last profile is applied before the API server is reached.
    #[must_use]
    pub fn new(config: AgentConfig) -> Self {
        let loaded = config.state.load();
        if let Some(set_aside) = &loaded.set_aside {
            tracing::error!(
                node = config.node,
                error = chain(&set_aside.reason),
                kept_as = set_aside
                    .kept_as
                    .as_ref()
                    .map(|path| path.display().to_string()),
                unsaved = set_aside.unsaved.as_ref().map(|error| chain(error)),
                "cannot use the saved state; tuning continues, original values are unknown until the next boot"
            );
        }
        if let Some(other) = &loaded.other_node {
            tracing::warn!(
                node = config.node,
                other,
                "the saved state belongs to a node with another name; its profile is not applied here"
            );
        }
        let mut agent = Self {
            sysctls: Sysctls::new(&config.roots.sysctl),
            tables: TableMonitor::new(&config.roots),
            facts: facts::read(&config.roots, &config.identity, None),
            node: config.node,
            roots: config.roots,
            identity: config.identity,
            state: config.state,
            metrics: config.metrics,
            reports: config.reports,
            started: Instant::now(),
            desired: DesiredState::default(),
            memory: Memory::new(loaded.persisted),
            malformed: None,
            facts_read: Mono::default(),
            due: Mono::default(),
            change_detection: None,
            flush_at: Some(Mono::default()),
        };
        if let Some(source) = agent.memory.persisted.source.clone() {
            agent.take(ProfileUpdate::Profile(source));
        }
        agent.track_keys();
        agent
    }

    /// Runs until shutdown.
    ///
    /// # Errors
    /// When the runtime cannot wait for inotify events.
    pub async fn run(
        mut self,
        mut updates: watch::Receiver<Option<ProfileUpdate>>,
        health: Health,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Events::new(self.sysctls.listen())?;
        let mut is_open = true;
        loop {
            self.turn();
            health.beat();
            health.set_ready(true);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                update = updates.changed(), if is_open => {
                    is_open = update.is_ok();
                    let update = updates.borrow_and_update().clone();
                    update.into_iter().for_each(|update| self.take(update));
                }
                () = events.written() => {}
                _ = ticks.tick() => events.tick(),
            }
        }
    }

    /// Takes a new profile; one that equals the last changes nothing.
    pub fn take(&mut self, update: ProfileUpdate) {
        let source = match update {
            ProfileUpdate::Profile(source) => source,
            ProfileUpdate::NoProfile => {
                if self.desired.source.is_some() {
                    tracing::info!(
                        node = self.node,
                        "the profile was deleted; enforcing nothing"
                    );
                    self.switch_to(DesiredState::default());
                }
                return;
            }
        };
        let known = self.malformed.as_ref().map(|(revision, _)| revision);
        if self.desired.source.as_ref() == Some(&source) || known == Some(&source.revision) {
            return;
        }
        let revision = source.revision.clone();
        match DesiredState::read(source) {
            Ok(desired) => self.switch_to(desired),
            Err(error) => {
                let error = chain(&error);
                let generation = revision.generation;
                tracing::error!(
                    node = self.node,
                    generation,
                    error,
                    "cannot read the profile; keeping the last one"
                );
                self.malformed = Some((revision, error));
                self.wake();
            }
        }
    }

    fn switch_to(&mut self, desired: DesiredState) {
        if let Some(revision) = desired.revision() {
            tracing::info!(
                node = self.node,
                tuning = desired.tuning,
                generation = revision.generation,
                task = ?desired.task,
                sysctls = desired.values.len(),
                "new profile"
            );
        }
        self.desired = desired;
        self.malformed = None;
        self.wake();
        self.track_keys();
    }

    /// Lets the next turn decide, whether a key has changed or not.
    fn wake(&mut self) {
        self.due = Mono::default();
    }

    fn track_keys(&mut self) {
        let mut keys = keys_to_read(&self.desired, &self.memory);
        // For the tables' usage, whether they are managed or not.
        keys.extend(TABLE_LIMITS.map(SysctlKey::clone));
        self.sysctls.track(&keys);
    }

    /// Reads all keys and performs effects until none is left.
    pub fn turn(&mut self) {
        if !self.sysctls.read() && self.now() < self.due {
            return;
        }
        for _ in 0..MOST_EFFECTS {
            let now = self.now();
            let observed = self.observe(now);
            let step = step(&self.desired, &observed, &self.memory, now);
            self.log_drifts(&step.drifts);
            self.log_left(&step.left);
            if let Effect::Rest { until } = step.effect {
                self.rest(step, &observed, until, now);
                return;
            }
            let outcome = self.perform(&step.effect, &observed);
            self.memory = step.memory.learn(step.effect, outcome, self.now());
            self.sysctls.read();
        }
        tracing::error!(
            node = self.node,
            "stopped after too many effects; continuing at the next tick"
        );
    }

    fn now(&self) -> Mono {
        Mono::at(self.started.elapsed())
    }

    fn observe(&mut self, now: Mono) -> ObservedState {
        let max = self.sysctls.number(&nettune_sizing::keys::NF_CONNTRACK_MAX);
        let (counts, overflows) = self.tables.read(max, now);
        ObservedState {
            initial_namespace: self.facts.initial_network_namespace,
            keys: self.sysctls.seen(),
            counts,
            overflows,
            machine: self.identity.machine(),
            wall: clock::wall(),
        }
    }

    fn perform(&mut self, effect: &Effect, observed: &ObservedState) -> Result<(), Errno> {
        match effect {
            Effect::Persist(persisted) => self.save(persisted),
            Effect::Set(key, value) => self.write(key, &value.clone().into(), observed),
            Effect::Clear(key) => self.write(key, &Content::Empty, observed),
            Effect::Rest { .. } => Ok(()),
        }
    }

    fn save(&mut self, persisted: &Persisted) -> Result<(), Errno> {
        self.flush_at = Some(Mono::default());
        self.state.note(persisted).map_err(|error| {
            self.not_saved(&error);
            error.errno()
        })
    }

    /// Makes what was saved survive a power loss. It takes longer than the writes to the kernel, so it
    /// comes after them.
    fn flush(&mut self, now: Mono) {
        if self.flush_at.is_none_or(|at| now < at) {
            return;
        }
        self.flush_at = None;
        match self.state.flush() {
            Ok(true) => self.metrics.save(true),
            Ok(false) => {}
            Err(error) => {
                self.not_saved(&error);
                self.flush_at = Some(now.after(FLUSH_AGAIN));
            }
        }
    }

    fn not_saved(&self, error: &SaveError) {
        self.metrics.save(false);
        tracing::error!(
            node = self.node,
            error = chain(error),
            "cannot save the state; retrying"
        );
    }

    fn write(
        &mut self,
        key: &SysctlKey,
        content: &Content,
        observed: &ObservedState,
    ) -> Result<(), Errno> {
        let written = self.sysctls.write(key, content);
        self.metrics.write(written.is_ok());
        let from = observed.content(key).map_or("", Content::as_str);
        let (node, tuning, key, to) = (
            &self.node,
            &self.desired.tuning,
            key.name(),
            content.as_str(),
        );
        match written {
            Ok(()) => tracing::info!(node, tuning, key, from, to, "set sysctl"),
            Err(errno) => {
                let error = std::io::Error::from(errno).to_string();
                tracing::warn!(node, tuning, key, from, to, error, "cannot set sysctl");
            }
        }
        written
    }

    fn log_drifts(&self, drifts: &[Drift]) {
        for drift in drifts {
            self.metrics.drift(drift.key.name());
            if drift.reported_before {
                continue;
            }
            tracing::warn!(
                node = self.node,
                tuning = self.desired.tuning,
                key = drift.key.name(),
                found = drift.found.as_str(),
                desired = drift.desired,
                repaired = drift.repaired,
                conflict = drift.conflict,
                "sysctl was changed by another process"
            );
        }
    }

    fn log_left(&self, left: &[Left]) {
        for left in left {
            tracing::warn!(
                node = self.node,
                tuning = self.desired.tuning,
                key = &*left.key,
                message = left.message,
                "original value not restored; the sysctl is no longer managed"
            );
        }
    }

    /// Logs the mode at the start, and whenever it changes.
    fn report_change_detection(&mut self) {
        let Some(change_detection) = self.sysctls.change_detection() else {
            return;
        };
        if self.change_detection.replace(change_detection) == Some(change_detection) {
            return;
        }
        self.metrics
            .change_detection(change_detection == ChangeDetection::Inotify);
        if let ChangeDetection::Polling(errno) = change_detection {
            let error = std::io::Error::from(errno).to_string();
            tracing::warn!(
                node = self.node,
                error,
                "inotify is unavailable; changes are noticed within 100 ms instead of at once"
            );
        }
    }

    /// Nothing is left to do: reports what was found.
    fn rest(&mut self, step: Step, observed: &ObservedState, until: Mono, now: Mono) {
        self.memory = step.memory;
        self.refresh(observed, now);
        self.metrics.keys(&step.keys);
        let report = NodeReport {
            revision: self.desired.revision().cloned(),
            task: self.desired.task,
            keys: step.keys,
            released: step.released,
            malformed: self.malformed.clone(),
            tables: self.tables.utilization().in_bands(),
            table_conditions: self.tables.conditions(now),
            facts: self.facts.clone(),
            identity: Arc::clone(&self.identity),
        };
        self.metrics.tables(&self.tables, &report.table_conditions);
        self.reports.send_if_modified(|last| {
            let differs = last.as_deref() != Some(&report);
            if differs {
                *last = Some(Arc::new(report));
            }
            differs
        });
        self.flush(now);
        self.due = until.min(now.after(COUNT));
    }

    /// Updates what changes less often than the keys.
    fn refresh(&mut self, observed: &ObservedState, now: Mono) {
        self.report_change_detection();
        self.tables.observe(observed, now);
        if now.since(self.facts_read) >= FACTS {
            self.facts = facts::read(&self.roots, &self.identity, self.facts.pod_links);
            self.facts_read = now;
        }
    }
}

/// The limits of the tables whose usage is reported.
static TABLE_LIMITS: [&SysctlKey; 3] = [
    &nettune_sizing::keys::IPV4_GC_THRESH3,
    &nettune_sizing::keys::IPV6_GC_THRESH3,
    &nettune_sizing::keys::NF_CONNTRACK_MAX,
];
