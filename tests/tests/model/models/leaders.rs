//! Leaders that die, two at a time, whose watches lag, and writes that are lost or arrive late.

use super::{ENDS, RIGHT, STALE, check, waves};
use crate::setup::{Fault, Input, Mutation, Setup};

#[test]
fn writes_of_an_earlier_change_arrive_late() {
    let model = || Setup {
        nodes: 1,
        ..Setup::new(
            [waves("1024"), waves("4096"), waves("8192")],
            [Input::Tunes(0, 1), Input::Tunes(0, 2)],
        )
        .with(1, [Fault::SecondLeader])
    };
    let mutation = Mutation::ReplacesWithoutVersion;
    check("two leaders", model, mutation, STALE);
}

#[test]
fn writes_of_a_release_arrive_when_the_tuning_is_back() {
    let model = || Setup {
        nodes: 1,
        ..Setup::new(
            [waves("1024"), waves("4096")],
            [Input::Deletes(0), Input::Tunes(0, 1)],
        )
        .with(2, [Fault::WriteIsSlow])
    };
    let mutation = Mutation::ReleasesWithoutVersion;
    check("a tuning comes back", model, mutation, STALE);
}

#[test]
fn watches_lag_while_a_tuning_goes_and_comes_back() {
    let model = || Setup {
        nodes: 1,
        lag: true,
        late_answers: true,
        ..Setup::new(
            [waves("1024"), waves("4096")],
            [Input::Deletes(0), Input::Tunes(0, 1)],
        )
        .with(1, [Fault::LeaderDies])
    };
    let mutation = Mutation::RelistKeepsDeletedProfiles;
    check("watches lag", model, mutation, ENDS);
}

#[test]
fn leaders_die_and_writes_are_lost() {
    let model = || {
        let change = Setup::new([waves("1024"), waves("4096")], [Input::Tunes(0, 1)]);
        change.with(2, [Fault::LeaderDies, Fault::WriteIsLost])
    };
    let mutation = Mutation::LostWriteIsNotRetried;
    check("leaders die, writes are lost", model, mutation, RIGHT);
}
