//! Faults of the model's shells, which the checker must find.

use crate::setup::{Fault, Input, Planted, Setup};
use crate::specs::waves;

/// One node whose value is changed and then released.
fn released(planted: Planted) -> Setup {
    Setup {
        nodes: 1,
        fine: true,
        planted: Some(planted),
        ..Setup::new(
            [waves("1024"), waves("4096")],
            [Input::Tunes(0, 1), Input::Deletes(0)],
        )
        .with(1, [Fault::AgentDies])
    }
}

#[test]
fn originals_that_are_not_saved_are_found() {
    let model = released(Planted::ForgetsOriginals);
    model.breaks("planted: originals forgotten", "the rules are kept");
}

#[test]
fn saving_after_the_write_is_found() {
    let model = released(Planted::SavesAfterWriting);
    model.breaks("planted: saved after the write", "the rules are kept");
}

#[test]
fn leaders_writes_without_their_version_are_found() {
    Setup {
        nodes: 1,
        planted: Some(Planted::LeadersWriteWithoutVersion),
        ..Setup::new(
            [waves("1024"), waves("4096"), waves("8192")],
            [Input::Tunes(0, 1), Input::Tunes(0, 2)],
        )
        .with(1, [Fault::SecondLeader])
    }
    .breaks(
        "planted: leaders' writes without a version",
        "no write undoes what was decided later",
    );
}

#[test]
fn agents_writes_without_their_version_are_found() {
    Setup {
        nodes: 1,
        planted: Some(Planted::AgentsWriteWithoutVersion),
        ..Setup::new([waves("1024"), waves("4096")], [Input::Tunes(0, 1)])
            .with(2, [Fault::LeaderDies, Fault::NodeGoes])
    }
    .breaks(
        "planted: agents' writes without a version",
        "statuses tell the truth",
    );
}
