//! Events of releases that stop or leave something: no tuning's status has them when the tuning is
//! deleted, and the profile's status goes with the profile.

use std::collections::HashSet;
use std::sync::Arc;

use nettune_planner::{Announcement, ReleaseReport, ReportedNode};
use tracing::{info, warn};

use crate::events::recorder::NodeEvent;

#[derive(Debug, Default)]
pub(crate) struct ReleaseEvents {
    /// Nodes that have their Event: their uid, and whether the release failed.
    published: HashSet<(Arc<str>, bool)>,
    /// Tunings whose release has stopped.
    stopped: HashSet<Arc<str>>,
}

impl ReleaseEvents {
    /// Logs which releases have stopped or resumed, and returns the Events of single nodes.
    pub(crate) fn take(&mut self, releases: &[ReleaseReport]) -> Vec<NodeEvent> {
        let (mut published, mut stopped) = (HashSet::new(), HashSet::new());
        let mut events = Vec::new();
        for ReleaseReport {
            tuning,
            stopped: reason,
            nodes,
            ..
        } in releases
        {
            if let Some(reason) = reason {
                if !self.stopped.contains(tuning) {
                    warn!(
                        tuning = &**tuning,
                        reason,
                        "release of a deleted tuning's nodes stopped: too many nodes failed"
                    );
                }
                stopped.insert(Arc::clone(tuning));
            }
            for node in nodes {
                let key = (Arc::clone(&node.uid), node.failed);
                let was_published = self.published.contains(&key);
                if published.insert(key) && !was_published {
                    events.push(event(tuning, node));
                }
            }
        }
        for tuning in self.stopped.difference(&stopped) {
            info!(
                tuning = &**tuning,
                "release of its nodes resumed or finished"
            );
        }
        (self.published, self.stopped) = (published, stopped);
        events
    }
}

fn event(tuning: &Arc<str>, node: &ReportedNode) -> NodeEvent {
    let (name, why) = (&*node.node, &*node.why);
    let (reason, note) = if node.failed {
        warn!(
            node = name,
            why, "release failed; original values not restored"
        );
        ("ReleaseFailed", format!("release failed: {why}"))
    } else {
        info!(
            node = name,
            why, "released; some original values not restored"
        );
        let note = format!("some original values were not restored: {why}");
        ("PartiallyRestored", note)
    };
    NodeEvent {
        node: Arc::clone(&node.node),
        uid: Arc::clone(&node.uid),
        tuning: Arc::clone(tuning),
        announcement: Announcement {
            warning: node.failed,
            reason,
            note,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(nodes: &[(&str, bool)]) -> ReleaseReport {
        let nodes = nodes.iter().map(|(name, failed)| ReportedNode {
            node: (*name).into(),
            uid: (*name).into(),
            failed: *failed,
            why: "net.core.somaxconn: EINVAL".into(),
        });
        ReleaseReport {
            tuning: "gone".into(),
            releasing: 1,
            failed: 1,
            unresponsive: 0,
            stopped: Some("one failed".to_owned()),
            nodes: nodes.collect(),
        }
    }

    #[test]
    fn node_gets_one_event_while_its_release_stays_failed() {
        let mut events = ReleaseEvents::default();
        let releases = [release(&[("a", true), ("b", false)])];
        let found = events.take(&releases).into_iter().map(|event| {
            let Announcement {
                warning, reason, ..
            } = event.announcement;
            (event.node.to_string(), warning, reason)
        });
        assert_eq!(
            found.collect::<Vec<_>>(),
            [
                ("a".to_owned(), true, "ReleaseFailed"),
                ("b".to_owned(), false, "PartiallyRestored")
            ]
        );
        assert!(events.take(&releases).is_empty());
        assert_eq!(events.stopped.len(), 1);
        assert!(events.take(&[]).is_empty());
        assert!(events.stopped.is_empty());
        assert_eq!(events.take(&releases).len(), 2, "it failed again");
    }
}
