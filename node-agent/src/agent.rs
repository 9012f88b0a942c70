//! The loop around [`step`]: look, step, one effect, look again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nettune_runtime::error::chain;
use nettune_runtime::serve::Health;
use nettune_runtime::shutdown::Shutdown;
use nettune_sizing::{Mono, SysctlKey};
use rustix::io::Errno;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

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
use nettune_reconcile::step::{Step, keys_to_look_at, step};

/// How often all keys are looked at: the longest that a writer goes unnoticed.
const LOOK: Duration = Duration::from_millis(100);

/// How often the tables' counters are read where nothing else asks for it.
const COUNT: Duration = Duration::from_secs(1);

/// How often the node's facts are read.
const FACTS: Duration = Duration::from_secs(30);

/// The pause after a flush that failed.
const FLUSH_AGAIN: Duration = Duration::from_secs(60);

/// A goal that needs more effects than this at a time has a fault in it; it goes on at the next look.
const MOST_EFFECTS: usize = 2000;

/// What the API server says this node shall hold.
#[derive(Debug, Clone, PartialEq)]
pub enum ProfileUpdate {
    /// A profile.
    Profile(Arc<Source>),
    /// There is none.
    NoProfile,
}

/// What an agent is made of.
#[derive(Debug)]
pub struct AgentConfig {
    /// The node's name.
    pub node: String,
    /// Where the kernel's files are.
    pub roots: Roots,
    /// The boot and the kernel.
    pub identity: Arc<Identity>,
    /// Where the state is kept.
    pub state: StateDir,
    /// Its metrics.
    pub metrics: Metrics,
    /// Where it says what it found.
    pub findings: watch::Sender<Option<Arc<NodeReport>>>,
}

/// The agent of one node.
#[derive(Debug)]
pub struct Agent {
    node: String,
    roots: Roots,
    identity: Arc<Identity>,
    state: StateDir,
    metrics: Metrics,
    findings: watch::Sender<Option<Arc<NodeReport>>>,
    started: Instant,
    sysctls: Sysctls,
    signals: TableMonitor,
    goal: DesiredState,
    memory: Memory,
    malformed: Option<(Revision, String)>,
    facts: nettune_crds::ProfileFacts,
    facts_read: Mono,
    /// When to look at everything again although no key has changed.
    due: Mono,
    /// How it notices changes, as it was said last.
    change_detection: Option<ChangeDetection>,
    /// From when on the state is to be flushed; `None` where it is.
    flush_at: Option<Mono>,
}

