//! Tunings come and go: the true originals go back where none is left, and nowhere else.

use crate::setup::{Fault, Input, Setup};
use crate::specs::{above, waves};

/// The only tuning is deleted.
fn deletion() -> Setup {
    Setup::new([waves("1024")], [Input::Deletes(0)])
}

#[test]
fn a_tuning_is_deleted() {
    let model = deletion().with(2, [Fault::LeaderDies, Fault::AgentDies]);
    model.holds("release; a leader and an agent die");
}

#[test]
fn a_tuning_is_deleted_and_agents_die_between_any_two_effects() {
    Setup {
        fine: true,
        ..deletion().with(2, [Fault::AgentDies])
    }
    .holds("release; agents die");
}

#[test]
fn a_tuning_comes_back_in_the_middle_of_a_release() {
    let inputs = [Input::Deletes(0), Input::Tunes(0, 1)];
    Setup {
        nodes: 1,
        ..Setup::new([waves("1024"), waves("4096")], inputs).with(1, [Fault::LeaderDies])
    }
    .holds("release; the tuning comes back");
}

#[test]
fn nodes_move_between_two_tunings() {
    let inputs = [Input::Tunes(1, 1), Input::Deletes(1)];
    Setup {
        ..Setup::new([waves("1024"), above("4096")], inputs).with(1, [Fault::LeaderDies])
    }
    .holds("two tunings; nodes move and come back");
}

#[test]
fn both_tunings_are_deleted() {
    let inputs = [Input::Deletes(1), Input::Deletes(0)];
    Setup {
        tunings: [Some(0), Some(1)],
        ..Setup::new([waves("1024"), above("4096")], inputs).with(1, [Fault::AgentDies])
    }
    .holds("two tunings; both are deleted");
}
