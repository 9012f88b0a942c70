//! What a leader remembers between decisions: mostly since when something has been so.
//!
//! Correctness does not depend on it: a new leader starts without memory, and waits again. Each decision
//! builds the memory from the nodes that it sees, so it cannot grow beyond them.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::slice::Iter;
use std::sync::Arc;

use jiff::Timestamp;
use nettune_crds::NodeNetworkProfileSpec;
use nettune_sizing::Mono;

/// What [`decide`](crate::decide()) returns for its next call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    pub(crate) canaries: ByNode<Canary>,
    pub(crate) silences: ByNode<Silence>,
    pub(crate) shrinks: ByNode<PendingShrink>,
    /// Since when nodes have had the startup taint.
    pub(crate) tainted: ByNode<Mono>,
    /// Nodes whose write was admitted and does not show yet: they keep their place.
    pub(crate) admitted: BTreeSet<Arc<str>>,
    /// Tunings without a rollout under way.
    pub(crate) resting: BTreeSet<Arc<str>>,
}

/// A node that a rollout has written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Canary {
    /// The profile's uid and generation: another one is another canary.
    pub(crate) profile: Arc<str>,
    pub(crate) generation: Option<i64>,
    /// Whether the node has the desired values, and since when.
    pub(crate) ready: bool,
    pub(crate) since: Mono,
    /// Whether the rollout that it was part of is over.
    pub(crate) settled: bool,
}

/// An unresponsive agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Silence {
    Since(Mono),
    /// The profile is to report it. Holds the last transition time of `Ready`: a later change is the agent's
    /// answer, which may come before the report was seen.
    Due(Option<Timestamp>),
    /// Its profile reports it.
    Said,
    /// Its profile reported it, and the agent has answered: it is alive.
    Refuted,
}

/// A smaller size, and since when it has been right.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PendingShrink {
    pub(crate) since: Mono,
    pub(crate) wanted: Arc<NodeNetworkProfileSpec>,
}

impl Memory {
    /// Every moment in it, mutable. Decisions depend only on how long ago each was, so a model checker can count
    /// them from the present and merge states that differ only by the clock.
    pub fn moments_mut(&mut self) -> impl Iterator<Item = &mut Mono> {
        let silences = self
            .silences
            .values_mut()
            .filter_map(|silence| match silence {
                Silence::Since(since) => Some(since),
                Silence::Due(_) | Silence::Said | Silence::Refuted => None,
            });
        let canaries = self.canaries.values_mut().map(|canary| &mut canary.since);
        let shrinks = self.shrinks.values_mut().map(|shrink| &mut shrink.since);
        canaries
            .chain(silences)
            .chain(shrinks)
            .chain(self.tainted.values_mut())
    }
}

/// Values of some nodes, ordered by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ByNode<T>(Vec<(Arc<str>, T)>);

impl<T> Default for ByNode<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> From<Vec<(Arc<str>, T)>> for ByNode<T> {
    fn from(mut nodes: Vec<(Arc<str>, T)>) -> Self {
        nodes.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self(nodes)
    }
}

impl<T> ByNode<T> {
    /// For lookups in the order of names, in constant time.
    pub(crate) fn cursor(&self) -> MemoryCursor<'_, T> {
        MemoryCursor(self.0.iter().peekable())
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

/// A place in a [`ByNode`].
pub(crate) struct MemoryCursor<'a, T>(Peekable<Iter<'a, (Arc<str>, T)>>);

impl<'a, T> MemoryCursor<'a, T> {
    /// The value of this node. Names must be looked up in ascending order.
    pub(crate) fn get(&mut self, name: &str) -> Option<&'a T> {
        while self.0.next_if(|(known, _)| **known < *name).is_some() {}
        let (_, value) = self.0.next_if(|(known, _)| **known == *name)?;
        Some(value)
    }
}
