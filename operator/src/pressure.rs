//! Which nodes' tables suffer, and when that begins and ends: told as Events on the Nodes.
//!
//! Agents publish no Events: thousands of them would ask for a right and for a place each. What they
//! say in their profiles' conditions is told here, and where many nodes begin at once it is told
//! together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use nettune_crds::conditions::{CONNTRACK_PRESSURE, NEIGHBOR_PRESSURE};
use nettune_planner::Announcement;
use serde_json::Value;

use crate::budget::Budget;

/// How often those that had no place are told together.
const TOGETHER: Duration = Duration::from_secs(60);

/// The conditions that are told.
const KINDS: [&str; 2] = [NEIGHBOR_PRESSURE, CONNTRACK_PRESSURE];

/// Something to tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Of one node.
    Node {
        name: Arc<str>,
        uid: Arc<str>,
        announcement: Announcement,
    },
    /// Of many nodes of one tuning.
    Nodes {
        tuning: Arc<str>,
        announcement: Announcement,
    },
}

/// What is known of the nodes, and what may be told of it.
#[derive(Debug)]
pub(crate) struct Pressures {
    /// Nodes that suffer from something, and from what; the rest need no memory.
    suffering: HashMap<Arc<str>, Suffering>,
    /// Whether the first list is over. What it brings began before this process, and is no news.
    listed: bool,
    budget: Budget,
    /// Of each tuning: how many nodes had no place, by condition and reason; the reason is `None` of
    /// those where it has ended.
    untold: BTreeMap<(Arc<str>, &'static str, Option<String>), u32>,
    told_together: Instant,
}

#[derive(Debug, Default)]
struct Suffering {
    tuning: Arc<str>,
    reasons: [Option<String>; 2],
}

impl Pressures {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            suffering: HashMap::new(),
            listed: false,
            budget: Budget::full(now),
            untold: BTreeMap::new(),
            told_together: now,
        }
    }

    /// Takes what the watch of profiles has brought, and says what there is to tell.
    pub(crate) fn take(&mut self, event: &Event<DynamicObject>, now: Instant) -> Vec<News> {
        match event {
            Event::InitApply(profile) | Event::Apply(profile) => self.profile(profile, now),
            Event::Delete(profile) => {
                self.suffering.remove(profile.name_any().as_str());
                Vec::new()
            }
            Event::InitDone => {
                self.listed = true;
                Vec::new()
            }
            Event::Init => Vec::new(),
        }
    }

    fn profile(&mut self, profile: &DynamicObject, now: Instant) -> Vec<News> {
        let name: Arc<str> = profile.name_any().into();
        let found = KINDS.map(|kind| condition(profile, kind));
        let before = self.suffering.remove(&name).unwrap_or_default();
        let tuning = tuning(profile);
        let mut news = Vec::new();
        for ((kind, found), before) in KINDS.into_iter().zip(&found).zip(&before.reasons) {
            let reason = found.as_ref().map(|(reason, _)| reason);
            if reason == before.as_ref() || !self.listed {
                continue;
            }
            if !self.budget.take(now) {
                let key = (Arc::clone(&tuning), kind, reason.cloned());
                *self.untold.entry(key).or_default() += 1;
                continue;
            }
            news.push(News::Node {
                name: Arc::clone(&name),
                uid: owner(profile),
                announcement: match found {
                    Some((reason, message)) => begun(kind, format!("{reason}: {message}")),
                    None => ended(
                        kind,
                        format!("it was {}", before.as_deref().unwrap_or("another")),
                    ),
                },
            });
        }
        let reasons = found.map(|found| found.map(|(reason, _)| reason));
        if reasons.iter().any(Option::is_some) {
            self.suffering.insert(name, Suffering { tuning, reasons });
        }
        news
    }

    /// What had no place of its own, once a minute.
    pub(crate) fn together(&mut self, now: Instant) -> Vec<News> {
        if self.untold.is_empty() || now < self.told_together + TOGETHER {
            return Vec::new();
        }
        self.told_together = now;
        let untold = std::mem::take(&mut self.untold);
        let news = untold.into_iter().map(|((tuning, kind, reason), count)| {
            let nodes = if count == 1 { "node" } else { "nodes" };
            let announcement = match reason {
                Some(reason) => begun(
                    kind,
                    format!("{reason} on {count} more {nodes}: kubectl get nnp -o wide names them"),
                ),
                None => ended(kind, format!("on {count} more {nodes}")),
            };
            News::Nodes {
                tuning,
                announcement,
            }
        });
        news.collect()
    }

    /// How many nodes of each tuning suffer, by condition.
    pub(crate) fn counts(&self) -> BTreeMap<(Arc<str>, &'static str), i64> {
        let mut counts = BTreeMap::new();
        for node in self.suffering.values() {
            for (kind, reason) in KINDS.into_iter().zip(&node.reasons) {
                let count = counts.entry((Arc::clone(&node.tuning), kind)).or_insert(0);
                *count += i64::from(reason.is_some());
            }
        }
        counts
    }
}

