//! Self-help: a table that was full gets twice the room at once, up to what the node's memory bears.
//!
//! It needs no API server: relief must not wait for the network that has failed. What was given stays
//! until the profile itself asks for as much, or for a release.

use std::borrow::Cow;
use std::time::Duration;

use nettune_sizing::{DesiredValue, Mono, SysctlKey, keys};

use crate::desired::{DesiredState, Task};
use crate::memory::Memory;
use crate::observed::{ObservedState, OverflowCounters};

/// What is counted this soon after a raise belongs to the burst that it answers: counters are read
/// once a second.
const BURST: Duration = Duration::from_secs(2);

/// A table that can overflow.
struct Table {
    /// The limit that was hit.
    limit: &'static SysctlKey,
    /// Where garbage collection begins: at half of it, as in the model.
    half: Option<&'static SysctlKey>,
    count: fn(&mut OverflowCounters) -> &mut u64,
}

static TABLES: [Table; 3] = [
    Table {
        limit: &keys::IPV4_GC_THRESH3,
        half: Some(&keys::IPV4_GC_THRESH2),
        count: |distress| &mut distress.neighbors_ipv4_overflows,
    },
    Table {
        limit: &keys::IPV6_GC_THRESH3,
        half: Some(&keys::IPV6_GC_THRESH2),
        count: |distress| &mut distress.neighbors_ipv6_overflows,
    },
    Table {
        limit: &keys::NF_CONNTRACK_MAX,
        half: None,
        count: |distress| &mut distress.conntrack_full,
    },
];

/// Answers what the tables have suffered since the last time, and forgets what the profile asks for
/// itself by now. A mode that leaves what it has once applied, or writes nothing, gives no relief.
pub(crate) fn answer(goal: &DesiredState, live: &ObservedState, memory: &mut Memory, now: Mono) {
    match goal.task {
        Task::Release => memory.relief.clear(),
        Task::Leave => {}
        Task::Enforce | Task::ApplyOnce | Task::Observe => memory
            .relief
            .retain(|key, raised| bounds(goal, key).is_some_and(|(floor, _)| floor < *raised)),
    }
    let mut suffered = live.distress;
    for table in &TABLES {
        let count = *(table.count)(&mut suffered);
        let answered = (table.count)(&mut memory.answered);
        let is_new = count > *answered;
        *answered = count;
        if is_new && goal.task == Task::Enforce {
            raise(table, goal, live, memory, now);
        }
    }
}

fn raise(table: &Table, goal: &DesiredState, live: &ObservedState, memory: &mut Memory, now: Mono) {
    let raised_at = memory.relieved_at.get(table.limit);
    if raised_at.is_some_and(|at| now.since(*at) < BURST) {
        return;
    }
    let Some((floor, ceiling)) = bounds(goal, table.limit) else {
        return;
    };
    let given = memory.relief.get(table.limit).copied().unwrap_or(0);
    // One that is not there yet, or that somebody else keeps low, is not helped by asking for more.
    let Some(found) = live.number(table.limit) else {
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
    memory.relief.insert(table.limit.clone(), to);
    memory.relieved_at.insert(table.limit.clone(), now);
    if let Some(half) = table.half
        && let Some((floor, ceiling)) = bounds(goal, half)
        && let half_of_it = (to / 2).min(ceiling)
        && half_of_it > floor
    {
        memory.relief.insert(half.clone(), half_of_it);
    }
}

/// The goal, with more where a table was full.
pub(crate) fn relieved<'a>(goal: &'a DesiredState, memory: &Memory) -> Cow<'a, DesiredState> {
    if memory.relief.is_empty() {
        return Cow::Borrowed(goal);
    }
    let mut goal = goal.clone();
    for (key, raised) in &memory.relief {
        if let Some((floor, ceiling)) = bounds(&goal, key) {
            let raised = floor.max((*raised).min(ceiling));
            let wanted = DesiredValue::at_least(raised, ceiling);
            goal.wanted.insert(key.clone(), wanted);
        }
    }
    Cow::Owned(goal)
}

/// What is to be said of a limit: that it was raised, or that it cannot be.
pub(crate) fn note(goal: &DesiredState, key: &SysctlKey, memory: &Memory) -> Option<String> {
    let (_, ceiling) = bounds(goal, key)?;
    let raised = memory.relief.get(key).copied();
    if memory.at_ceiling.contains(key) {
        return Some(format!(
            "the table was full, and the limit is not raised further: {ceiling} is the most that the \
             profile allows on this node"
        ));
    }
    let raised = raised?.min(ceiling);
    Some(format!(
        "raised to {raised} by the agent itself, because the table was full"
    ))
}

fn bounds(goal: &DesiredState, key: &SysctlKey) -> Option<(u64, u64)> {
    match goal.wanted.get(key)? {
        DesiredValue::AtLeast(bounds) => Some((bounds.floor(), bounds.ceiling())),
        DesiredValue::Exact(_) => None,
    }
}
