//! The status of a tuning.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use jiff::Timestamp;
use nettune_crds::conditions::{self, OVERLAPPING, PROGRESSING, READY, reasons};
use nettune_crds::{
    ClusterInputs, Mode, NodeNetworkTuningStatus, NodesCount, SizeGroup, SizeInputs,
};
use nettune_sizing::{ClusterFacts, PodLinks};

use crate::assign::{Assignment, Claim};
use crate::cluster::state::ClusterState;
use crate::cluster::tuning::{PlannedTuning, TuningContent};
use crate::priority::Priority;
use crate::rollout::gate::{Gate, MOST_NAMED};
use crate::rollout::rollouts::Rollouts;
use crate::size_groups::{Group, SizeGroups};
use crate::status::tally::{Tallies, Tally};
use crate::write::{Announcement, Write};

/// The maximum number of groups and warnings in a status: it must stay small in any cluster.
const MOST_LISTED: usize = 16;

/// What a stopped rollout of an existing tuning waits for.
const UNTIL_CHANGED: &str = "the tuning changes or the failed nodes recover";

/// The writes of statuses that have changed.
pub(crate) fn update_statuses(
    cluster: &ClusterState,
    assignment: &Assignment<'_>,
    sizes: &SizeGroups,
    rollouts: &Rollouts<'_>,
    tallies: &Tallies<'_>,
    now: Timestamp,
) -> Vec<(Priority, Write)> {
    let claims = assignment.claims.iter().zip(&rollouts.gates);
    let usable = claims
        .zip(&tallies.by_gate)
        .filter(|((claim, _), _)| claim.usable.is_some())
        .filter_map(|((claim, gate), tally)| {
            let groups = sizes.all.iter();
            let groups = groups.filter(|group| group.nodes > 0 && group.tuning == *claim.name);
            let status = usable(claim, tally, gate, groups, sizes.cluster, now);
            write(claim.name, claim.tuning, status)
        });
    let unusable = cluster.tunings.iter().filter_map(|(name, tuning)| {
        let nodes = tallies.of_unusable(name, rollouts);
        write(name, tuning, unusable(tuning, nodes, now)?)
    });
    let writes = usable.chain(unusable);
    writes.map(|write| (Priority::Status, write)).collect()
}

/// The status of a tuning that can be used.
fn usable<'g>(
    claim: &Claim<'_>,
    tally: &Tally,
    gate: &Gate,
    groups: impl Iterator<Item = &'g Group>,
    cluster: ClusterFacts,
    now: Timestamp,
) -> NodeNetworkTuningStatus {
    let mut groups: Vec<&Group> = groups.collect();
    groups.sort_by(|a, b| {
        b.nodes
            .cmp(&a.nodes)
            .then_with(|| a.spec.sysctls.len().cmp(&b.spec.sysctls.len()))
    });
    let generation = claim.tuning.generation;
    let mut conditions = claim.tuning.status.conditions.clone();
    let (ready, reason, message) = readiness(tally, gate, claim);
    conditions::set(
        &mut conditions,
        READY,
        Some(ready),
        reason,
        message,
        generation,
        now,
    );
    let (busy, reason, message) = progress(tally, gate);
    conditions::set(
        &mut conditions,
        PROGRESSING,
        Some(busy),
        reason,
        message,
        generation,
        now,
    );
    let (overlaps, reason, message) = overlap(claim);
    conditions::set(
        &mut conditions,
        OVERLAPPING,
        Some(overlaps),
        reason,
        message,
        generation,
        now,
    );
    NodeNetworkTuningStatus {
        observed_generation: generation,
        nodes: Some(tally.count),
        cluster: Some(ClusterInputs {
            nodes: i32::try_from(cluster.nodes).unwrap_or(i32::MAX),
            pods: i64::try_from(cluster.pods).unwrap_or(i64::MAX),
        }),
        gc_thresh3: range(&groups, "net.ipv4.neigh.default.gc_thresh3"),
        conntrack_max: range(&groups, "net.netfilter.nf_conntrack_max"),
        warnings: warnings(&groups),
        groups: groups
            .iter()
            .take(MOST_LISTED)
            .map(|group| listed(group))
            .collect(),
        conditions,
    }
}

/// The status of a tuning that cannot be used; `None` for one that can.
fn unusable(
    tuning: &PlannedTuning,
    nodes: NodesCount,
    now: Timestamp,
) -> Option<NodeNetworkTuningStatus> {
    let TuningContent::Unusable { error, .. } = &tuning.content else {
        return None;
    };
    let mut status = tuning.status.clone();
    let generation = tuning.generation;
    let message = format!("{error}; its nodes keep their current values until the tuning is fixed");
    for (type_, is) in [
        (READY, Some(false)),
        (PROGRESSING, None),
        (OVERLAPPING, None),
    ] {
        let reason = reasons::INVALID_TUNING;
        conditions::set(
            &mut status.conditions,
            type_,
            is,
            reason,
            &message,
            generation,
            now,
        );
    }
    status.observed_generation = generation;
    status.nodes = Some(nodes);
    Some(status)
}