fn begun(kind: &'static str, note: String) -> Announcement {
    Announcement {
        warning: true,
        reason: kind,
        note,
    }
}

fn ended(kind: &'static str, what: String) -> Announcement {
    Announcement {
        warning: false,
        reason: if kind == NEIGHBOR_PRESSURE {
            "NeighborPressureEnded"
        } else {
            "ConntrackPressureEnded"
        },
        note: format!("for ten minutes there was none: {what}"),
    }
}

/// Reason and message of a condition that is true.
fn condition(profile: &DynamicObject, type_: &str) -> Option<(String, String)> {
    let conditions = profile.data.pointer("/status/conditions")?.as_array()?;
    let is_true = |condition: &&Value| condition["type"] == type_ && condition["status"] == "True";
    let found = conditions.iter().find(is_true)?;
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Some((text("reason"), text("message")))
}

fn tuning(profile: &DynamicObject) -> Arc<str> {
    let tuning = profile.data.pointer("/spec/tuning");
    tuning.and_then(Value::as_str).unwrap_or_default().into()
}

/// The uid of the Node.
fn owner(profile: &DynamicObject) -> Arc<str> {
    let mut owners = profile.owner_references().iter();
    let node = owners.find(|owner| owner.kind == "Node");
    node.map_or("", |owner| owner.uid.as_str()).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn profile(node: &str, reason: Option<&str>) -> DynamicObject {
        let status = if reason.is_some() { "True" } else { "False" };
        serde_json::from_value(json!({
            "apiVersion": "nettune.dev/v1alpha1", "kind": "NodeNetworkProfile",
            "metadata": {"name": node, "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": "u"}]},
            "spec": {"tuning": "default"},
            "status": {"conditions": [{"type": NEIGHBOR_PRESSURE, "status": status,
                "reason": reason.unwrap_or("NoPressure"), "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        }))
        .unwrap()
    }

    fn running(now: Instant) -> Pressures {
        let mut pressures = Pressures::new(now);
        pressures.take(&Event::InitDone, now);
        pressures
    }

    fn told(news: &[News]) -> Vec<(bool, &str, &str)> {
        let announcement = |news| match news {
            &News::Node {
                ref announcement, ..
            }
            | &News::Nodes {
                ref announcement, ..
            } => announcement,
        };
        news.iter()
            .map(announcement)
            .map(|told| (told.warning, told.reason, told.note.as_str()))
            .collect()
    }

    #[test]
    fn the_beginning_another_reason_and_the_end_are_told_once_each() {
        let now = Instant::now();
        let mut pressures = running(now);
        let mut take = |reason| pressures.take(&Event::Apply(profile("a", reason)), now);
        assert_eq!(told(&take(None)), []);
        assert_eq!(
            told(&take(Some("Overflow"))),
            [(true, "NeighborPressure", "Overflow: m")]
        );
        assert_eq!(told(&take(Some("Overflow"))), []);
        assert_eq!(
            told(&take(Some("GarbageCollection"))),
            [(true, "NeighborPressure", "GarbageCollection: m")]
        );
        let end = "for ten minutes there was none: it was GarbageCollection";
        assert_eq!(told(&take(None)), [(false, "NeighborPressureEnded", end)]);
        assert_eq!(told(&take(None)), []);
    }

    #[test]
    fn what_began_before_this_process_is_known_and_no_news() {
        let now = Instant::now();
        let mut pressures = Pressures::new(now);
        let list = [
            Event::Init,
            Event::InitApply(profile("a", Some("Overflow"))),
            Event::InitDone,
        ];
        for event in &list {
            assert_eq!(pressures.take(event, now), []);
        }
        assert_eq!(pressures.counts().values().sum::<i64>(), 1);
        // A list that comes again brings what was missed.
        let again = pressures.take(&Event::InitApply(profile("a", None)), now);
        assert_eq!(told(&again).len(), 1);
        assert_eq!(pressures.counts().values().sum::<i64>(), 0);
    }

    #[test]
    fn many_nodes_at_once_are_told_together_and_none_is_lost() {
        let now = Instant::now();
        let mut pressures = running(now);
        let mut single = 0;
        for node in 0..5000 {
            let event = Event::Apply(profile(&format!("n{node}"), Some("Overflow")));
            single += pressures.take(&event, now).len();
        }
        assert_eq!(single, 25);
        assert_eq!(pressures.together(now), []);
        let together = pressures.together(now + TOGETHER);
        let note = "Overflow on 4975 more nodes: kubectl get nnp -o wide names them";
        assert_eq!(told(&together), [(true, "NeighborPressure", note)]);
        assert_eq!(pressures.together(now + TOGETHER * 2), []);
    }

    #[test]
    fn a_node_that_is_gone_suffers_no_more() {
        let now = Instant::now();
        let mut pressures = running(now);
        pressures.take(&Event::Apply(profile("a", Some("Overflow"))), now);
        assert_eq!(
            pressures.take(&Event::Delete(profile("a", Some("Overflow"))), now),
            []
        );
        assert!(pressures.counts().is_empty());
    }
}
