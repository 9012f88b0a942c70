//! One agent, one effect at a time: tables whose limits depend on each other and on how full they are, other programs
//! that write them, and agents and machines that restart.

use std::time::Duration;

use serde_json::{Value, json};

use super::{RULES, check, waves};
use crate::cluster::Cluster;
use crate::setup::{Fault, Input, Mutation, SOMAXCONN, Setup};
use crate::state::State;

const THRESHOLDS: [&str; 3] = [
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
];
const CONNTRACK_MAX: &str = "net.netfilter.nf_conntrack_max";

fn thresholds([one, two, three]: [u32; 3]) -> Value {
    let mut spec = waves("1024");
    spec["neighbors"] = json!({
        "thresholds": {"gcThresh1": one, "gcThresh2": two, "gcThresh3": three}
    });
    spec["resize"] = json!({"shrinkAfterSeconds": 60});
    spec
}

/// One node whose thresholds are raised.
fn raised(inputs: &[Input]) -> Setup {
    let kernel = ["128", "512", "1024"];
    let mut sysctls: Vec<_> = THRESHOLDS.into_iter().zip(kernel).collect();
    sysctls.push((SOMAXCONN, "128"));
    Setup {
        nodes: 1,
        fine: true,
        sysctls,
        inputs: inputs.into(),
        ..Setup::new(
            [thresholds([512, 2048, 4096]), thresholds([64, 256, 512])],
            [],
        )
    }
}

/// One node whose limits are all lowered.
fn lowered() -> Setup {
    let mut model = raised(&[Input::Tunes(0, 1)]);
    model.sysctls.push((CONNTRACK_MAX, "131072"));
    for (spec, entries) in model.specs.iter_mut().zip([524_288, 262_144]) {
        spec["conntrack"] = json!({"minEntries": entries, "maxEntries": entries});
    }
    model
}

#[test]
fn agents_die_between_any_two_effects() {
    let model = || {
        let lowered = raised(&[Input::Tunes(0, 1), Input::Deletes(0)]);
        lowered.with(1, [Fault::AgentDies])
    };
    let mutation = Mutation::RestartedAgentForgetsOriginals;
    check("agents die", model, mutation, RULES);
}

#[test]
fn full_tables_are_not_cut() {
    let model = || Setup {
        right: is_full_or_right,
        ..lowered().with(2, [Fault::Fills(300), Fault::Fills(200_000)])
    };
    let mutation = Mutation::AgentTakesTablesForEmpty;
    check("tables fill", model, mutation, RULES);
}

/// Limits are not lowered below twice what a table holds.
fn is_full_or_right(model: &Cluster, state: &State) -> bool {
    state.hosts[0].kernel.counts.conntrack != Some(0) || model.is_right_on(state, 0)
}

#[test]
fn another_program_writes() {
    let model = || Setup {
        longest: Duration::from_secs(3600),
        right: is_right_or_another_programs,
        ..raised(&[Input::Deletes(0)]).with(1, ANOTHER_PROGRAM)
    };
    let mutation = Mutation::AgentTrustsItsWrites;
    check("another program writes", model, mutation, RULES);
}

const ANOTHER_PROGRAM: [Fault; 3] = [
    Fault::Rival(THRESHOLDS[0], "5000"),
    Fault::Rival(THRESHOLDS[2], "300"),
    Fault::Rival(SOMAXCONN, "7"),
];

/// A release keeps what another program wrote.
fn is_right_or_another_programs(model: &Cluster, state: &State) -> bool {
    let is_released = state.api.tunings[0].is_none() && state.api.profiles[0].is_none();
    let is_kept = |(key, booted): &(&str, &str)| {
        let holds = state.holds(0, key);
        holds == Some(booted)
            || ANOTHER_PROGRAM.iter().any(
                |fault| matches!(fault, Fault::Rival(name, value) if name == key && holds == Some(value)),
            )
    };
    model.is_right_on(state, 0) || (is_released && model.setup.sysctls.iter().all(is_kept))
}

#[test]
fn machines_reboot() {
    let model = || {
        let change = Setup::new([waves("1024"), waves("4096")], [Input::Tunes(0, 1)]);
        change.with(1, [Fault::Reboot(SOMAXCONN, "256")])
    };
    let mutation = Mutation::RebootedAgentKeepsRecords;
    check("machines reboot", model, mutation, RULES);
}
