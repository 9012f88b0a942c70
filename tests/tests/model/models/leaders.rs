//! Leaders that die, two at a time, and writes that are lost, slow or held back.

use crate::setup::{Fault, Input, Setup};
use crate::specs::waves;

/// One change of a value on two nodes.
fn change() -> Setup {
    Setup::new([waves("1024"), waves("4096")], [Input::Tunes(0, 1)])
}

/// The only tuning is deleted.
fn deletion() -> Setup {
    Setup::new([waves("1024")], [Input::Deletes(0)])
}

/// The only tuning of one node is deleted, and another one comes in its place.
fn return_of_a_tuning() -> Setup {
    let inputs = [Input::Deletes(0), Input::Tunes(0, 1)];
    Setup {
        nodes: 1,
        ..Setup::new([waves("1024"), waves("4096")], inputs)
    }
}

#[test]
fn leaders_die_at_any_step_and_answers_come_late() {
    Setup {
        late_answers: true,
        ..change().with(2, [Fault::LeaderDies, Fault::WriteIsLost])
    }
    .holds("rollout; leaders die, writes are lost");
}

#[test]
fn two_leaders_for_a_while() {
    let model = change().with(1, [Fault::SecondLeader]);
    model.holds("rollout; two leaders");
}

#[test]
fn two_leaders_and_another_change() {
    let inputs = [Input::Tunes(0, 1), Input::Tunes(0, 2)];
    Setup {
        nodes: 1,
        ..Setup::new([waves("1024"), waves("4096"), waves("8192")], inputs)
            .with(1, [Fault::SecondLeader])
    }
    .holds("rollout; another change, two leaders");
}

#[test]
fn two_leaders_while_a_tuning_goes() {
    let model = deletion().with(1, [Fault::SecondLeader]);
    model.holds("release; two leaders");
}

#[test]
fn two_leaders_while_a_tuning_goes_and_comes_back() {
    let model = return_of_a_tuning().with(1, [Fault::SecondLeader]);
    model.holds("release; the tuning comes back, two leaders");
}

#[test]
fn writes_arrive_that_their_leader_waits_for_no_longer() {
    let model = change().with(2, [Fault::WriteIsSlow]);
    model.holds("rollout; writes are slow");
}

#[test]
fn writes_of_a_release_arrive_late() {
    let model = deletion().with(2, [Fault::WriteIsSlow]);
    model.holds("release; writes are slow");
}

#[test]
fn writes_of_a_release_arrive_when_the_tuning_is_back() {
    let model = return_of_a_tuning().with(2, [Fault::WriteIsSlow]);
    model.holds("release; the tuning comes back, writes are slow");
}
