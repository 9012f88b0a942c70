//! Faults of the model's shells, which the checker must find.

use crate::check::fails;
use crate::cluster::{Fault, Input, Setup};
use crate::specs::waves;

/// A fault that is planted in the shell around the product's functions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Planted {
    /// The API server is not told the version that a write was decided on.
    WritesWithoutVersion,
    /// What is saved holds no originals.
    ForgetsOriginals,
    /// What is to be saved is saved when nothing is left to do: after the writes.
    SavesAfterWriting,
}

fn released(planted: Planted) -> Setup {
    Setup {
        nodes: 1,
        specs: vec![waves("1024"), waves("4096")],
        inputs: vec![Input::Tunes(0, 1), Input::Deletes(0)],
        faults: vec![Fault::AgentDies],
        most_faults: 1,
        fine: true,
        planted: Some(planted),
        ..Setup::default()
    }
}

#[test]
fn originals_that_are_not_saved_are_found() {
    let found = fails(
        "planted: originals forgotten",
        released(Planted::ForgetsOriginals),
    );
    assert!(found.contains("the agent keeps the rules"), "{found}");
}

#[test]
fn saving_after_the_write_is_found() {
    let found = fails(
        "planted: saved after the write",
        released(Planted::SavesAfterWriting),
    );
    assert!(found.contains("the agent keeps the rules"), "{found}");
}

#[test]
fn writes_without_their_version_are_found() {
    let setup = Setup {
        nodes: 1,
        specs: vec![waves("1024"), waves("4096")],
        inputs: vec![Input::Tunes(0, 1)],
        faults: vec![Fault::LeaderDies, Fault::NodeGoes],
        most_faults: 2,
        planted: Some(Planted::WritesWithoutVersion),
        ..Setup::default()
    };
    let found = fails("planted: writes without a version", setup);
    assert!(found.contains("statuses tell the truth"), "{found}");
}
