//! The order of writes when not all can be sent at once.

use std::collections::HashSet;

use crate::write::{Object, Write};

/// The priority of a write, highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// More room on a node whose table overflows: it loses packets now.
    Overflow,
    /// A node without a profile: it still has the kernel's defaults.
    NewNode,
    /// Removal of the startup taint: pods wait for it.
    Taint,
    /// Changes that cannot do harm, such as raised limits.
    AtOnce,
    /// A change or a release that is next in its rollout.
    Turn,
    /// The report of an unresponsive agent.
    Silence,
    /// Deletion of a profile.
    Removal,
    /// The status of a tuning.
    Status,
}

/// Joins the writes of all steps, the most urgent first; equally urgent ones stay in their order. A
/// write that reports an unresponsive agent is dropped if there is another write to its profile.
pub(crate) fn in_order(steps: impl IntoIterator<Item = Vec<(Priority, Write)>>) -> Vec<Write> {
    let mut writes: Vec<_> = steps.into_iter().flatten().collect();
    writes.sort_by_key(|(priority, _)| *priority);
    let (silences, others): (Vec<_>, Vec<_>) = writes
        .iter()
        .partition(|(priority, _)| *priority == Priority::Silence);
    if !silences.is_empty() {
        let written: HashSet<Object> = others.iter().map(|(_, write)| write.object()).collect();
        writes.retain(|(priority, write)| {
            *priority != Priority::Silence || !written.contains(&write.object())
        });
    }
    writes.into_iter().map(|(_, write)| write).collect()
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
        use Priority::{AtOnce, NewNode, Overflow, Removal, Silence, Status, Taint, Turn};
        let all = [
            Overflow, NewNode, Taint, AtOnce, Turn, Silence, Removal, Status,
        ];
        assert!(all.is_sorted());
        let writes = all.into_iter().rev().enumerate();
        let writes = writes.map(|(index, priority)| (priority, removal(&format!("{index}"))));
        assert_eq!(
            named(&in_order([writes.collect()])),
            ["7", "6", "5", "4", "3", "2", "1", "0"]
        );
    }

    #[test]
    fn what_is_as_urgent_stays_in_its_order() {
        let writes = ["b", "a", "c"].map(|node| vec![(Priority::Turn, removal(node))]);
        assert_eq!(named(&in_order(writes)), ["b", "a", "c"]);
    }

    #[test]
    fn no_object_is_written_twice_in_one_decision() {
        let writes = vec![
            (Priority::Silence, silence("a")),
            (Priority::Silence, silence("b")),
            (Priority::Turn, removal("a")),
            (Priority::Silence, silence("c")),
            (Priority::Removal, removal("c")),
        ];
        assert_eq!(named(&in_order([writes])), ["a", "b is unresponsive", "c"]);
    }
}
