//! Leaders' watches that lag behind each other, or bring again what is known.

use crate::setup::{Fault, Input, Setup};
use crate::specs::waves;

/// One change of a value on two nodes, while each watch comes when it likes.
fn lag() -> Setup {
    Setup {
        lag: true,
        ..Setup::new([waves("1024"), waves("4096")], [Input::Tunes(0, 1)])
    }
}

#[test]
fn watches_lag_and_answers_come_late() {
    Setup {
        late_answers: true,
        ..lag()
    }
    .holds("rollout; watches lag, answers come late");
}

#[test]
fn watches_lag_and_leaders_die() {
    let model = lag().with(1, [Fault::LeaderDies]);
    model.holds("rollout; watches lag, leaders die");
}

#[test]
fn watches_lag_behind_a_node_that_goes_and_comes_back() {
    Setup {
        nodes: 1,
        late_answers: true,
        ..lag().with(1, [Fault::NodeGoes])
    }
    .holds("a node is deleted; watches lag, answers come late");
}

#[test]
fn watches_of_two_leaders_lag() {
    Setup {
        nodes: 1,
        most_generations: 4,
        ..lag().with(1, [Fault::SecondLeader])
    }
    .holds("rollout; watches lag, two leaders");
}

#[test]
fn watches_bring_the_same_again_during_a_rollout() {
    Setup {
        lag: false,
        repeats: true,
        ..lag().with(1, [Fault::LeaderDies])
    }
    .holds("rollout; watches repeat themselves");
}

#[test]
fn watches_bring_the_same_again_during_a_release() {
    Setup {
        repeats: true,
        ..Setup::new([waves("1024")], [Input::Deletes(0)]).with(1, [Fault::LeaderDies])
    }
    .holds("release; watches repeat themselves");
}
