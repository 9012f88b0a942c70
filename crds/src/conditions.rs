//! Types and reasons of conditions, and how to set a condition.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Tuning and profile: the kernel has all desired values.
pub const READY: &str = "Ready";
/// Profile: a value differs from the desired one.
pub const DRIFTED: &str = "Drifted";
/// Profile: another process keeps changing a value; nettune no longer reverts it each time.
pub const CONTESTED: &str = "Contested";
/// Profile: the neighbor tables are too small, or required entries are missing.
pub const NEIGHBOR_PRESSURE: &str = "NeighborPressure";
/// Profile: the conntrack table is too small, or connections are lost.
pub const CONNTRACK_PRESSURE: &str = "ConntrackPressure";
/// Profile in release: whether the original values are restored; the message lists those that are not.
pub const RELEASED: &str = "Released";
/// Tuning: changes are in progress.
pub const PROGRESSING: &str = "Progressing";
/// Tuning: it takes precedence over another tuning on some nodes.
pub const OVERLAPPING: &str = "Overlapping";

/// Reasons of conditions. They do not contain numbers.
pub mod reasons {
    /// The kernel has the desired values.
    pub const APPLIED: &str = "Applied";
    /// All values that can be applied are; some keys wait for their module or for the table to drain.
    pub const WAITING: &str = "Waiting";
    /// A key could not be written.
    pub const FAILED: &str = "Failed";
    /// The agent does not accept a value in the profile.
    pub const INVALID: &str = "Invalid";
    /// Mode Observe: nothing is written.
    pub const OBSERVED: &str = "Observed";
    /// A value in the kernel differs.
    pub const VALUES_DIFFER: &str = "ValuesDiffer";
    /// No value in the kernel differs.
    pub const NO_DRIFT: &str = "NoDrift";
    /// All original values are restored.
    pub const RESTORED: &str = "Restored";
    /// Some original values are not restored; the message has the reason.
    pub const PARTIALLY_RESTORED: &str = "PartiallyRestored";

    /// Another process keeps changing a key. Also a reason of Ready=False.
    pub const CONTESTED: &str = "Contested";
    /// No other process keeps changing a key.
    pub const NOT_CONTESTED: &str = "NotContested";

    /// NeighborPressure and ConntrackPressure: no problem.
    pub const NO_PRESSURE: &str = "NoPressure";
    /// The kernel does not provide the numbers.
    pub const METRICS_UNAVAILABLE: &str = "MetricsUnavailable";
    /// A neighbor table was full; a new entry was rejected.
    pub const OVERFLOW: &str = "Overflow";
    /// A neighbor table has more than gc_thresh2 entries; new entries wait for garbage collection.
    pub const GARBAGE_COLLECTION: &str = "GarbageCollection";
    /// The VXLAN device of Flannel lacks neighbor or forwarding entries for some of its routes.
    pub const FLANNEL_ENTRIES_MISSING: &str = "FlannelEntriesMissing";
    /// The conntrack table was full.
    pub const TABLE_FULL: &str = "TableFull";
    /// Insertions into the conntrack table failed because of long hash chains.
    pub const CHAINS_TOO_LONG: &str = "ChainsTooLong";
    /// Insertions into the conntrack table lost a race of two DNS lookups, or of two connections for the
    /// same source port of SNAT. The kernel does not show which.
    pub const INSERTION_RACE: &str = "InsertionRace";
    /// SNAT gave two connections the same source port, and one of them lost its packet.
    pub const SOURCE_PORT_RACE: &str = "SourcePortRace";
    /// No problem with the conntrack table, as far as a kernel before 5.15 shows.
    pub const CHAIN_LENGTH_UNAVAILABLE: &str = "ChainLengthUnavailable";
    /// An eBPF data path tracks connections of pods instead of the kernel's conntrack table.
    pub const NOT_IN_PATH: &str = "NotInPath";
    /// The module nf_conntrack is not loaded.
    pub const NOT_LOADED: &str = "NotLoaded";

    /// Every selected node is ready.
    pub const ALL_NODES_READY: &str = "AllNodesReady";
    /// Some selected nodes are not ready yet.
    pub const NODES_NOT_READY: &str = "NodesNotReady";
    /// A value could not be written on some selected nodes.
    pub const NODES_FAILED: &str = "NodesFailed";
    /// The tuning selects no nodes.
    pub const NO_NODES_SELECTED: &str = "NoNodesSelected";
    /// The tuning is invalid; its nodes are left unchanged.
    pub const INVALID_TUNING: &str = "InvalidTuning";
    /// Too many nodes failed; the rollout has stopped.
    pub const ROLLOUT_STOPPED: &str = "RolloutStopped";
    /// `spec.rollout.paused` is set.
    pub const PAUSED: &str = "Paused";
    /// Profile, set by the operator: the agent on the node has not reported for too long.
    pub const AGENT_UNRESPONSIVE: &str = "AgentUnresponsive";
    /// No changes are in progress.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// The API server rejects the profiles; the message has the reason.
    pub const WRITES_REJECTED: &str = "WritesRejected";
    /// Profiles are written; their agents have not reported yet.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// It takes precedence over blocks of other tunings.
    pub const OVERRIDES_LOWER_PRIORITY: &str = "OverridesLowerPriority";
    /// It does not take precedence over another tuning.
    pub const NO_OVERLAP: &str = "NoOverlap";
}

/// Sets a condition in a list. `lastTransitionTime` changes only when the status does.
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
        // Whole seconds, as in the API: a status that is read back must compare equal.
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

/// Whether a condition exists and is true.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_changes_only_with_the_status() {
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
