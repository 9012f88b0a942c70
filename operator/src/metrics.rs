//! The operator's metrics: bounded labels, per tuning and never per node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nettune_crds::NodesCount;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodesLabels {
    tuning: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TuningLabels {
    tuning: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PressureLabels {
    tuning: String,
    condition: &'static str,
}

/// Clones share the metrics.
#[derive(Clone)]
pub struct Metrics {
    writes: Family<WriteLabels, Counter>,
    write: Family<VerbLabels, Histogram>,
    queue: Gauge,
    in_flight: Gauge,
    pub(crate) leader: Gauge,
    pub(crate) nodes: Gauge,
    pub(crate) known_tunings: Gauge,
    tuning_nodes: Family<NodesLabels, Gauge>,
    rollout_stopped: Family<TuningLabels, Gauge>,
    under_pressure: Family<PressureLabels, Gauge>,
    decide: Histogram,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            writes: Family::default(),
            // From 5 ms to 10 s, the deadline of a write.
            write: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.005, 2.0, 12))
            }),
            queue: Gauge::default(),
            in_flight: Gauge::default(),
            leader: Gauge::default(),
            nodes: Gauge::default(),
            known_tunings: Gauge::default(),
            tuning_nodes: Family::default(),
            rollout_stopped: Family::default(),
            under_pressure: Family::default(),
            decide: Histogram::new(exponential_buckets(0.000_1, 4.0, 8)),
        };
        let m = metrics.clone();
        registry.register(
            "nettune_operator_writes",
            "Writes to the API server, by verb and result",
            m.writes,
        );
        registry.register(
            "nettune_operator_write_duration_seconds",
            "Time from sending a write to its answer",
            m.write,
        );
        registry.register(
            "nettune_operator_writes_in_flight",
            "Writes that wait for an answer",
            m.in_flight,
        );
        registry.register(
            "nettune_operator_tuning_nodes",
            "Nodes of a tuning, by state; also of a deleted tuning until its nodes are released",
            m.tuning_nodes,
        );
        registry.register(
            "nettune_operator_rollout_stopped",
            "Whether the rollout of a tuning, or the release of its nodes, stopped because too many nodes failed",
            m.rollout_stopped,
        );
        registry.register(
            "nettune_operator_writes_queued",
            "Writes that wait to be sent",
            m.queue,
        );
        registry.register(
            "nettune_operator_leader",
            "Whether this operator leads (1) or stands by (0)",
            m.leader,
        );
        registry.register("nettune_operator_nodes", "Nodes in the cluster", m.nodes);
        registry.register(
            "nettune_operator_tunings",
            "Tunings in the cluster",
            m.known_tunings,
        );
        registry.register(
            "nettune_operator_nodes_under_pressure",
            "Nodes whose tables are under pressure, by tuning and condition",
            m.under_pressure,
        );
        registry.register(
            "nettune_operator_decide_duration_seconds",
            "Time to decide for the whole cluster",
            m.decide,
        );
        metrics
    }

    pub(crate) fn written(&self, verb: &'static str, result: &'static str, took: Duration) {
        let labels = WriteLabels { verb, result };
        self.writes.get_or_create(&labels).inc();
        let labels = VerbLabels { verb };
        self.write
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    pub(crate) fn writing(&self, queue: usize, in_flight: usize) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.queue.set(number(queue));
        self.in_flight.set(number(in_flight));
    }

    /// Sets the node counts of each tuning, and whether it has stopped. Drops deleted tunings.
    pub(crate) fn tunings<'a>(&self, tunings: impl Iterator<Item = (&'a str, NodesCount, bool)>) {
        self.tuning_nodes.clear();
        self.rollout_stopped.clear();
        for (tuning, count, stopped) in tunings {
            let NodesCount {
                selected,
                ready,
                drifted,
                failed,
                unresponsive,
                releasing,
            } = count;
            for (state, nodes) in [
                ("Selected", selected),
                ("Ready", ready),
                ("Drifted", drifted),
                ("Failed", failed),
                ("Unresponsive", unresponsive),
                ("Releasing", releasing),
            ] {
                let tuning = tuning.to_owned();
                let labels = NodesLabels { tuning, state };
                self.tuning_nodes
                    .get_or_create(&labels)
                    .set(i64::from(nodes));
            }
            let tuning = tuning.to_owned();
            self.rollout_stopped
                .get_or_create(&TuningLabels { tuning })
                .set(stopped.into());
        }
    }

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
