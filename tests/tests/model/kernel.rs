//! One node and its agent, one effect after the other: tables whose limits depend on each other and
//! on how full they are, and somebody else who writes them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::check::holds;
use crate::cluster::{Cluster, Fault, Input, SOMAXCONN, Setup, State};
use crate::specs::waves;

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
        nodes: 1,
        fine: true,
        sysctls: THRESHOLDS.into_iter().zip(["128", "512", "1024"]).collect(),
        specs: vec![thresholds([512, 2048, 4096]), thresholds([64, 256, 512])],
        inputs: vec![Input::Tunes(0, 1)],
        right: holds_the_thresholds,
        ..Setup::default()
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
    let setup = Setup {
        faults: vec![Fault::AgentDies],
        most_faults: 2,
        ..neighbors()
    };
    holds("thresholds; agents die", setup);
}

#[test]
fn thresholds_keep_their_order_beside_somebody_else() {
    let setup = Setup {
        faults: vec![
            Fault::Rival(THRESHOLDS[2], "300"),
            Fault::Rival(THRESHOLDS[0], "5000"),
        ],
        most_faults: 1,
        longest: HOUR,
        ..neighbors()
    };
    holds("thresholds; somebody else sets them", setup);
}

#[test]
fn thresholds_are_not_lowered_below_what_the_table_holds() {
    let setup = Setup {
        faults: vec![Fault::Fills(300), Fault::AgentDies],
        most_faults: 2,
        right: holds_the_thresholds_or_is_full,
        ..neighbors()
    };
    holds("thresholds; the table fills", setup);
}

/// With 300 entries neither of the upper two is lowered below 600.
fn holds_the_thresholds_or_is_full(model: &Cluster, state: &State) -> bool {
    let is_full = state.hosts[0].kernel.counts.neighbors_ipv4 == Some(300);
    is_full || holds_the_thresholds(model, state)
}

/// A limit of connections that is raised and then lowered.
fn conntrack() -> Setup {
    Setup {
        nodes: 1,
        fine: true,
        sysctls: vec![(MAX, "65536")],
        specs: vec![connections(524_288), connections(262_144)],
        inputs: vec![Input::Tunes(0, 1)],
        right: holds_the_connections,
        ..Setup::default()
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
    let setup = Setup {
        faults: vec![Fault::Fills(200_000), Fault::AgentDies],
        most_faults: 2,
        ..conntrack()
    };
    holds("connections; the table fills", setup);
}

#[test]
fn somebody_else_lowers_the_limit_of_connections() {
    let setup = Setup {
        faults: vec![Fault::Rival(MAX, "131072")],
        most_faults: 1,
        longest: HOUR,
        ..conntrack()
    };
    holds("connections; somebody else lowers the limit", setup);
}

#[test]
fn somebody_else_sets_a_value_that_is_released() {
    let setup = Setup {
        nodes: 1,
        fine: true,
        specs: vec![waves("1024")],
        inputs: vec![Input::Deletes(0)],
        faults: vec![Fault::Rival(SOMAXCONN, "7"), Fault::AgentDies],
        most_faults: 2,
        longest: HOUR,
        right: is_released_or_left,
        ..Setup::default()
    };
    holds("release; somebody else sets the value", setup);
}

/// What somebody else has set since stays.
fn is_released_or_left(model: &Cluster, state: &State) -> bool {
    if state.api.tunings.iter().any(Option::is_some) {
        return model.is_right_on(state, 0);
    }
    state.api.profiles[0].is_none() && matches!(state.holds(0, SOMAXCONN), Some("128" | "7"))
}
