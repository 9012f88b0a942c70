//! Agents that give no sign of life.
//!
//! There is no heartbeat: that an agent is gone is told from what the kubelet reports anyway, and
//! from work that the agent leaves lying.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use nettune_crds::conditions::{READY, reasons};

use crate::cluster::node::PlannedNode;
use crate::cluster::node::Readiness;
use crate::cluster::profile::PlannedProfile;
use crate::memory::Silence;
use crate::time::{Alarm, Now};

/// What is found about an agent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What to remember.
    pub(crate) silence: Option<Silence>,
    /// It has been unresponsive for too long.
    pub(crate) is_silent: bool,
    /// Why its profile shall say so, where it does not yet.
    pub(crate) tell: Option<&'static str>,
}

/// Looks for signs of an agent's life. `pod` is whether its Pod is ready, where Pods are watched.
pub(crate) fn listen(
    node: &PlannedNode,
    profile: &PlannedProfile,
    pod: Option<bool>,
    before: Option<Silence>,
    deadline: Duration,
    (alarm, now): (&mut Alarm, Now),
) -> Verdict {
    let alive = Verdict {
        silence: None,
        is_silent: false,
        tell: None,
    };
    let Some(why) = sign(node, profile, pod) else {
        return alive;
    };
    let reported = profile.reported.as_ref();
    let said = reported.is_some_and(|reported| reported.is_silenced);
    let last_turned = reported.and_then(|reported| reported.turned);
    let silence = match before {
        _ if said => Silence::Said,
        Some(Silence::Said | Silence::Refuted) => Silence::Refuted,
        Some(Silence::Due(turned)) if turned != last_turned => Silence::Refuted,
        Some(as_before @ (Silence::Since(_) | Silence::Due(_))) => as_before,
        None => Silence::Since(now.mono),
    };
    let is_silent = match silence {
        Silence::Since(since) => alarm.passed(since, deadline, now),
        Silence::Due(_) | Silence::Said => true,
        Silence::Refuted => false,
    };
    // A profile without any word of its agent says already that there is none.
    let speaks = reported.is_some_and(|reported| reported.speaks);
    let tells = is_silent && !said && speaks;
    Verdict {
        silence: Some(if tells {
            Silence::Due(last_turned)
        } else {
            silence
        }),
        is_silent,
        tell: tells.then_some(why),
    }
}

/// The sign that an agent may be gone.
fn sign(node: &PlannedNode, profile: &PlannedProfile, pod: Option<bool>) -> Option<&'static str> {
    let Some(reported) = &profile.reported else {
        return Some("it has never reported");
    };
    if node.ready == Readiness::Unknown {
        Some("the node's kubelet is not heard of either")
    } else if !node.boot_id.is_empty() && node.boot_id != reported.boot_id {
        Some("the node was rebooted and it has not reported since")
    } else if pod == Some(false) {
        Some("its Pod is not ready")
    } else if reported.observed_generation != profile.generation {
        Some("it has not answered to what was last written")
    } else {
        None
    }
}

/// What the profile's `Ready` shall be. Its generation stays that which the agent has spoken of.
pub(crate) fn condition(
    profile: &PlannedProfile,
    why: &str,
    deadline: Duration,
    now: Now,
) -> Condition {
    let reported = profile.reported.as_ref();
    let seconds = deadline.as_secs();
    Condition {
        type_: READY.to_owned(),
        status: "Unknown".to_owned(),
        reason: reasons::AGENT_UNRESPONSIVE.to_owned(),
        message: format!(
            "the node's agent has been unresponsive for {seconds} s: {why}; the kernel keeps its values"
        ),
        observed_generation: reported.and_then(|reported| reported.observed_generation),
        // Whole seconds: that is what the API keeps.
        last_transition_time: Time(
            Timestamp::from_second(now.wall.as_second()).unwrap_or(now.wall),
        ),
    }
}
