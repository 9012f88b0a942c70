//! Nodes that go, come back under their name, or are cut off by a value.

use serde_json::json;

use crate::cluster::Cluster;
use crate::setup::{Fault, Input, SOMAXCONN, Setup};
use crate::specs::waves;
use crate::state::State;

#[test]
fn a_node_is_deleted_and_comes_back() {
    let change = Setup::new([waves("1024"), waves("4096")], [Input::Tunes(0, 1)]);
    let model = change.with(1, [Fault::NodeGoes]);
    model.holds("a node is deleted and comes back");
}

#[test]
fn a_node_is_deleted_while_a_tuning_goes() {
    Setup {
        right: is_released,
        ..Setup::new([waves("1024")], [Input::Deletes(0)]).with(1, [Fault::NodeGoes])
    }
    .holds("a node is deleted during a release");
}

/// Originals are back; but a node that came back while the profile of the one before was not
/// collected yet may have applied it, and a profile that is merely gone is no release.
fn is_released(model: &Cluster, state: &State) -> bool {
    (0..model.setup.nodes).all(|at| {
        let is_new = state.api.nodes[at].is_some_and(|node| node.life > 1);
        let holds = state.holds(at, SOMAXCONN);
        if !state.api.tunings.iter().all(Option::is_none) {
            return model.is_right_on(state, at);
        }
        state.api.profiles[at].is_none()
            && (holds == Some("128") || (is_new && holds == Some("1024")))
    })
}

/// Three nodes, and a value that cuts each off that holds it.
fn deadly() -> Setup {
    Setup {
        nodes: 3,
        deadly: Some((SOMAXCONN, "1")),
        most_cut_off: 1,
        prompt: true,
        right: is_stopped,
        ..Setup::new([waves("1024"), waves("1")], [Input::Tunes(0, 1)])
    }
}

/// The same where one may fail: that one and a wave may be cut off.
fn deadly_where_one_may_fail() -> Setup {
    let mut model = deadly();
    model.specs[1]["rollout"]["maxFailed"] = json!(1);
    Setup {
        most_cut_off: 2,
        ..model
    }
}

/// Nodes that are not cut off hold what they held before.
fn is_stopped(model: &Cluster, state: &State) -> bool {
    let changed = (0..model.setup.nodes).filter(|at| state.holds(*at, SOMAXCONN) != Some("1024"));
    changed.clone().all(|at| state.is_cut_off(at)) && changed.count() <= model.setup.most_cut_off
}

#[test]
fn a_value_that_cuts_nodes_off_stops_at_the_first_wave() {
    let model = deadly().with(2, [Fault::LeaderDies, Fault::WriteIsLost]);
    model.holds("a value cuts nodes off; leaders die");
}

#[test]
fn a_value_that_cuts_nodes_off_stops_also_where_agents_die() {
    let model = deadly().with(2, [Fault::AgentDies]);
    model.holds("a value cuts nodes off; agents die");
}

#[test]
fn a_value_that_cuts_nodes_off_stops_also_with_two_leaders() {
    let model = deadly().with(1, [Fault::SecondLeader]);
    model.holds("a value cuts nodes off; two leaders");
}

#[test]
fn one_node_may_fail_and_leaders_die() {
    let model = deadly_where_one_may_fail().with(2, [Fault::LeaderDies, Fault::WriteIsLost]);
    model.holds("a value cuts nodes off, one may fail; leaders die");
}

#[test]
fn one_node_may_fail_and_agents_die() {
    let model = deadly_where_one_may_fail().with(2, [Fault::AgentDies]);
    model.holds("a value cuts nodes off, one may fail; agents die");
}

#[test]
fn one_node_may_fail_with_two_leaders() {
    let model = deadly_where_one_may_fail().with(1, [Fault::SecondLeader]);
    model.holds("a value cuts nodes off, one may fail; two leaders");
}

#[test]
fn a_value_that_cuts_nodes_off_stops_also_where_writes_are_slow() {
    let model = deadly().with(2, [Fault::WriteIsSlow]);
    model.holds("a value cuts nodes off; writes are slow");
}
