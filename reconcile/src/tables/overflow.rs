//! Overflow raises: the limit of a table that was full is doubled at once, up to the profile's ceiling.
//!
//! This does not wait for the API server, which may be unreachable because of the full table. A raise
//! stays until the profile itself asks for as much, or for a release.

use std::borrow::Cow;
use std::time::Duration;

use nettune_sizing::{DesiredValue, Mono, SysctlKey, keys};

use crate::desired::{DesiredState, Task};
use crate::memory::Memory;
use crate::observed::{ObservedState, OverflowCounters};

/// Overflows this soon after a raise belong to the burst before it: counters are read once a second.
const BURST: Duration = Duration::from_secs(2);

/// A table that can overflow.
struct Table {
    /// The limit that is raised.
    limit: &'static SysctlKey,
    /// Where garbage collection begins: at half of the limit, as in the sizing model.
    half: Option<&'static SysctlKey>,
    count: fn(&mut OverflowCounters) -> &mut u64,
}

static TABLES: [Table; 3] = [
    Table {
        limit: &keys::IPV4_GC_THRESH3,
        half: Some(&keys::IPV4_GC_THRESH2),
        count: |overflows| &mut overflows.neighbors_ipv4_overflows,
    },
    Table {
        limit: &keys::IPV6_GC_THRESH3,
        half: Some(&keys::IPV6_GC_THRESH2),
        count: |overflows| &mut overflows.neighbors_ipv6_overflows,
    },
    Table {
        limit: &keys::NF_CONNTRACK_MAX,
        half: None,
        count: |overflows| &mut overflows.conntrack_full,
    },
];

/// Raises the limits of tables that have overflowed since the last time, and forgets raises that the
/// profile covers by now. Modes that do not enforce values raise nothing.
pub(crate) fn answer(
    desired: &DesiredState,
    observed: &ObservedState,
    memory: &mut Memory,
    now: Mono,
) {
    match desired.task {
        Task::Release => memory.overflow_raises.clear(),
        Task::Leave => {}
        Task::Enforce | Task::ApplyOnce | Task::Observe => memory
            .overflow_raises
            .retain(|key, raised| bounds(desired, key).is_some_and(|(floor, _)| floor < *raised)),
    }
    let mut overflows = observed.overflows;
    for table in &TABLES {
        let count = *(table.count)(&mut overflows);
        let answered = (table.count)(&mut memory.answered);
        let is_new = count > *answered;
        *answered = count;
        if is_new && desired.task == Task::Enforce {
            raise(table, desired, observed, memory, now);
        }
    }
}

fn raise(
    table: &Table,
    desired: &DesiredState,
    observed: &ObservedState,
    memory: &mut Memory,
    now: Mono,
) {
    let raised_at = memory.raised_at.get(table.limit);
    if raised_at.is_some_and(|at| now.since(*at) < BURST) {
        return;
    }
    let Some((floor, ceiling)) = bounds(desired, table.limit) else {
        return;
    };
    let given = memory
        .overflow_raises
        .get(table.limit)
        .copied()
        .unwrap_or(0);
    // More does not help a limit that does not exist yet, or that another process keeps low.
    let Some(found) = observed.number(table.limit) else {
        return;
    };
    if found < floor.max(given.min(ceiling)) {
        return;
    }
    if found >= ceiling {
        memory.at_ceiling.insert(table.limit.clone());
        return;
    }
    let to = found.saturating_mul(2).min(ceiling);
    memory.overflow_raises.insert(table.limit.clone(), to);
    memory.raised_at.insert(table.limit.clone(), now);
    if let Some(half) = table.half
        && let Some((floor, ceiling)) = bounds(desired, half)
        && let half_of_it = (to / 2).min(ceiling)
        && half_of_it > floor
    {
        memory.overflow_raises.insert(half.clone(), half_of_it);
    }
}

/// The desired state with raised limits for tables that were full.
pub(crate) fn with_raises<'a>(desired: &'a DesiredState, memory: &Memory) -> Cow<'a, DesiredState> {
    if memory.overflow_raises.is_empty() {
        return Cow::Borrowed(desired);
    }
    let mut desired = desired.clone();
    for (key, raised) in &memory.overflow_raises {
        if let Some((floor, ceiling)) = bounds(&desired, key) {
            let raised = floor.max((*raised).min(ceiling));
            let wanted = DesiredValue::at_least(raised, ceiling);
            desired.values.insert(key.clone(), wanted);
        }
    }
    Cow::Owned(desired)
}

/// The message of a limit that was raised, or that cannot be.
pub(crate) fn note(desired: &DesiredState, key: &SysctlKey, memory: &Memory) -> Option<String> {
    let (_, ceiling) = bounds(desired, key)?;
    let raised = memory.overflow_raises.get(key).copied();
    if memory.at_ceiling.contains(key) {
        return Some(format!(
            "the table was full, but the limit is not raised further: {ceiling} is the maximum that the \
             profile allows on this node"
        ));
    }
    let raised = raised?.min(ceiling);
    Some(format!(
        "raised to {raised} by the agent because the table was full"
    ))
}

fn bounds(desired: &DesiredState, key: &SysctlKey) -> Option<(u64, u64)> {
    match desired.values.get(key)? {
        DesiredValue::AtLeast(bounds) => Some((bounds.floor(), bounds.ceiling())),
        DesiredValue::Exact(_) => None,
    }
}
