//! Which nodes' tables are under pressure, and the Events when that begins and ends.
//!
//! Agents set conditions on their profiles and publish no Events: each of thousands would need the
//! permission.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use nettune_crds::conditions::{CONNTRACK_PRESSURE, NEIGHBOR_PRESSURE};
use nettune_planner::Announcement;
use serde_json::Value;

use crate::events::recorder::NodeEvent;

/// Each condition, with the reason of the Event when it ends.
const CONDITIONS: [(&str, &str); 2] = [
    (NEIGHBOR_PRESSURE, "NeighborPressureEnded"),
    (CONNTRACK_PRESSURE, "ConntrackPressureEnded"),
];

#[derive(Debug, Default)]
pub(crate) struct PressureEvents {
    /// The nodes where at least one condition is true.
    nodes: HashMap<Arc<str>, Pressure>,
    /// Whether the first list is complete. What it brings began before this process started.
    listed: bool,
}

#[derive(Debug, Default)]
struct Pressure {
    tuning: Arc<str>,
    /// Which of [`CONDITIONS`] are true.
    conditions: [bool; 2],
}

impl PressureEvents {
    /// Takes a change of the watch of profiles.
    pub(crate) fn take(&mut self, event: &Event<DynamicObject>) -> Vec<NodeEvent> {
        match event {
            Event::InitApply(profile) | Event::Apply(profile) => return self.profile(profile),
            Event::Delete(profile) => {
                self.nodes.remove(profile.name_any().as_str());
            }
            Event::InitDone => self.listed = true,
            Event::Init => {}
        }
        Vec::new()
    }

    fn profile(&mut self, profile: &DynamicObject) -> Vec<NodeEvent> {
        let node: Arc<str> = profile.name_any().into();
        let tuning = profile.data.pointer("/spec/tuning");
        let tuning: Arc<str> = tuning.and_then(Value::as_str).unwrap_or_default().into();
        let messages = CONDITIONS.map(|(condition, _)| message_if_true(profile, condition));
        let before = self.nodes.remove(&node).unwrap_or_default().conditions;
        let conditions = messages.each_ref().map(Option::is_some);
        let mut events = Vec::new();
        for (index, message) in messages.into_iter().enumerate() {
            if !self.listed || conditions[index] == before[index] {
                continue;
            }
            let (condition, ended) = CONDITIONS[index];
            let (reason, note) = match message {
                Some(message) => (condition, message),
                None => (ended, "no sign of pressure for 10 minutes".to_owned()),
            };
            events.push(NodeEvent {
                node: Arc::clone(&node),
                uid: node_uid(profile),
                tuning: Arc::clone(&tuning),
                announcement: Announcement {
                    warning: conditions[index],
                    reason,
                    note,
                },
            });
        }
        if conditions.contains(&true) {
            self.nodes.insert(node, Pressure { tuning, conditions });
        }
        events
    }

    /// How many nodes of each tuning are under pressure, by condition.
    pub(crate) fn counts(&self) -> BTreeMap<(Arc<str>, &'static str), i64> {
        let mut counts = BTreeMap::new();
        for node in self.nodes.values() {
            for ((condition, _), is_true) in CONDITIONS.into_iter().zip(node.conditions) {
                let key = (Arc::clone(&node.tuning), condition);
                *counts.entry(key).or_insert(0) += i64::from(is_true);
            }
        }
        counts
    }
}

/// Reason and message of a condition that is true.
fn message_if_true(profile: &DynamicObject, type_: &str) -> Option<String> {
    let conditions = profile.data.pointer("/status/conditions")?.as_array()?;
    let is_true = |condition: &&Value| condition["type"] == type_ && condition["status"] == "True";
    let found = conditions.iter().find(is_true)?;
    let text = |name: &str| found[name].as_str().unwrap_or_default();
    Some(format!("{}: {}", text("reason"), text("message")))
}

fn node_uid(profile: &DynamicObject) -> Arc<str> {
    let mut owners = profile.owner_references().iter();
    let node = owners.find(|owner| owner.kind == "Node");
    node.map_or("", |owner| owner.uid.as_str()).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn profile(reason: Option<&str>) -> DynamicObject {
        let status = if reason.is_some() { "True" } else { "False" };
        serde_json::from_value(json!({
            "apiVersion": "nettune.dev/v1alpha1", "kind": "NodeNetworkProfile",
            "metadata": {"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "u"}]},
            "spec": {"tuning": "default"},
            "status": {"conditions": [{"type": NEIGHBOR_PRESSURE, "status": status,
                "reason": reason.unwrap_or("NoPressure"), "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        }))
        .unwrap()
    }

    fn apply(
        events: &mut PressureEvents,
        reason: Option<&str>,
    ) -> Vec<(bool, &'static str, String)> {
        let found = events.take(&Event::Apply(profile(reason))).into_iter();
        let parts = found.map(|event| {
            assert_eq!(
                (&*event.node, &*event.uid, &*event.tuning),
                ("a", "u", "default")
            );
            let Announcement {
                warning,
                reason,
                note,
            } = event.announcement;
            (warning, reason, note)
        });
        parts.collect()
    }

    #[test]
    fn pressure_gets_one_event_when_it_begins_and_one_when_it_ends() {
        let mut events = PressureEvents::default();
        events.take(&Event::InitDone);
        assert_eq!(apply(&mut events, None), []);
        assert_eq!(
            apply(&mut events, Some("Overflow")),
            [(true, "NeighborPressure", "Overflow: m".to_owned())]
        );
        assert_eq!(apply(&mut events, Some("Overflow")), []);
        assert_eq!(apply(&mut events, Some("GarbageCollection")), []);
        let note = "no sign of pressure for 10 minutes".to_owned();
        assert_eq!(
            apply(&mut events, None),
            [(false, "NeighborPressureEnded", note)]
        );
        assert_eq!(apply(&mut events, None), []);
    }

    #[test]
    fn first_list_is_counted_without_events() {
        let mut events = PressureEvents::default();
        let list = [
            Event::Init,
            Event::InitApply(profile(Some("Overflow"))),
            Event::InitDone,
        ];
        for event in &list {
            assert!(events.take(event).is_empty());
        }
        assert_eq!(events.counts().values().sum::<i64>(), 1);
        // Another list brings what was missed.
        assert_eq!(apply(&mut events, None).len(), 1);
        assert_eq!(events.counts().values().sum::<i64>(), 0);
    }

    #[test]
    fn deleted_node_is_not_counted() {
        let mut events = PressureEvents::default();
        apply(&mut events, Some("Overflow"));
        assert!(
            events
                .take(&Event::Delete(profile(Some("Overflow"))))
                .is_empty()
        );
        assert!(events.counts().is_empty());
    }
}
