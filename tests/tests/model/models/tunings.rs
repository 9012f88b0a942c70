//! Tunings that take nodes from each other, and their status.

use serde_json::{Value, json};

use super::{RIGHT, check, waves};
use crate::api::Tuning;
use crate::cluster::Cluster;
use crate::intern::Interned;
use crate::setup::{Input, Mutation, Setup};
use crate::state::State;

/// A tuning that takes the nodes of other tunings.
fn above(value: &str) -> Value {
    let mut spec = waves(value);
    spec["priority"] = json!(1);
    spec
}

#[test]
fn nodes_move_between_two_tunings() {
    let model = || {
        Setup::new(
            [waves("1024"), above("4096")],
            [Input::Tunes(1, 1), Input::Deletes(1)],
        )
    };
    let mutation = Mutation::IgnoresPriority;
    check("two tunings", model, mutation, RIGHT);
}

#[test]
fn the_status_of_a_tuning_is_written_until_it_is_true() {
    let model = || Setup {
        statuses: true,
        right: tells_that_all_are_ready,
        ..Setup::new([waves("1024"), waves("4096")], [Input::Tunes(0, 1)])
    };
    let mutation = Mutation::WritesTuningStatusOnce;
    check("the tuning's status", model, mutation, RIGHT);
}

fn tells_that_all_are_ready(model: &Cluster, state: &State) -> bool {
    let is_told = |tuning: &Interned<Tuning>| {
        let conditions = tuning.status["conditions"].as_array();
        let mut ready = conditions
            .into_iter()
            .flatten()
            .filter(|one| one["type"] == "Ready");
        tuning.status["observedGeneration"] == tuning.spec
            && ready.any(|ready| ready["status"] == "True")
    };
    model.holds_what_is_wanted(state) && state.api.tunings.iter().flatten().all(is_told)
}
