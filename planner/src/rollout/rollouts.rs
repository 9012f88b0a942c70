//! The rollouts of all tunings: which nodes wait, and which are next.
//!
//! Everything follows from the objects, mainly from the `canary` mark of profiles. Only times come from this
//! leader's memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use nettune_crds::{NodeNetworkProfileSpec, Rollout};

use crate::assign::Claim;
use crate::cluster::profile::{ProfiledNode, normalized};
use crate::rollout::gate::{Gate, MOST_NAMED, Standing};
use crate::rollout::waves::{RolloutAction, RolloutGroup};

/// All rollouts.
#[derive(Debug)]
pub(crate) struct Rollouts<'a> {
    /// First those of the claims, by their indices. Then those of tunings that are gone or cannot be used and
    /// still have nodes to release.
    pub(crate) gates: Vec<Gate>,
    /// The gates' indices.
    pub(crate) by_tuning: BTreeMap<&'a str, usize>,
    pub(crate) groups: Vec<RolloutGroup<'a>>,
    by_content: HashMap<Arc<NodeNetworkProfileSpec>, usize>,
    resting: &'a BTreeSet<Arc<str>>,
}

impl<'a> Rollouts<'a> {
    /// The gates of all claims. `resting` are the tunings without a rollout in progress.
    pub(crate) fn new(claims: &[Claim<'a>], resting: &'a BTreeSet<Arc<str>>) -> Self {
        let rule = |claim: &Claim<'_>| claim.usable.map(|usable| usable.rollout);
        let gates = claims.iter().map(|claim| {
            let rule = rule(claim).unwrap_or_default();
            Gate::new(Arc::clone(claim.name), rule, resting)
        });
        Self {
            gates: gates.collect(),
            by_tuning: (claims.iter().enumerate())
                .map(|(index, claim)| (&**claim.name, index))
                .collect(),
            groups: Vec::new(),
            by_content: HashMap::new(),
            resting,
        }
    }

    /// The gate of a tuning that releases nodes: its own, or one with the default settings if it is gone.
    pub(crate) fn gate_of_tuning(&mut self, tuning: &'a str) -> usize {
        *self.by_tuning.entry(tuning).or_insert_with(|| {
            let rule = Rollout::default();
            self.gates
                .push(Gate::new(tuning.into(), rule, self.resting));
            self.gates.len() - 1
        })
    }

    /// The group of nodes that will hold this. The content names its tuning, so it has one gate.
    pub(crate) fn group(&mut self, gate: usize, spec: &NodeNetworkProfileSpec) -> usize {
        let content = Arc::new(normalized(spec.clone()));
        *self.by_content.entry(content).or_insert_with(|| {
            self.groups.push(RolloutGroup::new(gate, spec));
            self.groups.len() - 1
        })
    }

    /// Adds a waiting node.
    pub(crate) fn wait(&mut self, group: usize, node: ProfiledNode<'a>) {
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        if let Some(gate) = self.gates.get_mut(group.gate) {
            gate.waiting += 1;
        }
        group.wait(node);
    }

    /// Counts a canary. If an earlier rollout wrote it (`settled`), it proves its kernel but does not count
    /// against `maxFailed`.
    pub(crate) fn count(
        &mut self,
        group: usize,
        node: ProfiledNode<'a>,
        settled: bool,
        standing: &Standing,
    ) {
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        let Some(gate) = self.gates.get_mut(group.gate) else {
            return;
        };
        group.learn(node, standing);
        if settled {
            return;
        }
        gate.written += 1;
        match standing {
            Standing::Passed => {}
            Standing::InFlight => {
                gate.in_flight += 1;
                group.in_flight += 1;
            }
            Standing::Failed(why) => {
                gate.failed += 1;
                if gate.named.len() < MOST_NAMED {
                    gate.named.push((Arc::clone(node.name), Arc::clone(why)));
                }
            }
        }
    }

    /// The nodes that are next; first those that were admitted before and are not written yet.
    pub(crate) fn next(
        &self,
        admitted: &BTreeSet<Arc<str>>,
    ) -> Vec<(ProfiledNode<'a>, RolloutAction)> {
        let groups = self.groups.iter();
        let groups = groups.filter_map(|group| Some((group, self.gates.get(group.gate)?)));
        groups
            .flat_map(|(group, gate)| group.next(gate, admitted))
            .collect()
    }

    /// The tunings without a rollout in progress.
    pub(crate) fn resting(&self) -> BTreeSet<Arc<str>> {
        let resting = self.gates.iter().filter(|gate| gate.is_at_rest());
        resting.map(|gate| Arc::clone(&gate.tuning)).collect()
    }
}
