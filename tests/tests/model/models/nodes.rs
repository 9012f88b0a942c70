//! Nodes that are deleted and come back under their name, or are cut off by a value.

use serde_json::json;

use super::{DAMAGE, TRUTH, check, waves};
use crate::cluster::Cluster;
use crate::setup::{Fault, Input, Mutation, SOMAXCONN, Setup};
use crate::state::State;

#[test]
fn a_node_is_deleted_and_comes_back() {
    let model = || {
        let change = Setup::new([waves("1024"), waves("4096")], [Input::Tunes(0, 1)]);
        change.with(1, [Fault::NodeGoes])
    };
    let mutation = Mutation::ReportsWithoutVersion;
    check("a node comes back", model, mutation, TRUTH);
}

/// Three nodes, and a value that cuts off each node that holds it.
fn harmful() -> Setup {
    Setup {
        nodes: 3,
        harmful: Some((SOMAXCONN, "1")),
        most_cut_off: 1,
        prompt: true,
        right: is_stopped,
        ..Setup::new([waves("1024"), waves("1")], [Input::Tunes(0, 1)])
    }
}

/// Nodes that are not cut off hold what they held before.
fn is_stopped(model: &Cluster, state: &State) -> bool {
    let changed = (0..model.setup.nodes).filter(|at| state.holds(*at, SOMAXCONN) != Some("1024"));
    changed.clone().all(|at| state.is_cut_off(at)) && changed.count() <= model.setup.most_cut_off
}

#[test]
fn a_harmful_value_stops_at_the_first_node_however_often_the_leader_decides() {
    let model = || Setup {
        repeats: true,
        ..harmful().with(1, [Fault::WriteIsSlow])
    };
    let mutation = Mutation::CountsDecisionsAsTime;
    check("a harmful value", model, mutation, DAMAGE);
}

#[test]
fn a_harmful_value_stops_where_one_node_may_fail_and_leaders_die() {
    let model = || {
        let mut model = harmful();
        model.specs[1]["rollout"]["maxFailed"] = json!(1);
        model.most_cut_off = 2;
        model.with(2, [Fault::LeaderDies, Fault::SecondLeader])
    };
    let mutation = Mutation::NewLeaderAssumesAllPassed;
    check("a harmful value, leaders die", model, mutation, DAMAGE);
}
