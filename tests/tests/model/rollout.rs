//! A value reaches the nodes of a tuning, whatever goes wrong on the way.

use crate::check::holds;
use crate::cluster::{Fault, Input, Setup};
use crate::specs::waves;

/// One change of a value on two nodes.
fn change() -> Setup {
    Setup {
        specs: vec![waves("1024"), waves("4096")],
        inputs: vec![Input::Tunes(0, 1)],
        ..Setup::default()
    }
}

#[test]
fn leaders_die_at_any_step_and_answers_come_late() {
    let setup = Setup {
        faults: vec![Fault::LeaderDies, Fault::WriteIsLost],
        most_faults: 2,
        late_answers: true,
        ..change()
    };
    holds("rollout; leaders die, writes are lost", setup);
}

#[test]
fn two_leaders_for_a_while() {
    let setup = Setup {
        faults: vec![Fault::SecondLeader],
        most_faults: 1,
        ..change()
    };
    holds("rollout; two leaders", setup);
}

#[test]
fn watches_lag_behind_each_other() {
    let setup = Setup {
        nodes: 1,
        lag: true,
        late_answers: true,
        ..change()
    };
    holds("rollout; watches lag, answers come late", setup);
}

#[test]
fn watches_lag_and_leaders_die() {
    let setup = Setup {
        nodes: 1,
        faults: vec![Fault::LeaderDies],
        most_faults: 1,
        lag: true,
        ..change()
    };
    holds("rollout; watches lag, leaders die", setup);
}

#[test]
fn agents_die_between_any_two_effects() {
    let setup = Setup {
        faults: vec![Fault::AgentDies],
        most_faults: 2,
        fine: true,
        ..change()
    };
    holds("rollout; agents die", setup);
}

#[test]
fn a_leader_and_an_agent_die() {
    let setup = Setup {
        faults: vec![Fault::LeaderDies, Fault::AgentDies],
        most_faults: 2,
        ..change()
    };
    holds("rollout; a leader and an agent die", setup);
}

#[test]
fn machines_boot_again() {
    let setup = Setup {
        faults: vec![Fault::Reboot],
        most_faults: 1,
        ..change()
    };
    holds("rollout; machines boot again", setup);
}

#[test]
fn a_change_in_the_middle_of_a_rollout() {
    let setup = Setup {
        specs: vec![waves("1024"), waves("4096"), waves("8192")],
        inputs: vec![Input::Tunes(0, 1), Input::Tunes(0, 2)],
        ..change()
    };
    holds("rollout; another change in the middle", setup);
}

#[test]
fn what_a_tuning_says_of_itself() {
    let setup = Setup {
        nodes: 1,
        faults: vec![Fault::LeaderDies],
        most_faults: 1,
        statuses: true,
        ..change()
    };
    holds("rollout; with the tuning's status", setup);
}

#[test]
fn three_nodes() {
    let setup = Setup {
        nodes: 3,
        faults: vec![Fault::LeaderDies],
        most_faults: 1,
        ..change()
    };
    holds("rollout; three nodes", setup);
}
