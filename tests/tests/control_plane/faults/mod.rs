//! Faults of a cluster of two operators and three agents, as they ship, on a real control plane.
//!
//! After each fault every kernel holds the right values, every condition says so, and no more was written than had to
//! be; what the conditions say during the fault is looked at where there is something to say.

use std::time::Duration;

use anyhow::ensure;
use nettune_tests::cluster::{DesiredValue, Sampler};

// It takes the longest, and tests begin in the order of the alphabet.
mod abrupt_ends;
mod api_server;
mod by_hand;
mod definitions;
mod pool;
mod refusals;
mod stale;
mod status_log;
mod writes;

use writes::Writes;

const SOON: Duration = Duration::from_secs(30);
/// Longer than the longest pause of a watch that keeps failing: an agent's, 30 s, made longer by chance.
const LONG: Duration = Duration::from_secs(90);
const TUNING: &str = "default";
const THRESH3: &str = "net.ipv4.neigh.default.gc_thresh3";
const SOMAXCONN: &str = "net.core.somaxconn";

/// Two sets of values that a tuning may ask for. Both are fixed, so that nothing has to last before it is lowered.
const SMALL: Sizes = Sizes {
    thresholds: ["1024", "4096", "8192"],
    somaxconn: "8192",
};
const LARGE: Sizes = Sizes {
    thresholds: ["2048", "8192", "16384"],
    somaxconn: "16384",
};

#[derive(Debug, Clone, Copy)]
struct Sizes {
    thresholds: [&'static str; 3],
    somaxconn: &'static str,
}

impl Sizes {
    fn values(&self) -> Vec<(&'static str, &'static str)> {
        let [first, second, third] = self.thresholds;
        vec![
            ("net.ipv4.neigh.default.gc_thresh1", first),
            ("net.ipv4.neigh.default.gc_thresh2", second),
            (THRESH3, third),
            ("net.ipv6.neigh.default.gc_thresh3", third),
            (SOMAXCONN, self.somaxconn),
        ]
    }

    /// A tuning of all nodes, with more fields of its spec.
    fn tuning(&self, more: &str) -> String {
        let Self {
            thresholds: [first, second, third],
            somaxconn,
        } = self;
        format!(
            "{{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {{name: {TUNING}}}, spec: {{
               neighbors: {{thresholds: {{gcThresh1: {first}, gcThresh2: {second}, gcThresh3: {third}}}}},
               conntrack: {{}}, sysctls: [{{name: {SOMAXCONN}, value: '{somaxconn}'}}], {more}}}}}"
        )
    }

    /// The same, all at once.
    fn at_once(&self) -> String {
        self.tuning("rollout: {type: AllAtOnce}")
    }
}

fn wanted<'a>(values: &'a [(&'a str, &'a str)]) -> DesiredValue<'a> {
    DesiredValue {
        tuning: TUNING,
        values,
    }
}

/// Fails if a node has held, even briefly, anything but SMALL's gc_thresh3 and somaxconn.
fn has_kept_small(values: &Sampler) -> anyhow::Result<()> {
    let moved = values.other_than(&[SMALL.somaxconn]);
    ensure!(moved.is_empty(), "{moved:?}");
    Ok(())
}