/// The write of a status, if it has changed.
fn write(
    name: &Arc<str>,
    tuning: &PlannedTuning,
    wanted: NodeNetworkTuningStatus,
) -> Option<Write> {
    (wanted != tuning.status).then(|| Write::TuningStatus {
        tuning: Arc::clone(name),
        uid: Arc::clone(&tuning.uid),
        seen: Arc::clone(&tuning.resource_version),
        announcements: announcements(&tuning.status, &wanted),
        status: Box::new(wanted),
    })
}

fn readiness(tally: &Tally, gate: &Gate, claim: &Claim<'_>) -> (bool, &'static str, String) {
    let NodesCount {
        selected,
        ready,
        drifted,
        failed,
        ..
    } = tally.count;
    if gate.is_stopped() && gate.waiting > 0 {
        (
            false,
            reasons::ROLLOUT_STOPPED,
            stopped(gate, UNTIL_CHANGED),
        )
    } else if failed > 0 {
        (false, reasons::NODES_FAILED, failures(tally))
    } else if selected == 0 {
        let message = match claim.lost {
            0 => "the node selector matches no Linux node".to_owned(),
            lost => {
                format!("every selected node ({lost}) belongs to a tuning that takes precedence")
            }
        };
        (true, reasons::NO_NODES_SELECTED, message)
    } else if ready < selected {
        let message = format!(
            "desired values in effect on {ready} of {}",
            counted(selected, "node")
        );
        (false, reasons::NODES_NOT_READY, message)
    } else if drifted > 0 {
        let mode = match claim.usable.map(|usable| usable.mode) {
            Some(Mode::Observe) => "mode Observe writes nothing",
            _ => "mode ApplyOnce does not undo later changes",
        };
        let message = format!(
            "values differ on {drifted} of {}: {mode}",
            counted(selected, "node")
        );
        (true, reasons::VALUES_DIFFER, message)
    } else {
        let message = format!("desired values in effect on {}", all_nodes(selected));
        (true, reasons::ALL_NODES_READY, message)
    }
}

fn failures(tally: &Tally) -> String {
    let NodesCount {
        selected, failed, ..
    } = tally.count;
    let mut message = format!(
        "a sysctl could not be set on {failed} of {}: ",
        counted(selected, "node")
    );
    name_failed(&mut message, &tally.failed, failed.unsigned_abs());
    message
}

/// Why a rollout is stopped, and what it waits for.
pub(crate) fn stopped(gate: &Gate, until: &str) -> String {
    let Gate {
        rule,
        written,
        failed,
        waiting,
        named,
        ..
    } = gate;
    let mut message = format!("{failed} of {} failed: ", counted(*written, "updated node"));
    name_failed(&mut message, named, *failed);
    let _ = write!(
        message,
        ". maxFailed is {}; {} waiting until {until}",
        rule.max_failed,
        counted(*waiting, "node")
    );
    message
}

/// The first few with their agents' messages, and how many more there are.
fn name_failed(message: &mut String, named: &[(Arc<str>, Arc<str>)], failed: u32) {
    for (index, (node, failure)) in named.iter().enumerate() {
        let comma = if index == 0 { "" } else { "; " };
        let _ = write!(message, "{comma}{node} ({failure})");
    }
    let unnamed = usize::try_from(failed)
        .unwrap_or(0)
        .saturating_sub(named.len());
    if unnamed > 0 {
        let _ = write!(message, "; and {unnamed} more");
    }
}

fn progress(tally: &Tally, gate: &Gate) -> (bool, &'static str, String) {
    let NodesCount {
        selected,
        ready,
        failed,
        releasing,
        ..
    } = tally.count;
    let on_their_way = selected - ready - failed;
    let kept = match tally.shrinking {
        0 => String::new(),
        nodes => format!(
            "; larger limits stay on {} until smaller ones have been desired for {} s",
            counted(nodes, "node"),
            gate.rule.shrink_after.as_secs()
        ),
    };
    if gate.waiting > 0 && gate.is_closed() {
        let waiting = gate.waiting;
        let (reason, why) = if gate.rule.paused {
            (reasons::PAUSED, "rollout.paused is set")
        } else {
            (reasons::ROLLOUT_STOPPED, "too many nodes failed")
        };
        let message = format!("{} waiting: {why}{kept}", counted(waiting, "node"));
        return (false, reason, message);
    }
    if on_their_way <= 0 && releasing == 0 {
        let message = format!("no changes in progress{kept}");
        return (false, reasons::UP_TO_DATE, message);
    }
    if let Some((node, why)) = &tally.refusal {
        let refused = tally.refused;
        let message = format!(
            "the API server rejects the profiles of {}, retrying; {node}: {why}{kept}",
            counted(refused, "node")
        );
        return (false, reasons::WRITES_REJECTED, message);
    }
    let missing = on_their_way - tally.unanswered - tally.outdated - tally.waiting;
    let mut parts = Vec::new();
    for (count, noun, what) in [
        (tally.outdated, "profile", "being updated"),
        (tally.waiting, "node", "queued"),
        (tally.unanswered, "agent", "yet to report"),
        (missing, "node", "applying changes"),
        (releasing, "node", "being released"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", counted(count, noun)));
        }
    }
    (
        true,
        reasons::ROLLING_OUT,
        format!("{}{kept}", parts.join(", ")),
    )
}

