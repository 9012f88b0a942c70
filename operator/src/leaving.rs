//! What there is to tell of releases: nobody's status does where the tuning is gone, and a profile that
//! goes takes its status with it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use nettune_planner::{Announcement, Leaver, Leaving};
use tracing::{info, warn};

use crate::budget::Budget;
use crate::pressure::News;

/// What was told already.
#[derive(Debug)]
pub(crate) struct Farewells {
    /// Nodes, by their uid, and whether they have failed.
    nodes: HashSet<(Arc<str>, bool)>,
    /// Tunings whose release goes no further.
    stopped: HashSet<Arc<str>>,
    budget: Budget,
}

impl Farewells {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            nodes: HashSet::new(),
            stopped: HashSet::new(),
            budget: Budget::full(now),
        }
    }

    /// Logs what is new of how releases go, and says what there is to tell on Nodes.
    pub(crate) fn take(&mut self, leaving: &[Leaving], now: Instant) -> Vec<News> {
        let stopped: BTreeMap<&Arc<str>, &str> = leaving
            .iter()
            .filter_map(|leaving| Some((&leaving.tuning, leaving.stopped.as_deref()?)))
            .collect();
        for (tuning, why) in &stopped {
            if self.stopped.insert(Arc::clone(tuning)) {
                warn!(
                    tuning = &***tuning,
                    why, "the release of the nodes of a tuning that is gone goes no further"
                );
            }
        }
        self.stopped.retain(|tuning| {
            let goes_on = !stopped.contains_key(tuning);
            if goes_on {
                info!(
                    tuning = &**tuning,
                    "the release of its nodes goes on, or is over"
                );
            }
            !goes_on
        });
        let nodes = leaving.iter().flat_map(|leaving| &leaving.nodes);
        let mut news = Vec::new();
        let mut still = HashSet::new();
        for leaver in nodes {
            let key = (Arc::clone(&leaver.uid), leaver.failed);
            if !self.nodes.contains(&key) && !still.contains(&key) {
                news.extend(self.tell(leaver, now));
            }
            still.insert(key);
        }
        self.nodes = still;
        news
    }

    fn tell(&mut self, leaver: &Leaver, now: Instant) -> Option<News> {
        let Leaver {
            node,
            uid,
            failed,
            why,
        } = leaver;
        let (node_name, why) = (&**node, &**why);
        let reason = match failed {
            true => {
                warn!(
                    node = node_name,
                    why, "originals were asked back and are not"
                );
                "ReleaseFailed"
            }
            false => {
                info!(node = node_name, why, "not all originals are back");
                "PartiallyRestored"
            }
        };
        self.budget.take(now).then(|| News::Node {
            name: Arc::clone(node),
            uid: Arc::clone(uid),
            announcement: Announcement {
                warning: *failed,
                reason,
                note: format!("originals were asked back: {why}"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::BURST;

    fn leaving(nodes: &[(&str, bool)], stopped: bool) -> Leaving {
        let nodes = nodes.iter().map(|(name, failed)| Leaver {
            node: (*name).into(),
            uid: (*name).into(),
            failed: *failed,
            why: "net.core.somaxconn: EINVAL".into(),
        });
        Leaving {
            tuning: "gone".into(),
            releasing: 1,
            failed: 1,
            unresponsive: 0,
            stopped: stopped.then(|| "one failed".to_owned()),
            nodes: nodes.collect(),
        }
    }

    fn told(news: Vec<News>) -> Vec<(String, bool, &'static str)> {
        let told = news.into_iter().map(|news| match news {
            News::Node {
                name, announcement, ..
            } => (name.to_string(), announcement.warning, announcement.reason),
            News::Nodes { .. } => panic!("of single nodes only"),
        });
        told.collect()
    }

    #[test]
    fn each_node_is_told_once_as_long_as_it_stays_so() {
        let now = Instant::now();
        let mut farewells = Farewells::new(now);
        let one = [leaving(&[("a", true), ("b", false)], true)];
        assert_eq!(
            told(farewells.take(&one, now)),
            [
                ("a".to_owned(), true, "ReleaseFailed"),
                ("b".to_owned(), false, "PartiallyRestored")
            ]
        );
        assert!(farewells.take(&one, now).is_empty());
        assert_eq!(farewells.stopped.len(), 1);
        assert!(farewells.take(&[], now).is_empty());
        assert!(farewells.stopped.is_empty());
        assert_eq!(farewells.take(&one, now).len(), 2, "it is so again");
    }

    #[test]
    fn many_nodes_are_not_many_events() {
        let now = Instant::now();
        let mut farewells = Farewells::new(now);
        let names: Vec<String> = (0..1000).map(|index| format!("node-{index}")).collect();
        let count = names
            .iter()
            .map(|name| {
                farewells
                    .take(&[leaving(&[(name, false)], false)], now)
                    .len()
            })
            .sum::<usize>();
        assert_eq!(count, usize::try_from(BURST).unwrap());
    }
}
