//! The operator's metrics: bounded labels, per tuning and never per node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    Ok,
    /// The object had changed since; decided anew.
    Overtaken,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PressureLabels {
    tuning: String,
    condition: &'static str,
}

/// Handles to all of them; cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    writes: Family<WriteLabels, Counter>,
    /// Writes that wait for their turn.
    pub(crate) queue: Gauge,
    /// 1 where this process holds the Lease, or is the only operator.
    pub(crate) leader: Gauge,
    /// Nodes in the world.
    pub(crate) nodes: Gauge,
    /// Tunings in the world.
    pub(crate) tunings: Gauge,
    under_pressure: Family<PressureLabels, Gauge>,
    decide: Histogram,
}

impl Metrics {
    /// Makes all of them and registers each.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            writes: Family::default(),
            queue: Gauge::default(),
            leader: Gauge::default(),
            nodes: Gauge::default(),
            tunings: Gauge::default(),
            under_pressure: Family::default(),
            decide: Histogram::new(exponential_buckets(0.000_1, 4.0, 8)),
        };
        let m = metrics.clone();
        registry.register(
            "nettune_operator_writes",
            "Writes to the API, by outcome",
            m.writes,
        );
        registry.register(
            "nettune_operator_write_queue",
            "Writes that wait for their turn",
            m.queue,
        );
        registry.register(
            "nettune_operator_leader",
            "Whether this operator decides and writes (1), or stands by (0)",
            m.leader,
        );
        registry.register("nettune_operator_nodes", "Nodes that are known", m.nodes);
        registry.register(
            "nettune_operator_tunings",
            "Tunings that are known",
            m.tunings,
        );
        registry.register(
            "nettune_operator_nodes_under_pressure",
            "Nodes whose tables suffer, by tuning and condition",
            m.under_pressure,
        );
        registry.register(
            "nettune_operator_decide_duration_seconds",
            "Time that one decision over the whole cluster took",
            m.decide,
        );
        metrics
    }

    pub(crate) fn written(&self, outcome: Outcome) {
        self.writes.get_or_create(&WriteLabels { outcome }).inc();
    }

    /// Tunings that are gone are forgotten.
    pub(crate) fn under_pressure(&self, counts: &BTreeMap<(Arc<str>, &'static str), i64>) {
        self.under_pressure.clear();
        for ((tuning, condition), count) in counts {
            let labels = PressureLabels {
                tuning: tuning.to_string(),
                condition,
            };
            self.under_pressure.get_or_create(&labels).set(*count);
        }
    }

    pub(crate) fn decided(&self, took: Duration) {
        self.decide.observe(took.as_secs_f64());
    }
}