fn overlap(claim: &Claim<'_>) -> (bool, &'static str, String) {
    if claim.hides.is_empty() {
        return (
            false,
            reasons::NO_OVERLAP,
            "takes precedence over no other tuning".to_owned(),
        );
    }
    let mut message = String::from("takes precedence over ");
    for (index, (name, hidden)) in claim.hides.iter().take(MOST_NAMED).enumerate() {
        let mut what: Vec<&str> = hidden.blocks.iter().map(|block| block.name()).collect();
        what.extend(hidden.sysctls.then_some("sysctls"));
        let comma = if index == 0 { "" } else { ", " };
        let _ = write!(
            message,
            "{comma}{name} on {} ({})",
            counted(hidden.nodes, "node"),
            what.join(", ")
        );
    }
    (true, reasons::OVERRIDES_LOWER_PRIORITY, message)
}

/// The desired value of a sysctl over all groups: one value, or minimum and maximum.
fn range(groups: &[&Group], name: &str) -> Option<String> {
    let values = groups.iter().filter_map(|group| {
        let sysctl = group
            .spec
            .sysctls
            .iter()
            .find(|sysctl| sysctl.name == name)?;
        sysctl.value.parse::<u64>().ok()
    });
    let (least, most) = values.fold((u64::MAX, 0), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    match least.cmp(&most) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal => Some(least.to_string()),
        std::cmp::Ordering::Less => Some(format!("{least}-{most}")),
    }
}

/// Each warning once, with its number of nodes.
fn warnings(groups: &[&Group]) -> Vec<String> {
    let mut texts: Vec<(&str, usize)> = Vec::new();
    for group in groups {
        for warning in &group.sizes.warnings {
            match texts.iter_mut().find(|(text, _)| *text == warning.0) {
                Some((_, nodes)) => *nodes += group.nodes,
                None => texts.push((&warning.0, group.nodes)),
            }
        }
    }
    let listed = texts.iter().take(MOST_LISTED);
    listed
        .map(|(text, nodes)| format!("{}: {text}", counted(*nodes, "node")))
        .collect()
}

/// A number with its noun: "1 node", "2 nodes".
fn counted<N: PartialEq + From<u8> + Display>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn all_nodes(selected: i32) -> String {
    match selected {
        1 => "1 node".to_owned(),
        _ => format!("all {selected} nodes"),
    }
}

fn listed(group: &Group) -> SizeGroup {
    let facts = &group.facts;
    SizeGroup {
        nodes: i32::try_from(group.nodes).unwrap_or(i32::MAX),
        inputs: SizeInputs {
            pods: facts.pods.into(),
            memory_mib: i64::try_from(facts.memory >> 20).unwrap_or(i64::MAX),
            cores: facts.cores.into(),
            kernel: facts
                .kernel
                .as_ref()
                .map_or_else(|| "unknown".to_owned(), ToString::to_string),
            pod_network: group.pod_network.clone(),
            pod_links: match facts.pod_links {
                PodLinks::Bridge => "Bridge",
                PodLinks::PointToPoint => "PointToPoint",
            }
            .to_owned(),
        },
        sysctls: group
            .spec
            .sysctls
            .iter()
            .map(|sysctl| format!("{} = {}", sysctl.name, sysctl.value))
            .collect(),
    }
}

/// Events for a changed reason of `Ready` and for changed sizes.
fn announcements(
    old: &NodeNetworkTuningStatus,
    new: &NodeNetworkTuningStatus,
) -> Vec<Announcement> {
    let mut told = Vec::new();
    let before = conditions::find(&old.conditions, READY).map(|ready| ready.reason.as_str());
    if let Some(ready) = conditions::find(&new.conditions, READY)
        && before != Some(&ready.reason)
    {
        let reason = match ready.reason.as_str() {
            reasons::ALL_NODES_READY => Some((false, reasons::ALL_NODES_READY)),
            reasons::NODES_FAILED => Some((true, reasons::NODES_FAILED)),
            reasons::ROLLOUT_STOPPED => Some((true, reasons::ROLLOUT_STOPPED)),
            reasons::INVALID_TUNING => Some((true, reasons::INVALID_TUNING)),
            _ => None,
        };
        told.extend(reason.map(|(warning, reason)| Announcement {
            warning,
            reason,
            note: ready.message.clone(),
        }));
    }
    let resized: Vec<String> = [
        ("gc_thresh3", &old.gc_thresh3, &new.gc_thresh3),
        ("nf_conntrack_max", &old.conntrack_max, &new.conntrack_max),
    ]
    .into_iter()
    .filter_map(|(name, old, new)| {
        let (old, new) = (old.as_ref()?, new.as_ref()?);
        (old != new).then(|| format!("{name} changed from {old} to {new}"))
    })
    .collect();
    if !resized.is_empty() {
        told.push(Announcement {
            warning: false,
            reason: "Resized",
            note: resized.join(", "),
        });
    }
    told
}
