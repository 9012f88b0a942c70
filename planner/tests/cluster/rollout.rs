//! A tuning with one fixed value, and nodes that hold it.

use nettune_crds::NodeNetworkProfileSpec;
use serde_json::{Value, json};

use super::Cluster;
use super::timeline::{Effect, Timeline, holds};

pub(crate) const SOMAXCONN: &str = "net.core.somaxconn";

pub(crate) fn fine(_: &str, _: &NodeNetworkProfileSpec) -> Effect {
    Effect::Fine
}

/// The effect of holding 2; all else is fine.
pub(crate) fn at_two(effect: Effect) -> impl Fn(&str, &NodeNetworkProfileSpec) -> Effect {
    move |_, spec| {
        if holds(spec, SOMAXCONN, "2") {
            effect
        } else {
            Effect::Fine
        }
    }
}

/// A tuning with a fixed value, and this rollout.
pub(crate) fn fixed(value: u32, rollout: Value) -> Value {
    json!({"sysctls": [{"name": SOMAXCONN, "value": value.to_string()}], "rollout": rollout})
}

/// Ready nodes that all hold 1, and no rollout under way.
pub(crate) fn settled<E>(count: usize, effect: E) -> Timeline<E>
where
    E: Fn(&str, &NodeNetworkProfileSpec) -> Effect,
{
    let mut cluster = Cluster::with_ready_nodes(count);
    cluster.apply_tuning("default", fixed(1, json!({"type": "AllAtOnce"})));
    let mut timeline = Timeline::new(cluster, effect);
    timeline.step(10);
    assert_eq!(timeline.holding(SOMAXCONN, "1"), count);
    timeline
}

/// Another value, by the rollout that is the default.
pub(crate) fn want<E>(timeline: &mut Timeline<E>, value: u32) {
    let tuning = fixed(value, json!({}));
    timeline.cluster.apply_tuning("default", tuning);
}

/// Status, reason and message of a condition of the tuning.
pub(crate) fn condition(cluster: &Cluster, type_: &str) -> (String, String, String) {
    let conditions = &cluster.status("default").conditions;
    let found = nettune_crds::conditions::find(conditions, type_).expect(type_);
    (
        found.status.clone(),
        found.reason.clone(),
        found.message.clone(),
    )
}
