//! What one leader remembers from one decision to the next: since when.
//!
//! Nothing here is needed to be right: a leader that has just begun remembers nothing, and waits
//! again. Each decision makes the memory anew from the nodes that it sees, so that it cannot grow
//! past them.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::sync::Arc;

use jiff::Timestamp;
use nettune_crds::NodeNetworkProfileSpec;

use nettune_sizing::Mono;

/// What [`decide`](crate::decide()) gives back for its next call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    /// By name, in order.
    nodes: Vec<(Arc<str>, Seen)>,
    /// Nodes that were let in and whose write the world does not show yet: they keep their place.
    pub(crate) admitted: BTreeSet<Arc<str>>,
    /// Tunings in which no rollout was under way.
    pub(crate) resting: BTreeSet<Arc<str>>,
}

/// Since when one node has been as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) canary: Option<Canary>,
    pub(crate) silence: Option<Silence>,
    /// Since when this smaller size has been wanted.
    pub(crate) smaller: Option<(Mono, Arc<NodeNetworkProfileSpec>)>,
    /// Since when it has had the startup taint.
    pub(crate) tainted: Option<Mono>,
}

/// A node that a rollout has written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Canary {
    /// The profile's uid and generation: another one is another canary.
    pub(crate) profile: Arc<str>,
    pub(crate) generation: Option<i64>,
    /// Whether it is as it shall be, and since when that has been so or not so.
    pub(crate) ready: bool,
    pub(crate) since: Mono,
    /// Whether the rollout that it was part of is over.
    pub(crate) settled: bool,
}

/// An agent that gives no sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Silence {
    /// Since then.
    Since(Mono),
    /// Its profile shall say so; when its `Ready` turned last before that. An agent may object before
    /// anybody has seen that it was said.
    Due(Option<Timestamp>),
    /// Its profile says so.
    Said,
    /// Its profile said so, and the agent has objected: it lives, whatever the signs.
    Refuted,
}

impl Memory {
    /// How many nodes something is remembered of.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Every moment in it, to be moved. What is decided depends on how long ago each was, so that a
    /// checker that reckons them from the present takes states that differ by the clock alone for one.
    pub fn moments_mut(&mut self) -> impl Iterator<Item = &mut Mono> {
        self.nodes.iter_mut().flat_map(|(_, seen)| {
            let silence = match &mut seen.silence {
                Some(Silence::Since(since)) => Some(since),
                Some(Silence::Due(_) | Silence::Said | Silence::Refuted) | None => None,
            };
            [
                seen.canary.as_mut().map(|canary| &mut canary.since),
                silence,
                seen.smaller.as_mut().map(|(since, _)| since),
                seen.tainted.as_mut(),
            ]
            .into_iter()
            .flatten()
        })
    }
}

/// The memory of the decision before, gone through in the order of names while the next one is made.
pub(crate) struct Recall<'a> {
    old: Peekable<std::slice::Iter<'a, (Arc<str>, Seen)>>,
    pub(crate) new: Memory,
}

impl<'a> Recall<'a> {
    pub(crate) fn of(memory: &'a Memory) -> Self {
        Self {
            old: memory.nodes.iter().peekable(),
            new: Memory {
                nodes: Vec::with_capacity(memory.nodes.len()),
                ..Memory::default()
            },
        }
    }

    /// What is remembered of the next node.
    pub(crate) fn seen(&mut self, name: &str) -> Option<&'a Seen> {
        while self.old.next_if(|(old, _)| **old < *name).is_some() {}
        let (_, seen) = self.old.next_if(|(old, _)| **old == *name)?;
        Some(seen)
    }

    pub(crate) fn keep(&mut self, name: &Arc<str>, seen: Seen) {
        if seen != Seen::default() {
            self.new.nodes.push((Arc::clone(name), seen));
        }
    }
}
