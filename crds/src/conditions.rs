//! Names of conditions and reasons, and the one way to set a condition.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// On both kinds: all is as wanted.
pub const READY: &str = "Ready";
/// On a profile: a value differs now.
pub const DRIFTED: &str = "Drifted";
/// On a profile: somebody keeps writing a value that nettune has stopped to put back.
pub const CONTESTED: &str = "Contested";
/// On a profile: the neighbour tables are too small, or lack entries that they should have.
pub const NEIGHBOR_PRESSURE: &str = "NeighborPressure";
/// On a profile: the conntrack table is too small, or loses connections.
pub const CONNTRACK_PRESSURE: &str = "ConntrackPressure";
/// On a profile that was asked to release: the originals are back, or it says what was left.
pub const RELEASED: &str = "Released";
/// On a tuning: changes are under way.
pub const PROGRESSING: &str = "Progressing";
/// On a tuning: it hides what a lower one would manage on some nodes.
pub const OVERLAPPING: &str = "Overlapping";

/// Reasons of conditions: one word that does not change with the numbers.
pub mod reasons {
    /// The kernel holds what is wanted.
    pub const APPLIED: &str = "Applied";
    /// All that can be applied is; some keys wait for their module or a quiet moment.
    pub const WAITING: &str = "Waiting";
    /// A key could not be written.
    pub const FAILED: &str = "Failed";
    /// A value in the profile is not one that this agent takes.
    pub const INVALID: &str = "Invalid";
    /// Mode Observe: nothing is written.
    pub const OBSERVED: &str = "Observed";
    /// A live value differs.
    pub const VALUES_DIFFER: &str = "ValuesDiffer";
    /// No live value differs.
    pub const NO_DRIFT: &str = "NoDrift";
    /// The originals are back.
    pub const RESTORED: &str = "Restored";
    /// Some originals were not put back, and why is in the message.
    pub const PARTIALLY_RESTORED: &str = "PartiallyRestored";

    /// Somebody keeps writing a key. Also why the profile is not Ready.
    pub const CONTESTED: &str = "Contested";
    /// Nobody keeps writing a key.
    pub const NOT_CONTESTED: &str = "NotContested";

    /// Of both kinds of pressure: there is none.
    pub const NO_PRESSURE: &str = "NoPressure";
    /// The kernel does not show it.
    pub const METRICS_UNAVAILABLE: &str = "MetricsUnavailable";
    /// A neighbour table was full, and could not take a new entry.
    pub const OVERFLOW: &str = "Overflow";
    /// A neighbour table holds more than gc_thresh2, so that new entries wait for garbage collection.
    pub const GARBAGE_COLLECTION: &str = "GarbageCollection";
    /// Flannel's VXLAN device lacks neighbours or forwarding entries for some of its routes.
    pub const FLANNEL_ENTRIES_MISSING: &str = "FlannelEntriesMissing";
    /// The conntrack table was full.
    pub const TABLE_FULL: &str = "TableFull";
    /// Insertions into the conntrack table failed because of long hash chains.
    pub const CHAINS_TOO_LONG: &str = "ChainsTooLong";
    /// Insertions into the conntrack table lost a race: of two DNS lookups, or of two connections for a source port of
    /// SNAT; which, this kernel does not tell.
    pub const INSERTION_RACE: &str = "InsertionRace";
    /// Two connections were given the same source port by SNAT at once, and one of them lost its packet.
    pub const SOURCE_PORT_RACE: &str = "SourcePortRace";
    /// No pressure on the conntrack table, as far as a kernel before 5.15 tells.
    pub const CHAIN_LENGTH_UNAVAILABLE: &str = "ChainLengthUnavailable";
    /// An eBPF data path tracks pods' connections, and not the kernel's conntrack table.
    pub const NOT_IN_PATH: &str = "NotInPath";
    /// The module nf_conntrack is not loaded.
    pub const NOT_LOADED: &str = "NotLoaded";

    /// Every selected node is ready.
    pub const ALL_NODES_READY: &str = "AllNodesReady";
    /// Some selected nodes are not ready yet.
    pub const NODES_NOT_READY: &str = "NodesNotReady";
    /// On some selected nodes a value could not be written.
    pub const NODES_FAILED: &str = "NodesFailed";
    /// The tuning selects no node.
    pub const NO_NODES_SELECTED: &str = "NoNodesSelected";
    /// The tuning cannot be read or is not valid; its nodes stay as they are.
    pub const INVALID_TUNING: &str = "InvalidTuning";
    /// Too many nodes failed: no further node is begun.
    pub const ROLLOUT_STOPPED: &str = "RolloutStopped";
    /// The tuning says that no further node shall be begun.
    pub const PAUSED: &str = "Paused";
    /// On a profile, written by the operator: the node's agent has not been heard of for too long.
    pub const AGENT_UNRESPONSIVE: &str = "AgentUnresponsive";
    /// Nothing is under way.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// The API server does not take profiles as they are written, and the message says why.
    pub const WRITES_REJECTED: &str = "WritesRejected";
    /// Profiles were written and their agents have not answered yet.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// It hides blocks of lower tunings.
    pub const OVERRIDES_LOWER_PRIORITY: &str = "OverridesLowerPriority";
    /// It hides nothing.
    pub const NO_OVERLAP: &str = "NoOverlap";
}

/// Sets one condition of a list: `lastTransitionTime` moves only when the status does.
///
/// `status` is `None` for `Unknown`.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: Option<bool>,
    reason: &str,
    message: impl Into<String>,
    observed_generation: Option<i64>,
    now: Timestamp,
) {
    let status = match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let old = conditions.iter().position(|old| old.type_ == type_);
    let last_transition_time = match old.and_then(|index| conditions.get(index)) {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        // Whole seconds: that is what the API keeps, and a status read back must compare equal.
        _ => Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
    };
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        observed_generation,
        last_transition_time,
    };
    match old.and_then(|index| conditions.get_mut(index)) {
        Some(slot) => *slot = condition,
        None => conditions.push(condition),
    }
}

/// Whether a condition is there and true.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// The condition of a type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        let at = |second| Timestamp::from_second(second).unwrap();
        set(&mut conditions, READY, Some(true), "A", "", None, at(1));
        set(&mut conditions, READY, Some(true), "B", "", None, at(2));
        assert_eq!(conditions[0].last_transition_time.0, at(1));
        set(&mut conditions, READY, None, "B", "", None, at(3));
        assert_eq!(conditions[0].last_transition_time.0, at(3));
        assert_eq!(conditions.len(), 1);
    }
}
