//! What comes first where not everything can be written at once.

use std::collections::HashSet;
use std::ops::Range;

use crate::write::{Object, Write};

/// How urgent a write is; the first is written first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// More room on a node whose table overflows: it loses packets now.
    Overflow,
    /// A node without a profile: it has what the kernel gives everybody.
    NewNode,
    /// The startup taint goes: pods wait for it.
    Taint,
    /// What can do no harm and takes no turn: raised limits above all.
    AtOnce,
    /// A change, or a release, whose turn it is.
    Turn,
    /// That an agent is unresponsive.
    Silence,
    /// A profile that nobody needs any more.
    Removal,
    /// What a tuning says of itself.
    Status,
}

/// Writes as they are found, to be put into order once.
#[derive(Debug, Default)]
pub(crate) struct Writes(Vec<(Urgency, Write)>);

impl Writes {
    pub(crate) fn push(&mut self, urgency: Urgency, write: Write) {
        self.0.push((urgency, write));
    }

    /// The most urgent first, those that are as urgent in the order in which they were found. Of two
    /// about one profile, one that says only that its agent is unresponsive gives way.
    pub(crate) fn in_order(mut self) -> Vec<Write> {
        self.0.sort_by_key(|(urgency, _)| *urgency);
        let silences = self.range(Urgency::Silence);
        if !silences.is_empty() {
            let (before, after) = (&self.0[..silences.start], &self.0[silences.end..]);
            let others = before.iter().chain(after);
            let written: HashSet<Object> = others.map(|(_, write)| write.object()).collect();
            self.0.retain(|(urgency, write)| {
                *urgency != Urgency::Silence || !written.contains(&write.object())
            });
        }
        self.0.into_iter().map(|(_, write)| write).collect()
    }

    /// Where the writes of one urgency are, once they are in order.
    fn range(&self, urgency: Urgency) -> Range<usize> {
        let start = self.0.partition_point(|(other, _)| *other < urgency);
        let end = self.0.partition_point(|(other, _)| *other <= urgency);
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONDITION: &str = r#"{"type": "Ready", "status": "Unknown", "reason": "AgentUnresponsive",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}"#;

    fn silence(node: &str) -> Write {
        Write::AgentUnresponsive {
            node: node.into(),
            uid: "".into(),
            seen: "".into(),
            ready: Box::new(serde_json::from_str(CONDITION).unwrap()),
        }
    }

    fn removal(node: &str) -> Write {
        Write::DeleteProfile {
            node: node.into(),
            uid: "".into(),
            seen: "".into(),
        }
    }

    fn named(writes: &[Write]) -> Vec<String> {
        let named = writes.iter().map(|write| match write {
            Write::AgentUnresponsive { node, .. } => format!("{node} is unresponsive"),
            _ => write.object().name().to_owned(),
        });
        named.collect()
    }

    #[test]
    fn relief_comes_before_what_takes_its_turn_and_that_before_what_is_only_told() {
        use Urgency::{AtOnce, NewNode, Overflow, Removal, Silence, Status, Taint, Turn};
        let all = [
            Overflow, NewNode, Taint, AtOnce, Turn, Silence, Removal, Status,
        ];
        assert!(all.is_sorted());
        let mut writes = Writes::default();
        for (index, urgency) in all.into_iter().rev().enumerate() {
            writes.push(urgency, removal(&format!("{index}")));
        }
        assert_eq!(
            named(&writes.in_order()),
            ["7", "6", "5", "4", "3", "2", "1", "0"]
        );
    }

    #[test]
    fn what_is_as_urgent_stays_in_its_order() {
        let mut writes = Writes::default();
        for node in ["b", "a", "c"] {
            writes.push(Urgency::Turn, removal(node));
        }
        assert_eq!(named(&writes.in_order()), ["b", "a", "c"]);
    }

    #[test]
    fn no_object_is_written_twice_in_one_decision() {
        let mut writes = Writes::default();
        writes.push(Urgency::Silence, silence("a"));
        writes.push(Urgency::Silence, silence("b"));
        writes.push(Urgency::Turn, removal("a"));
        writes.push(Urgency::Silence, silence("c"));
        writes.push(Urgency::Removal, removal("c"));
        assert_eq!(named(&writes.in_order()), ["a", "b is unresponsive", "c"]);
    }
}
