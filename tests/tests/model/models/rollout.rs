//! A value reaches the nodes of a tuning, whatever goes wrong on the nodes, and whatever people do meanwhile.

use crate::setup::{Fault, Input, Setup};
use crate::specs::waves;

/// One change of a value on two nodes.
fn change() -> Setup {
    Setup::new([waves("1024"), waves("4096")], [Input::Tunes(0, 1)])
}

#[test]
fn agents_die_between_any_two_effects() {
    Setup {
        fine: true,
        ..change().with(2, [Fault::AgentDies])
    }
    .holds("rollout; agents die");
}

#[test]
fn a_leader_and_an_agent_die() {
    let model = change().with(2, [Fault::LeaderDies, Fault::AgentDies]);
    model.holds("rollout; a leader and an agent die");
}

#[test]
fn machines_boot_again() {
    let model = change().with(1, [Fault::Reboot]);
    model.holds("rollout; machines boot again");
}

#[test]
fn a_change_in_the_middle_of_a_rollout() {
    Setup::new(
        [waves("1024"), waves("4096"), waves("8192")],
        [Input::Tunes(0, 1), Input::Tunes(0, 2)],
    )
    .holds("rollout; another change in the middle");
}

#[test]
fn what_a_tuning_says_of_itself() {
    Setup {
        statuses: true,
        ..change().with(1, [Fault::LeaderDies])
    }
    .holds("rollout; with the tuning's status");
}

#[test]
fn three_nodes() {
    Setup {
        nodes: 3,
        ..change().with(1, [Fault::LeaderDies])
    }
    .holds("rollout; three nodes");
}
