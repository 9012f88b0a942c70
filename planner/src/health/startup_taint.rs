//! The startup taint: no pod lands on a node that is not tuned yet, and no node keeps it forever.

use std::sync::Arc;
use std::time::Duration;

use nettune_sizing::Mono;

use crate::cluster::state::ClusterState;
use crate::memory::ByNode;
use crate::priority::Priority;
use crate::time::Clock;
use crate::write::Write;

/// After this time the taint is removed even if the profile is not ready: a node that is not selected, only
/// observed, paused or failed, or whose agent does not start, must not stay without pods.
const TAINT_TIMEOUT: Duration = Duration::from_secs(60);

/// Startup taints, if they are removed at all.
pub(crate) struct StartupTaints {
    /// Since when nodes have had theirs.
    pub(crate) since: ByNode<Mono>,
    pub(crate) writes: Vec<(Priority, Write)>,
}

/// Removes the taint of nodes that are ready or have had it for too long.
pub(crate) fn remove_startup_taints(
    cluster: &ClusterState,
    remembered: &ByNode<Mono>,
    clock: &mut Clock,
) -> StartupTaints {
    let mut since = Vec::new();
    let mut writes = Vec::new();
    let mut remembered = remembered.cursor();
    let nodes = cluster.nodes.iter().filter(|_| cluster.startup_taint);
    for (name, node) in nodes {
        let Some(tainted) = &node.tainted else {
            continue;
        };
        let first_seen = remembered.get(name).copied().unwrap_or(clock.now.mono);
        since.push((Arc::clone(name), first_seen));
        let profile = cluster.profiles.get(name);
        let ready = profile
            .filter(|profile| profile.owner_uid == node.uid)
            .and_then(|profile| profile.reported_now(node))
            .is_some_and(|reported| reported.ready);
        if ready || clock.has_passed(first_seen, TAINT_TIMEOUT) {
            let write = Write::Untaint {
                node: Arc::clone(name),
                uid: Arc::clone(&node.uid),
                seen: Arc::clone(&tainted.resource_version),
                taints: tainted.others.clone(),
            };
            writes.push((Priority::Taint, write));
        }
    }
    StartupTaints {
        since: since.into(),
        writes,
    }
}
