//! A node on which another process writes the same sysctls, over hours and days.

use std::time::Duration;

use nettune_reconcile::desired::Task;
use nettune_reconcile::effect::Effect;
use nettune_reconcile::outcome::KeyReport;
use nettune_sizing::{DesiredValue, Mono, SysctlKey};

use super::{Agent, Kernel, desired};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A node on which another process writes too.
pub(crate) struct Simulation {
    pub(crate) agent: Agent,
    pub(crate) kernel: Kernel,
    /// When each write was done, and of which key.
    pub(crate) writes: Vec<(Mono, SysctlKey)>,
    /// Every report that differed from the one before.
    pub(crate) reports: Vec<Vec<KeyReport>>,
}

impl Simulation {
    pub(crate) fn over(wanted: &[(&SysctlKey, DesiredValue)]) -> Self {
        let mut simulation = Self {
            agent: Agent::new(desired(Task::Enforce, wanted)),
            kernel: Kernel::new(),
            writes: Vec::new(),
            reports: Vec::new(),
        };
        simulation.settle();
        simulation.writes.clear();
        simulation
    }

    /// Looks until nothing is left to do, and says when to look again at the latest.
    pub(crate) fn settle(&mut self) -> Mono {
        let settled = self.agent.settle(&mut self.kernel).0;
        let wrote = self.kernel.writes.drain(..);
        self.writes
            .extend(wrote.map(|(key, _)| (self.agent.now, key)));
        if self.reports.last() != Some(&settled.keys) {
            self.reports.push(settled.keys);
        }
        match settled.effect {
            Effect::Rest { until } => until,
            other => panic!("{other:?} is no rest"),
        }
    }

    /// For `span`, another process writes each `tempo`, and the agent steps whenever it has to.
    pub(crate) fn go_on(
        &mut self,
        span: Duration,
        tempo: Duration,
        mut write: impl FnMut(&mut Kernel),
    ) {
        let end = self.agent.now.after(span);
        let mut next = self.agent.now.after(tempo);
        while self.agent.now < end {
            let due = self.settle();
            self.agent.now = due.min(next).min(end);
            if self.agent.now == next {
                write(&mut self.kernel);
                next = next.after(tempo);
            }
        }
        self.settle();
    }

    /// For `span` nobody else writes; steps that find nothing new are skipped.
    pub(crate) fn rest(&mut self, span: Duration) {
        let end = self.agent.now.after(span);
        while self.agent.now < end {
            self.settle();
            self.agent.now = self.agent.now.after(Duration::from_secs(60)).min(end);
        }
        self.settle();
    }

    pub(crate) fn key(&self, key: &SysctlKey) -> &KeyReport {
        let reports = self.reports.last().unwrap();
        let mut reports = reports.iter();
        reports.find(|report| &*report.name == key.name()).unwrap()
    }

    pub(crate) fn writes_of(&self, key: &SysctlKey) -> usize {
        self.writes.iter().filter(|(_, own)| own == key).count()
    }

    /// How often the state of a key has turned.
    pub(crate) fn turns(&self) -> usize {
        let states = |report: &[KeyReport]| -> Vec<_> {
            report
                .iter()
                .map(|key| (key.state, key.waits_for.clone()))
                .collect()
        };
        let mut all: Vec<_> = self.reports.iter().map(|report| states(report)).collect();
        all.dedup();
        all.len()
    }

    /// The most writes of one key within an hour.
    pub(crate) fn most_in_an_hour(&self, key: &SysctlKey) -> usize {
        let times: Vec<Mono> = self
            .writes
            .iter()
            .filter(|(_, own)| own == key)
            .map(|(at, _)| *at)
            .collect();
        let from = |at: &Mono| {
            times
                .iter()
                .filter(|time| *time >= at && time.since(*at) < HOUR)
                .count()
        };
        times.iter().map(from).max().unwrap_or(0)
    }
}
