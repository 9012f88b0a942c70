//! Who is next: changes that may do harm reach a few nodes first, and the others when those have
//! passed.
//!
//! All of it is told by what the objects say, the `canary` mark of a profile above all; only times
//! come from this leader's memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use nettune_crds::{NodeNetworkProfileSpec, Rollout};
use nettune_sizing::KernelVersion;

use crate::cluster::node::PlannedNode;
use crate::cluster::profile::{PlannedProfile, behaviour};
use crate::memory::Canary;
use crate::time::{Alarm, Now};

/// Most failed nodes that are named.
pub(crate) const MOST_NAMED: usize = 10;

/// The rollouts of one tuning, over all its groups.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) rule: Rollout,
    /// Nodes of this rollout that are on canary, have passed or have failed.
    pub(crate) written: u32,
    pub(crate) failed: u32,
    pub(crate) in_flight: u32,
    /// Nodes whose turn is yet to come, those included that are let in now.
    pub(crate) waiting: u32,
    /// The first few that failed, and why.
    pub(crate) named: Vec<(Arc<str>, Arc<str>)>,
}

impl Gate {
    fn new(rule: Rollout) -> Self {
        Self {
            rule,
            written: 0,
            failed: 0,
            in_flight: 0,
            waiting: 0,
            named: Vec::new(),
        }
    }

    /// Whether more nodes have failed than may.
    pub(crate) fn is_stopped(&self) -> bool {
        !self.rule.all_at_once && self.failed > self.rule.max_failed.of(self.written)
    }

    /// Whether no further node is begun.
    pub(crate) fn is_closed(&self) -> bool {
        self.rule.paused || self.is_stopped()
    }

    fn is_at_rest(&self) -> bool {
        self.waiting == 0 && self.in_flight == 0
    }
}

/// Nodes that shall come to say the same.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) gate: usize,
    /// What their profiles shall say; `None` where they shall be released.
    pub(crate) spec: Option<Arc<NodeNetworkProfileSpec>>,
    /// The same with the mark of a canary.
    on_trial: Option<Arc<NodeNetworkProfileSpec>>,
    passed: u32,
    in_flight: u32,
    /// The kernels of those: a few.
    kernels: Vec<Option<KernelVersion>>,
    /// Those of them on which a node has passed.
    proven: Vec<Option<KernelVersion>>,
    /// Their Nodes are Ready: they take their turn.
    ready: Vec<Candidate<'a>>,
    /// Theirs are not: nothing can be told from them, so they come last.
    not_ready: Vec<Candidate<'a>>,
    /// Released nodes that have passed: their profiles go when no node of the group is on its way.
    released: Vec<Candidate<'a>>,
}

/// A node that waits for its turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) name: &'a Arc<str>,
    pub(crate) node: &'a PlannedNode,
    pub(crate) profile: &'a PlannedProfile,
}

/// What becomes of a candidate now.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Its profile is written.
    Write(Arc<NodeNetworkProfileSpec>),
    /// Its originals shall go back; `canary` where its Node is Ready.
    Release { canary: bool },
    /// Its originals are back: its profile goes.
    Delete,
}

/// How a node on canary stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    InFlight,
    Passed,
    Failed(Arc<str>),
}

/// Every rollout that there may be.
#[derive(Debug, Default)]
pub(crate) struct Rollouts<'a> {
    pub(crate) gates: Vec<Gate>,
    targets: Vec<Target<'a>>,
    by_content: HashMap<Arc<NodeNetworkProfileSpec>, usize>,
}

impl<'a> Rollouts<'a> {
    pub(crate) fn gate(&mut self, rule: Rollout) -> usize {
        self.gates.push(Gate::new(rule));
        self.gates.len() - 1
    }

    /// The nodes that shall say this. The content names its tuning, and so it has one gate.
    pub(crate) fn target(&mut self, gate: usize, spec: &NodeNetworkProfileSpec) -> usize {
        let content = Arc::new(behaviour(spec.clone()));
        if let Some(known) = self.by_content.get(&content) {
            return *known;
        }
        let on_trial = (!spec.release).then(|| {
            Arc::new(NodeNetworkProfileSpec {
                canary: true,
                ..spec.clone()
            })
        });
        self.targets.push(Target {
            gate,
            spec: (!spec.release).then(|| Arc::new(spec.clone())),
            on_trial,
            passed: 0,
            in_flight: 0,
            kernels: Vec::new(),
            proven: Vec::new(),
            ready: Vec::new(),
            not_ready: Vec::new(),
            released: Vec::new(),
        });
        self.by_content.insert(content, self.targets.len() - 1);
        self.targets.len() - 1
    }

    pub(crate) fn spec(&self, target: usize) -> Option<&Arc<NodeNetworkProfileSpec>> {
        self.targets.get(target)?.spec.as_ref()
    }

    pub(crate) fn gate_of(&self, target: usize) -> Option<&Gate> {
        self.gates.get(self.targets.get(target)?.gate)
    }

    /// A node waits for its turn.
    pub(crate) fn wait(&mut self, target: usize, candidate: Candidate<'a>) {
        let Some(target) = self.targets.get_mut(target) else {
            return;
        };
        if let Some(gate) = self.gates.get_mut(target.gate) {
            gate.waiting += 1;
        }
        if candidate.node.ready.is_true() {
            target.ready.push(candidate);
        } else {
            target.not_ready.push(candidate);
        }
    }

