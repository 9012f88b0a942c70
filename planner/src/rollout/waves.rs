//! The waves of a rollout: in a group of nodes that will hold the same values, which go first.

use std::collections::BTreeSet;
use std::sync::Arc;

use nettune_crds::NodeNetworkProfileSpec;
use nettune_sizing::KernelVersion;

use crate::cluster::profile::ProfiledNode;
use crate::rollout::gate::{Gate, Standing};

/// Nodes in the first wave; each later one has as many as have passed.
const FIRST_WAVE: u32 = 1;

/// Nodes that will hold the same values.
#[derive(Debug)]
pub(crate) struct RolloutGroup<'a> {
    pub(crate) gate: usize,
    /// The desired spec; `None` for a release.
    pub(crate) spec: Option<Arc<NodeNetworkProfileSpec>>,
    /// The same with the canary mark.
    canary: Option<Arc<NodeNetworkProfileSpec>>,
    passed: u32,
    pub(crate) in_flight: u32,
    /// The few kernels of the nodes that have passed or are in flight.
    kernels: Vec<Option<KernelVersion>>,
    /// Those of them on which a node has passed.
    proven: Vec<Option<KernelVersion>>,
    /// Waiting nodes that are Ready.
    ready: Vec<ProfiledNode<'a>>,
    /// Waiting nodes that are not Ready: they prove nothing, so they come last.
    not_ready: Vec<ProfiledNode<'a>>,
    /// Released nodes that have passed: their profiles are deleted when no node of the group is in flight.
    released: Vec<ProfiledNode<'a>>,
}

/// The action for a node that is next.
#[derive(Debug)]
pub(crate) enum RolloutAction {
    /// Its profile is written.
    Write(Arc<NodeNetworkProfileSpec>),
    /// Its original values go back; `canary` if its Node is Ready.
    Release { canary: bool },
    /// Its original values are back: its profile is deleted.
    Delete,
}

impl<'a> RolloutGroup<'a> {
    pub(crate) fn new(gate: usize, spec: &NodeNetworkProfileSpec) -> Self {
        let canary = NodeNetworkProfileSpec {
            canary: true,
            ..spec.clone()
        };
        Self {
            gate,
            spec: (!spec.release).then(|| Arc::new(spec.clone())),
            canary: (!spec.release).then(|| Arc::new(canary)),
            passed: 0,
            in_flight: 0,
            kernels: Vec::new(),
            proven: Vec::new(),
            ready: Vec::new(),
            not_ready: Vec::new(),
            released: Vec::new(),
        }
    }

    pub(crate) fn wait(&mut self, node: ProfiledNode<'a>) {
        if node.node.ready.is_true() {
            self.ready.push(node);
        } else {
            self.not_ready.push(node);
        }
    }

    /// Adds the standing of a canary, whichever rollout wrote it.
    pub(crate) fn learn(&mut self, node: ProfiledNode<'a>, standing: &Standing) {
        let kernel = node.node.facts.kernel;
        let tried = matches!(standing, Standing::Passed | Standing::InFlight);
        if tried && !self.kernels.contains(&kernel) {
            self.kernels.push(kernel);
        }
        if *standing == Standing::Passed {
            self.passed += 1;
            if !self.proven.contains(&kernel) {
                self.proven.push(kernel);
            }
            if self.spec.is_none() {
                self.released.push(node);
            }
        }
    }

    /// The nodes that are next.
    pub(crate) fn next(
        &self,
        gate: &Gate,
        admitted: &BTreeSet<Arc<str>>,
    ) -> Vec<(ProfiledNode<'a>, RolloutAction)> {
        let mut next = Vec::new();
        let is_last = self.ready.is_empty() && self.in_flight == 0;
        if self.spec.is_none() && is_last {
            let released = self.released.iter();
            next.extend(released.map(|node| (*node, RolloutAction::Delete)));
        }
        if gate.is_closed() {
            return next;
        }
        if gate.rule.all_at_once || is_last {
            let not_ready = self.not_ready.iter();
            next.extend(not_ready.map(|node| (*node, self.action(false))));
        }
        if gate.rule.all_at_once {
            let ready = self.ready.iter();
            next.extend(ready.map(|node| (*node, self.action(false))));
        } else {
            let wave = self.wave(admitted).into_iter();
            next.extend(wave.map(|node| (node, self.action(true))));
        }
        next
    }

    fn action(&self, canary: bool) -> RolloutAction {
        let spec = if canary { &self.canary } else { &self.spec };
        match spec {
            Some(spec) => RolloutAction::Write(Arc::clone(spec)),
            None => RolloutAction::Release { canary },
        }
    }

    /// Admits nodes: one, or as many as have passed. Nodes that were admitted before come first, then one of
    /// each kernel that was not tried yet.
    fn wave(&self, admitted: &BTreeSet<Arc<str>>) -> Vec<ProfiledNode<'a>> {
        let most = self.passed.max(FIRST_WAVE);
        let most = most.saturating_sub(self.in_flight);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut wave: Vec<ProfiledNode<'a>> = Vec::new();
        let mut kernels = self.kernels.clone();
        let mut chosen = BTreeSet::new();
        let mut choose = |node: &ProfiledNode<'a>| {
            if wave.len() < most && chosen.insert(node.name) {
                wave.push(*node);
            }
        };
        if !admitted.is_empty() {
            let keep = |node: &&ProfiledNode<'_>| admitted.contains(node.name);
            for node in self.ready.iter().filter(keep) {
                kernels.push(node.node.facts.kernel);
                choose(node);
            }
        }
        for node in &self.ready {
            let kernel = node.node.facts.kernel;
            if !kernels.contains(&kernel) {
                kernels.push(kernel);
                choose(node);
            }
        }
        // More than one of a kernel only after one has passed on it.
        let proven = |node: &&ProfiledNode<'_>| self.proven.contains(&node.node.facts.kernel);
        let proven = self.ready.iter().filter(proven);
        for node in proven.take(most.saturating_mul(2)) {
            choose(node);
        }
        wave
    }
}
