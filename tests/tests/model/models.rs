//! The models. Each one has a mutation that no other model finds.

use serde_json::{Value, json};

use crate::check::explore;
use crate::setup::{Mutation, SOMAXCONN, Setup};

mod hosts;
mod leaders;
mod nodes;
mod tunings;

/// Explores a model twice: as it is, without violations, and with the mutation, which must violate this rule.
fn check(name: &str, model: fn() -> Setup, mutation: Mutation, rule: &str) {
    let violations = explore(name, model());
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    let name = format!("{name}, mutated");
    let mutated = Setup {
        mutation: Some(mutation),
        ..model()
    };
    let found = explore(&name, mutated).join("\n\n");
    assert!(
        found.contains(rule),
        "{name}: {mutation:?} was not found: {found}"
    );
}

const RULES: &str = "the rules are kept";
const STALE: &str = "no write undoes a later decision";
const TRUTH: &str = "statuses are true";
const DAMAGE: &str = "damage stays within the wave";
const RIGHT: &str = "it ends at the right values";
const ENDS: &str = "every run ends";

/// One fixed value, rolled out node by node; a node has passed when it was Ready for a minute.
fn waves(value: &str) -> Value {
    json!({
        "sysctls": [{"name": SOMAXCONN, "value": value}],
        "rollout": {
            "type": "Waves", "maxFailed": 0, "minReadySeconds": 60, "nodeDeadlineSeconds": 60
        },
        "releasePolicy": "Restore"
    })
}
