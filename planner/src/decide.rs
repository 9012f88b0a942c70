//! [`decide`]: from the whole cluster to the writes that it needs.

use nettune_sizing::Mono;

use crate::assign::assign;
use crate::cluster::state::ClusterState;
use crate::health::agent::check_agents;
use crate::health::startup_taint::remove_startup_taints;
use crate::memory::Memory;
use crate::priority::in_order;
use crate::release::release;
use crate::rollout::canary::check_canaries;
use crate::rollout::changes::find_changes;
use crate::rollout::roll_out::roll_out;
use crate::rollout::rollouts::Rollouts;
use crate::rollout::shrink::delay_shrinks;
use crate::size_groups::size_groups;
use crate::stale_profiles::delete_stale_profiles;
use crate::status::release::{ReleaseReport, report_releases};
use crate::status::tally::count;
use crate::status::tuning::update_statuses;
use crate::time::{Clock, Now};
use crate::write::Write;

/// What the cluster needs now.
#[derive(Debug, Default)]
pub struct Decision {
    /// The most urgent first. No two of one object.
    pub writes: Vec<Write>,
    /// The releases that no tuning's status reports completely, by tuning.
    pub release_reports: Vec<ReleaseReport>,
    /// What to remember for the next decision.
    pub memory: Memory,
    /// When to decide again although nothing changes; `None`: there is no need to.
    pub wake_at: Option<Mono>,
}

/// Decides from the whole cluster, each time from scratch. `memory` is what the previous decision
/// returned; a new leader starts with none, and waits again.
#[must_use]
pub fn decide(cluster: &ClusterState, memory: &Memory, now: Now) -> Decision {
    let mut clock = Clock::new(now);
    let assignment = assign(cluster);
    let deletes = delete_stale_profiles(&assignment);
    let sizes = size_groups(cluster, &assignment.managed);
    let mut rollouts = Rollouts::new(&assignment.claims, &memory.resting);

    let mut changes = find_changes(&assignment.managed, &sizes, &mut rollouts);
    let shrinks = delay_shrinks(&mut changes.existing, &memory.shrinks, &mut clock);
    let releases = release(&assignment.unmanaged, &mut rollouts);
    let canaries = check_canaries(
        &changes.existing,
        &releases.nodes,
        &memory.canaries,
        &mut rollouts,
        &mut clock,
    );
    let rollout = roll_out(&changes, &canaries, &memory.admitted, &mut rollouts);

    let agents = check_agents(
        &changes.existing,
        &releases.nodes,
        &cluster.agents,
        &memory.silences,
        &rollouts,
        &mut clock,
    );
    let taints = remove_startup_taints(cluster, &memory.tainted, &mut clock);

    let tallies = count(
        cluster,
        &assignment,
        &changes,
        &releases.nodes,
        &rollouts,
        &agents.unresponsive,
    );
    let statuses = update_statuses(cluster, &assignment, &sizes, &rollouts, &tallies, now.wall);
    let release_reports = report_releases(cluster, &releases.nodes, &rollouts, &tallies);

    Decision {
        writes: in_order([
            deletes,
            releases.deletes,
            rollout.writes,
            agents.writes,
            taints.writes,
            statuses,
        ]),
        release_reports,
        memory: Memory {
            canaries,
            silences: agents.silences,
            shrinks,
            tainted: taints.since,
            admitted: rollout.admitted,
            resting: rollouts.resting(),
        },
        wake_at: clock.requeue_at(),
    }
}