    /// A node on canary stands so; what an earlier rollout wrote counts only as experience.
    pub(crate) fn count(
        &mut self,
        target: usize,
        candidate: Candidate<'a>,
        settled: bool,
        standing: &Standing,
    ) {
        let Some(target) = self.targets.get_mut(target) else {
            return;
        };
        let Some(gate) = self.gates.get_mut(target.gate) else {
            return;
        };
        let kernel = candidate.node.facts.kernel;
        let tried = matches!(standing, Standing::Passed | Standing::InFlight);
        if tried && !target.kernels.contains(&kernel) {
            target.kernels.push(kernel);
        }
        if *standing == Standing::Passed {
            target.passed += 1;
            if !target.proven.contains(&kernel) {
                target.proven.push(kernel);
            }
            if target.spec.is_none() {
                target.released.push(candidate);
            }
        }
        if settled {
            return;
        }
        gate.written += 1;
        match standing {
            Standing::Passed => {}
            Standing::InFlight => {
                gate.in_flight += 1;
                target.in_flight += 1;
            }
            Standing::Failed(why) => {
                gate.failed += 1;
                if gate.named.len() < MOST_NAMED {
                    gate.named
                        .push((Arc::clone(candidate.name), Arc::clone(why)));
                }
            }
        }
    }

    /// Whose turn it is, those first that were let in before and are not written yet.
    pub(crate) fn turns(
        &self,
        admitted: &BTreeSet<Arc<str>>,
        mut take: impl FnMut(Candidate<'a>, Turn),
    ) {
        for target in &self.targets {
            let Some(gate) = self.gates.get(target.gate) else {
                continue;
            };
            if target.spec.is_none() && target.ready.is_empty() && target.in_flight == 0 {
                for candidate in &target.released {
                    take(*candidate, Turn::Delete);
                }
            }
            if gate.is_closed() {
                continue;
            }
            let everybody = gate.rule.all_at_once;
            if everybody || (target.ready.is_empty() && target.in_flight == 0) {
                for candidate in &target.not_ready {
                    take(*candidate, target.turn(false));
                }
            }
            if everybody {
                for candidate in &target.ready {
                    take(*candidate, target.turn(false));
                }
            } else {
                for candidate in target.next(admitted) {
                    take(candidate, target.turn(true));
                }
            }
        }
    }

    /// Whether a tuning has no rollout under way.
    pub(crate) fn is_at_rest(&self, gate: usize) -> bool {
        self.gates.get(gate).is_some_and(Gate::is_at_rest)
    }
}

impl<'a> Target<'a> {
    fn turn(&self, canary: bool) -> Turn {
        let spec = if canary { &self.on_trial } else { &self.spec };
        match spec {
            Some(spec) => Turn::Write(Arc::clone(spec)),
            None => Turn::Release { canary },
        }
    }

    /// As many as may be in flight: one, or as many as have passed. Kernels that were not tried yet go
    /// first, and one of each.
    fn next(&self, admitted: &BTreeSet<Arc<str>>) -> Vec<Candidate<'a>> {
        let most = self.passed.max(1).saturating_sub(self.in_flight);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut next: Vec<Candidate<'a>> = Vec::new();
        let mut kernels = self.kernels.clone();
        let mut chosen = BTreeSet::new();
        let mut choose = |next: &mut Vec<Candidate<'a>>, candidate: &Candidate<'a>| {
            if next.len() < most && chosen.insert(candidate.name) {
                next.push(*candidate);
            }
        };
        if !admitted.is_empty() {
            let keep = |candidate: &&Candidate<'_>| admitted.contains(candidate.name);
            for candidate in self.ready.iter().filter(keep) {
                kernels.push(candidate.node.facts.kernel);
                choose(&mut next, candidate);
            }
        }
        for candidate in &self.ready {
            let kernel = candidate.node.facts.kernel;
            if !kernels.contains(&kernel) {
                kernels.push(kernel);
                choose(&mut next, candidate);
            }
        }
        // More than one of a kernel only when one has passed on it.
        let proven = |candidate: &&Candidate<'_>| {
            let kernel = &candidate.node.facts.kernel;
            self.proven.contains(kernel)
        };
        for candidate in self
            .ready
            .iter()
            .filter(proven)
            .take(most.saturating_mul(2))
        {
            choose(&mut next, candidate);
        }
        next
    }
}

/// How a node on canary stands, and what to remember of that.
pub(crate) fn judge(
    rule: &Rollout,
    candidate: Candidate<'_>,
    ready: bool,
    remembered: Option<&Canary>,
    resting: bool,
    (alarm, now): (&mut Alarm, Now),
) -> (Canary, Standing) {
    let Candidate { node, profile, .. } = candidate;
    let ready = ready && node.ready.is_true();
    let remembered = remembered
        .filter(|canary| canary.profile == profile.uid && canary.generation == profile.generation);
    let canary = Canary {
        profile: Arc::clone(&profile.uid),
        generation: profile.generation,
        ready,
        since: remembered
            .filter(|canary| canary.ready == ready)
            .map_or(now.mono, |canary| canary.since),
        settled: remembered.is_some_and(|canary| canary.settled || resting),
    };
    let failure = profile
        .reported_now(node)
        .and_then(|reported| reported.failure.clone());
    let standing = if let Some(failure) = failure {
        Standing::Failed(failure)
    } else if !node.ready.is_true() {
        Standing::Failed("its Node is not Ready any more".into())
    } else if ready {
        match alarm.passed(canary.since, rule.min_ready, now) {
            true => Standing::Passed,
            false => Standing::InFlight,
        }
    } else if alarm.passed(canary.since, rule.node_deadline, now) {
        let seconds = rule.node_deadline.as_secs();
        Standing::Failed(format!("its agent has not said for {seconds} s that it is ready").into())
    } else {
        Standing::InFlight
    };
    (canary, standing)
}
