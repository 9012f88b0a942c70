//! How releases go of which no tuning's status tells: the tuning is gone, or the profile goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::profile::Reported;
use crate::cluster::state::ClusterState;
use crate::rollout::gate::{Candidate, Gate, MOST_NAMED};
use crate::status::tuning::{self as status, Tally};

/// What a stopped release waits for where the tuning is gone.
const UNTIL_GONE: &str = "these recover or are deleted, or a tuning takes them";

/// The nodes that leave one tuning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The tuning's name; there may be none of this name any more.
    pub tuning: Arc<str>,
    /// Nodes whose originals are not back yet, where the tuning is gone. One that is there counts them
    /// in its status.
    pub releasing: i32,
    /// Nodes on which a key could not be put back, that are not Ready any more, or whose agent has not
    /// answered in time.
    pub failed: i32,
    /// Those of them whose agent is unresponsive.
    pub unresponsive: i32,
    /// Why no further node is released, where that is so.
    pub stopped: Option<String>,
    /// What is worth telling of single nodes; the first ten.
    pub nodes: Vec<Leaver>,
}

/// A node whose release did not go as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaver {
    /// The node's name.
    pub node: Arc<str>,
    /// The Node's uid.
    pub uid: Arc<str>,
    /// Whether its release has failed, and holds up others; else its profile goes, and something was
    /// left on the node.
    pub failed: bool,
    /// What the agent says, or what is known of it.
    pub why: Arc<str>,
}

/// Nodes that have released, and left something.
#[derive(Debug, Default)]
pub(crate) struct Leavers(BTreeMap<Arc<str>, Vec<Leaver>>);

impl Leavers {
    /// A node has released.
    pub(crate) fn released(
        &mut self,
        tuning: &str,
        candidate: Candidate<'_>,
        reported: Option<&Reported>,
    ) {
        let Some(why) = reported.and_then(|reported| reported.left.as_ref()) else {
            return;
        };
        let nodes = self.0.entry(tuning.into()).or_default();
        if nodes.len() < MOST_NAMED {
            nodes.push(Leaver {
                node: Arc::clone(candidate.name),
                uid: Arc::clone(&candidate.node.uid),
                failed: false,
                why: Arc::clone(why),
            });
        }
    }

    /// What there is to tell, with the tunings that are gone and how their releases stand.
    pub(crate) fn tell<'a>(
        self,
        gone: impl Iterator<Item = (&'a str, &'a Tally, &'a Gate)>,
        world: &ClusterState,
    ) -> Vec<Leaving> {
        let mut all: BTreeMap<Arc<str>, Leaving> = BTreeMap::new();
        for (tuning, nodes) in self.0 {
            let leaving = Leaving::of(Arc::clone(&tuning), nodes);
            all.insert(tuning, leaving);
        }
        for (tuning, tally, gate) in gone {
            let tuning: Arc<str> = tuning.into();
            let leaving = all
                .entry(Arc::clone(&tuning))
                .or_insert_with(|| Leaving::of(tuning, Vec::new()));
            leaving.releasing = tally.count.releasing;
            leaving.failed = i32::try_from(gate.failed).unwrap_or(i32::MAX);
            leaving.unresponsive = tally.count.unresponsive;
            let is_stopped = gate.is_stopped() && gate.waiting > 0;
            leaving.stopped = is_stopped.then(|| status::stopped(gate, UNTIL_GONE));
            for (node, why) in &gate.named {
                let uid = world.nodes.get(node).map(|node| Arc::clone(&node.uid));
                leaving.nodes.push(Leaver {
                    node: Arc::clone(node),
                    uid: uid.unwrap_or_default(),
                    failed: true,
                    why: Arc::clone(why),
                });
            }
        }
        all.into_values().collect()
    }
}

impl Leaving {
    fn of(tuning: Arc<str>, nodes: Vec<Leaver>) -> Self {
        Self {
            tuning,
            releasing: 0,
            failed: 0,
            unresponsive: 0,
            stopped: None,
            nodes,
        }
    }
}
