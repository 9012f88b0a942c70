//! Tunings come and go: the true originals go back where none is left, and nowhere else.

use crate::check::holds;
use crate::cluster::{Fault, Input, Setup};
use crate::specs::{above, waves};

#[test]
fn a_tuning_is_deleted() {
    let setup = Setup {
        specs: vec![waves("1024")],
        inputs: vec![Input::Deletes(0)],
        faults: vec![Fault::LeaderDies, Fault::AgentDies],
        most_faults: 2,
        ..Setup::default()
    };
    holds("release; a leader and an agent die", setup);
}

#[test]
fn a_tuning_is_deleted_and_agents_die_between_any_two_effects() {
    let setup = Setup {
        specs: vec![waves("1024")],
        inputs: vec![Input::Deletes(0)],
        faults: vec![Fault::AgentDies],
        most_faults: 2,
        fine: true,
        ..Setup::default()
    };
    holds("release; agents die", setup);
}

#[test]
fn a_tuning_comes_back_in_the_middle_of_a_release() {
    let setup = Setup {
        specs: vec![waves("1024"), waves("4096")],
        nodes: 1,
        inputs: vec![Input::Deletes(0), Input::Tunes(0, 1)],
        faults: vec![Fault::LeaderDies],
        most_faults: 1,
        ..Setup::default()
    };
    holds("release; the tuning comes back", setup);
}

#[test]
fn nodes_move_between_two_tunings() {
    let setup = Setup {
        specs: vec![waves("1024"), above("4096")],
        nodes: 1,
        inputs: vec![Input::Tunes(1, 1), Input::Deletes(1)],
        faults: vec![Fault::LeaderDies],
        most_faults: 1,
        ..Setup::default()
    };
    holds("two tunings; nodes move and come back", setup);
}

#[test]
fn both_tunings_are_deleted() {
    let setup = Setup {
        specs: vec![waves("1024"), above("4096")],
        tunings: [Some(0), Some(1)],
        inputs: vec![Input::Deletes(1), Input::Deletes(0)],
        faults: vec![Fault::AgentDies],
        most_faults: 1,
        ..Setup::default()
    };
    holds("two tunings; both are deleted", setup);
}