impl Agent {
    /// Takes up what an earlier process left: the last goal is applied before the API is reached.
    #[must_use]
    pub fn new(setup: AgentConfig) -> Self {
        let loaded = setup.state.load();
        if let Some(set_aside) = &loaded.set_aside {
            tracing::error!(
                node = setup.node,
                error = chain(&set_aside.reason),
                kept_as = set_aside
                    .kept_as
                    .as_ref()
                    .map(|path| path.display().to_string()),
                unsaved = set_aside.unsaved.as_ref().map(|error| chain(error)),
                "the state cannot be used: tuning goes on, originals are not known until the next boot"
            );
        }
        if let Some(other) = &loaded.other_node {
            tracing::warn!(
                node = setup.node,
                other,
                "the state is of a node with another name: its goal is not applied here"
            );
        }
        let mut agent = Self {
            sysctls: Sysctls::new(&setup.roots.sysctl),
            signals: TableMonitor::new(&setup.roots),
            facts: facts::read(&setup.roots, &setup.identity, None),
            node: setup.node,
            roots: setup.roots,
            identity: setup.identity,
            state: setup.state,
            metrics: setup.metrics,
            findings: setup.findings,
            started: Instant::now(),
            goal: DesiredState::default(),
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
        agent.look_at_keys();
        agent
    }

    /// Works until the end is asked for.
    ///
    /// # Errors
    /// When the runtime cannot wait for inotify events.
    pub async fn run(
        mut self,
        mut orders: watch::Receiver<Option<ProfileUpdate>>,
        health: Health,
        mut shutdown: Shutdown,
    ) -> std::io::Result<()> {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Events::new(self.sysctls.listen())?;
        let mut may_order = true;
        loop {
            self.turn();
            health.beat();
            health.set_ready(true);
            tokio::select! {
                () = shutdown.requested() => return Ok(()),
                order = orders.changed(), if may_order => {
                    may_order = order.is_ok();
                    let order = orders.borrow_and_update().clone();
                    order.into_iter().for_each(|order| self.take(order));
                }
                () = events.written() => {}
                _ = ticks.tick() => events.tick(),
            }
        }
    }

    /// Takes a new order; one that is the same as before changes nothing.
    pub fn take(&mut self, order: ProfileUpdate) {
        let source = match order {
            ProfileUpdate::Profile(source) => source,
            ProfileUpdate::NoProfile => {
                if self.goal.source.is_some() {
                    tracing::info!(
                        node = self.node,
                        "the profile is gone: nothing is enforced any more"
                    );
                    self.turn_to(DesiredState::default());
                }
                return;
            }
        };
        let known = self.malformed.as_ref().map(|(revision, _)| revision);
        if self.goal.source.as_ref() == Some(&source) || known == Some(&source.revision) {
            return;
        }
        let revision = source.revision.clone();
        match DesiredState::read(source) {
            Ok(goal) => self.turn_to(goal),
            Err(error) => {
                let error = chain(&error);
                let generation = revision.generation;
                tracing::error!(node = self.node, generation, error, "the last goal is kept");
                self.malformed = Some((revision, error));
                self.wake();
            }
        }
    }

    fn turn_to(&mut self, goal: DesiredState) {
        if let Some(revision) = goal.revision() {
            tracing::info!(
                node = self.node,
                tuning = goal.tuning,
                generation = revision.generation,
                task = ?goal.task,
                sysctls = goal.values.len(),
                "new goal"
            );
        }
        self.goal = goal;
        self.malformed = None;
        self.wake();
        self.look_at_keys();
    }

    /// There is something new to decide on.
    fn wake(&mut self) {
        self.due = Mono::default();
    }

    fn look_at_keys(&mut self) {
        let mut keys = keys_to_look_at(&self.goal, &self.memory);
        // For the use of the tables, whether they are managed or not.
        keys.extend(TABLE_LIMITS.map(SysctlKey::clone));
        self.sysctls.look_at(&keys);
    }

    /// Looks at all keys and performs effects until none is left.
    pub fn turn(&mut self) {
        if !self.sysctls.look() && self.now() < self.due {
            return;
        }
        for _ in 0..MOST_EFFECTS {
            let now = self.now();
            let live = self.live(now);
            let step = step(&self.goal, &live, &self.memory, now);
            self.notice(&step.drifts);
            self.say_what_is_left(&step.left);
            if let Effect::Rest { until } = step.effect {
                self.rest(step, &live, until, now);
                return;
            }
            let outcome = self.perform(&step.effect, &live);
            self.memory = step.memory.learn(step.effect, outcome, self.now());
            self.sysctls.look();
        }
        tracing::error!(
            node = self.node,
            "no end of effects; going on at the next look"
        );
    }

    fn now(&self) -> Mono {
        Mono::at(self.started.elapsed())
    }

    fn live(&mut self, now: Mono) -> ObservedState {
        let max = self.sysctls.number(&nettune_sizing::keys::NF_CONNTRACK_MAX);
        let (counts, overflows) = self.signals.read(max, now);
        ObservedState {
            initial_namespace: self.facts.initial_network_namespace,
            keys: self.sysctls.seen(),
            counts,
            overflows,
            machine: self.identity.machine(),
            wall: clock::wall(),
        }
    }

    fn perform(&mut self, effect: &Effect, live: &ObservedState) -> Result<(), Errno> {
        match effect {
            Effect::Persist(persisted) => self.save(persisted),
            Effect::Set(key, value) => self.write(key, &value.clone().into(), live),
            Effect::Clear(key) => self.write(key, &Content::Empty, live),
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

    /// What was saved survives a loss of power from here on. Not before the kernel has its values: it
    /// takes longer than they do.
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
            "the state was not saved"
        );
    }

    fn write(
        &mut self,
        key: &SysctlKey,
        content: &Content,
        live: &ObservedState,
    ) -> Result<(), Errno> {
        let written = self.sysctls.write(key, content);
        self.metrics.write(written.is_ok());
        let from = live.content(key).map_or("", Content::as_str);
        let (node, tuning, key, to) = (&self.node, &self.goal.tuning, key.name(), content.as_str());
        match written {
            Ok(()) => tracing::info!(node, tuning, key, from, to, "set"),
            Err(errno) => {
                let error = std::io::Error::from(errno).to_string();
                tracing::warn!(node, tuning, key, from, to, error, "refused");
            }
        }
        written
    }

    fn notice(&self, drifts: &[Drift]) {
        for drift in drifts {
            self.metrics.drift(drift.key.name());
            if drift.reported_before {
                continue;
            }
            tracing::warn!(
                node = self.node,
                tuning = self.goal.tuning,
                key = drift.key.name(),
                found = drift.found.as_str(),
                wanted = drift.desired,
                repaired = drift.repaired,
                contest = drift.conflict,
                "somebody else has changed a sysctl"
            );
        }
    }

    fn say_what_is_left(&self, left: &[Left]) {
        for left in left {
            tracing::warn!(
                node = self.node,
                tuning = self.goal.tuning,
                key = &*left.key,
                message = left.message,
                "the original of a sysctl that is not managed any more does not go back"
            );
        }
    }

    /// Once, and again where it has changed.
    fn say_how_it_notices(&mut self) {
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
                "no inotify: what somebody else writes is seen within 100 ms, not at once"
            );
        }
    }

    /// Nothing is left to do: says what was found.
    fn rest(&mut self, step: Step, live: &ObservedState, until: Mono, now: Mono) {
        self.memory = step.memory;
        self.observe(live, now);
        self.metrics.keys(&step.keys);
        let findings = NodeReport {
            revision: self.goal.revision().cloned(),
            task: self.goal.task,
            keys: step.keys,
            released: step.released,
            malformed: self.malformed.clone(),
            tables: self.signals.tables().in_bands(),
            signals: self.signals.findings(now),
            facts: self.facts.clone(),
            identity: Arc::clone(&self.identity),
        };
        self.metrics.signals(&self.signals, &findings.signals);
        self.findings.send_if_modified(|last| {
            let differs = last.as_deref() != Some(&findings);
            if differs {
                *last = Some(Arc::new(findings));
            }
            differs
        });
        self.flush(now);
        self.due = until.min(now.after(COUNT));
    }

    /// What is looked at less often than the keys.
    fn observe(&mut self, live: &ObservedState, now: Mono) {
        self.say_how_it_notices();
        self.signals.observe(live, now);
        if now.since(self.facts_read) >= FACTS {
            self.facts = facts::read(&self.roots, &self.identity, self.facts.pod_links);
            self.facts_read = now;
        }
    }
}

/// The limits of the tables whose use is reported.
static TABLE_LIMITS: [&SysctlKey; 3] = [
    &nettune_sizing::keys::IPV4_GC_THRESH3,
    &nettune_sizing::keys::IPV6_GC_THRESH3,
    &nettune_sizing::keys::NF_CONNTRACK_MAX,
];
