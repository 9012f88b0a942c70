//! Unresponsive agents.
//!
//! Agents send no heartbeats. An agent counts as unresponsive by what the kubelet reports anyway, and by
//! changes that the agent does not answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use nettune_crds::conditions::{READY, reasons};

use crate::cluster::agent_pods::Agents as AgentPods;
use crate::cluster::node::Readiness;
use crate::cluster::profile::{PlannedProfile, ProfiledNode};
use crate::memory::{ByNode, Silence};
use crate::priority::Priority;
use crate::release::{ReleasingNode, Stage};
use crate::rollout::changes::Change;
use crate::rollout::rollouts::Rollouts;
use crate::time::{Clock, Now};
use crate::write::Write;

/// What was found about all agents.
pub(crate) struct Agents {
    /// What to remember.
    pub(crate) silences: ByNode<Silence>,
    /// How many agents have been unresponsive for too long, by gate.
    pub(crate) unresponsive: BTreeMap<usize, i32>,
    pub(crate) writes: Vec<(Priority, Write)>,
}

/// Looks for unresponsive agents on all nodes with a profile that are not released yet.
pub(crate) fn check_agents(
    changes: &[Change<'_>],
    releases: &[ReleasingNode<'_>],
    pods: &AgentPods,
    remembered: &ByNode<Silence>,
    rollouts: &Rollouts<'_>,
    clock: &mut Clock,
) -> Agents {
    let mut silences = Vec::new();
    let mut unresponsive = BTreeMap::new();
    let mut writes = Vec::new();
    let mut check = |node: ProfiledNode<'_>, gate: usize, known: Option<&Silence>| {
        let gates = &rollouts.gates;
        let deadline = gates.get(gate).map(|gate| gate.rule.node_deadline);
        let deadline = deadline.unwrap_or_default();
        let pod = pods.is_ready(node.name);
        let Some(found) = evaluate(node, pod, known.copied(), deadline, clock) else {
            return;
        };
        silences.push((Arc::clone(node.name), found.silence));
        *unresponsive.entry(gate).or_default() += i32::from(found.is_unresponsive);
        if let Some(why) = found.report {
            let ready = condition(node.profile, why, deadline, clock.now);
            let write = Write::AgentUnresponsive {
                node: Arc::clone(node.name),
                uid: Arc::clone(&node.profile.uid),
                seen: Arc::clone(&node.profile.resource_version),
                ready: Box::new(ready),
            };
            writes.push((Priority::Silence, write));
        }
    };
    let mut known = remembered.cursor();
    for change in changes {
        check(change.node, change.gate, known.get(change.node.name));
    }
    let mut known = remembered.cursor();
    let unreleased = |releasing: &&ReleasingNode<'_>| releasing.stage != Stage::Released;
    for releasing in releases.iter().filter(unreleased) {
        let node = releasing.node;
        check(node, releasing.gate, known.get(node.name));
    }
    Agents {
        silences: silences.into(),
        unresponsive,
        writes,
    }
}

/// An agent that may be gone.
struct Found {
    silence: Silence,
    /// Whether it has been so for too long.
    is_unresponsive: bool,
    /// What its profile is to report, if it does not yet.
    report: Option<&'static str>,
}

/// Looks for a sign that an agent is gone. `pod` is whether its Pod is ready, if Pods are watched.
fn evaluate(
    node: ProfiledNode<'_>,
    pod: Option<bool>,
    remembered: Option<Silence>,
    deadline: Duration,
    clock: &mut Clock,
) -> Option<Found> {
    let why = sign(node, pod)?;
    let reported = node.profile.reported.as_ref();
    let said = reported.is_some_and(|reported| reported.is_silenced);
    let last_turned = reported.and_then(|reported| reported.turned);
    let silence = match remembered {
        _ if said => Silence::Said,
        Some(Silence::Said | Silence::Refuted) => Silence::Refuted,
        Some(Silence::Due(turned)) if turned != last_turned => Silence::Refuted,
        Some(as_before @ (Silence::Since(_) | Silence::Due(_))) => as_before,
        None => Silence::Since(clock.now.mono),
    };
    let is_unresponsive = match silence {
        Silence::Since(since) => clock.has_passed(since, deadline),
        Silence::Due(_) | Silence::Said => true,
        Silence::Refuted => false,
    };
    // The profile of an agent that has never set `Ready` shows that already.
    let speaks = reported.is_some_and(|reported| reported.speaks);
    let reports = is_unresponsive && !said && speaks;
    Some(Found {
        silence: if reports {
            Silence::Due(last_turned)
        } else {
            silence
        },
        is_unresponsive,
        report: reports.then_some(why),
    })
}

/// The sign that an agent may be gone.
fn sign(
    ProfiledNode { node, profile, .. }: ProfiledNode<'_>,
    pod: Option<bool>,
) -> Option<&'static str> {
    let Some(reported) = &profile.reported else {
        return Some("it has never reported");
    };
    if node.ready == Readiness::Unknown {
        Some("kubelet is not reporting (Node Ready=Unknown)")
    } else if !node.boot_id.is_empty() && node.boot_id != reported.boot_id {
        Some("the node rebooted and the agent has not reported since")
    } else if pod == Some(false) {
        Some("its Pod is not ready")
    } else if reported.observed_generation != profile.generation {
        Some("it has not reported on the latest profile")
    } else {
        None
    }
}

/// The new `Ready` of the profile. It keeps the generation that the agent has reported.
fn condition(profile: &PlannedProfile, why: &str, deadline: Duration, now: Now) -> Condition {
    let reported = profile.reported.as_ref();
    let seconds = deadline.as_secs();
    Condition {
        type_: READY.to_owned(),
        status: "Unknown".to_owned(),
        reason: reasons::AGENT_UNRESPONSIVE.to_owned(),
        message: format!(
            "agent unresponsive for {seconds} s: {why}; kernel values stay as they are"
        ),
        observed_generation: reported.and_then(|reported| reported.observed_generation),
        // The API stores whole seconds.
        last_transition_time: Time(
            Timestamp::from_second(now.wall.as_second()).unwrap_or(now.wall),
        ),
    }
}
