//! One node and its agent, one effect after the other: tables whose limits depend on each other and
//! on how full they are, and somebody else who writes them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::setup::{Fault, Input, SOMAXCONN, Setup};
use crate::specs::waves;
use crate::state::State;

const THRESHOLDS: [&str; 3] = [
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
];
const MAX: &str = "net.netfilter.nf_conntrack_max";

/// How long a key is left alone that somebody else keeps changing.
const HOUR: Duration = Duration::from_secs(3600);

/// Fixed thresholds.
fn thresholds([one, two, three]: [u32; 3]) -> Value {
    let mut spec = waves("1024");
    spec["sysctls"] = json!([]);
    spec["neighbors"] = json!({
        "thresholds": {"gcThresh1": one, "gcThresh2": two, "gcThresh3": three}
    });
    spec
}

/// A limit of connections.
fn connections(entries: u32) -> Value {
    let mut spec = waves("1024");
    spec["sysctls"] = json!([]);
    spec["conntrack"] = json!({"minEntries": entries, "maxEntries": entries});
    spec["resize"] = json!({"shrinkAfterSeconds": 60});
    spec
}

/// One node with a kernel's own thresholds, which are raised and then lowered.
fn neighbors() -> Setup {
    Setup {
        sysctls: THRESHOLDS.into_iter().zip(["128", "512", "1024"]).collect(),
        right: holds_the_thresholds,
        ..one_node([thresholds([512, 2048, 4096]), thresholds([64, 256, 512])])
    }
}

/// One node whose tuning is changed.
fn one_node(specs: [Value; 2]) -> Setup {
    Setup {
        nodes: 1,
        fine: true,
        ..Setup::new(specs, [Input::Tunes(0, 1)])
    }
}

fn holds_the_thresholds(model: &Cluster, state: &State) -> bool {
    let tuning = state.api.tunings.iter().flatten().next();
    let wanted = tuning.map(|tuning| &model.setup.specs[tuning.spec]["neighbors"]["thresholds"]);
    let values = THRESHOLDS.map(|key| state.holds(0, key).and_then(|value| value.parse().ok()));
    let [Some(one), Some(two), Some(three)]: [Option<u64>; 3] = values else {
        return false;
    };
    wanted.is_some_and(|wanted| {
        wanted["gcThresh1"] == one && wanted["gcThresh2"] == two && wanted["gcThresh3"] == three
    })
}

#[test]
fn thresholds_keep_their_order_while_agents_die() {
    let model = neighbors().with(2, [Fault::AgentDies]);
    model.holds("thresholds; agents die");
}

#[test]
fn thresholds_keep_their_order_beside_somebody_else() {
    let highest = Fault::Rival(THRESHOLDS[2], "300");
    let lowest = Fault::Rival(THRESHOLDS[0], "5000");
    Setup {
        longest: HOUR,
        ..neighbors().with(1, [highest, lowest])
    }
    .holds("thresholds; somebody else sets them");
}

#[test]
fn thresholds_are_not_lowered_below_what_the_table_holds() {
    Setup {
        right: holds_the_thresholds_or_is_full,
        ..neighbors().with(2, [Fault::Fills(300), Fault::AgentDies])
    }
    .holds("thresholds; the table fills");
}

/// With 300 entries neither of the upper two is lowered below 600.
fn holds_the_thresholds_or_is_full(model: &Cluster, state: &State) -> bool {
    let is_full = state.hosts[0].kernel.counts.neighbors_ipv4 == Some(300);
    is_full || holds_the_thresholds(model, state)
}

/// A limit of connections that is raised and then lowered.
fn conntrack() -> Setup {
    Setup {
        sysctls: vec![(MAX, "65536")],
        right: holds_the_connections,
        ..one_node([connections(524_288), connections(262_144)])
    }
}

fn holds_the_connections(model: &Cluster, state: &State) -> bool {
    let max = state
        .holds(0, MAX)
        .and_then(|value| value.parse::<u64>().ok());
    let tuning = state.api.tunings.iter().flatten().next();
    let wanted = tuning.map(|tuning| &model.setup.specs[tuning.spec]["conntrack"]["minEntries"]);
    let is_full = state.hosts[0].kernel.counts.conntrack == Some(200_000);
    is_full || (max.is_some() && max == wanted.and_then(Value::as_u64))
}

#[test]
fn a_full_table_of_connections_is_not_cut() {
    let model = conntrack().with(2, [Fault::Fills(200_000), Fault::AgentDies]);
    model.holds("connections; the table fills");
}

#[test]
fn somebody_else_lowers_the_limit_of_connections() {
    Setup {
        longest: HOUR,
        ..conntrack().with(1, [Fault::Rival(MAX, "131072")])
    }
    .holds("connections; somebody else lowers the limit");
}

#[test]
fn somebody_else_sets_a_value_that_is_released() {
    Setup {
        nodes: 1,
        fine: true,
        longest: HOUR,
        right: is_released_or_left,
        ..Setup::new([waves("1024")], [Input::Deletes(0)])
            .with(2, [Fault::Rival(SOMAXCONN, "7"), Fault::AgentDies])
    }
    .holds("release; somebody else sets the value");
}

/// What somebody else has set since stays.
fn is_released_or_left(model: &Cluster, state: &State) -> bool {
    if state.api.tunings.iter().any(Option::is_some) {
        return model.is_right_on(state, 0);
    }
    state.api.profiles[0].is_none() && matches!(state.holds(0, SOMAXCONN), Some("128" | "7"))
}
