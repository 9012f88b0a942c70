//! The startup taint: no pod lands on a node that is not tuned yet, and no node keeps it for ever.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::node::PlannedNode;
use crate::write::Write;
use nettune_sizing::Mono;

use crate::cluster::profile::PlannedProfile;
use crate::time::{Alarm, Now};

/// A node that is not ready by then loses the taint all the same: one that is not selected, only
/// observed, paused or failed, or whose agent does not come, must not stay without pods.
const PATIENCE: Duration = Duration::from_secs(60);

/// Since when a node has had the taint, and the write that takes it off where it is time.
pub(crate) fn look(
    name: &Arc<str>,
    node: &PlannedNode,
    profile: Option<&PlannedProfile>,
    before: Option<Mono>,
    alarm: &mut Alarm,
    now: Now,
) -> (Option<Mono>, Option<Write>) {
    let Some(tainted) = &node.tainted else {
        return (None, None);
    };
    let since = before.unwrap_or(now.mono);
    let ready = profile
        .filter(|profile| profile.owner_uid == node.uid)
        .and_then(|profile| profile.reported_now(node))
        .is_some_and(|reported| reported.ready);
    let off = ready || alarm.passed(since, PATIENCE, now);
    let write = off.then(|| Write::Untaint {
        node: Arc::clone(name),
        uid: Arc::clone(&node.uid),
        seen: Arc::clone(&tainted.resource_version),
        taints: tainted.others.clone(),
    });
    (Some(since), write)
}
