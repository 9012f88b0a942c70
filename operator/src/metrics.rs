//! The operator's metrics: bounded labels, per tuning and never per node.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use nettune_crds::NodesCount;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WriteResult {
    Ok,
    /// The object has changed since; decided again.
    Conflict,
    /// The API server has asked for a pause.
    Throttled,
    Failed,
}

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    /// A new profile.
    Create,
    /// Another spec.
    Update,
    /// Originals are asked back.
    Release,
    /// A profile goes.
    Delete,
    /// A tuning's status.
    Status,
    /// An agent is called unresponsive.
    MarkUnresponsive,
    /// A Node loses the startup taint.
    RemoveTaint,
}

impl EncodeLabelValue for WriteResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
        })
    }
}

impl EncodeLabelValue for Verb {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Release => "release",
            Self::Delete => "delete",
            Self::Status => "status",
            Self::MarkUnresponsive => "mark_unresponsive",
            Self::RemoveTaint => "remove_taint",
        })
    }
}

/// The nodes of a tuning that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum State {
    Selected,
    Ready,
    Drifted,
    Failed,
    Unresponsive,
    Releasing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: Verb,
    result: WriteResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: Verb,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodesLabels {
    tuning: String,
    state: State,
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

/// Handles to all of them; cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    writes: Family<WriteLabels, Counter>,
    write: Family<VerbLabels, Histogram>,
    queue: Gauge,
    in_flight: Gauge,
    /// 1 where this process holds the Lease, or is the only operator.
    pub(crate) leader: Gauge,
    /// Nodes in the world.
    pub(crate) nodes: Gauge,
    /// Tunings in the world.
    pub(crate) known_tunings: Gauge,
    tuning_nodes: Family<NodesLabels, Gauge>,
    rollout_stopped: Family<TuningLabels, Gauge>,
    under_pressure: Family<PressureLabels, Gauge>,
    decide: Histogram,
}

impl Metrics {
    /// Makes all of them and registers each.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            writes: Family::default(),
            // 5 ms, doubled eleven times: 10 s, after which it has failed.
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
            "Writes to the API, by what they do and how they ended",
            m.writes,
        );
        registry.register(
            "nettune_operator_write_duration_seconds",
            "Time from sending a write to its answer, whatever that was",
            m.write,
        );
        registry.register(
            "nettune_operator_writes_in_flight",
            "Writes that were sent and are not answered yet",
            m.in_flight,
        );
        registry.register(
            "nettune_operator_tuning_nodes",
            "Nodes of a tuning, by state; also of one that is gone while its nodes are released",
            m.tuning_nodes,
        );
        registry.register(
            "nettune_operator_rollout_stopped",
            "Whether too many nodes of a tuning failed, so that its rollout or the release of its nodes stopped",
            m.rollout_stopped,
        );
        registry.register(
            "nettune_operator_writes_queued",
            "Writes that are not started yet",
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
            m.known_tunings,
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

    pub(crate) fn written(&self, verb: Verb, result: WriteResult, took: Duration) {
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

    /// The nodes of each tuning, and whether it goes no further. Tunings that are gone are forgotten.
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
                (State::Selected, selected),
                (State::Ready, ready),
                (State::Drifted, drifted),
                (State::Failed, failed),
                (State::Unresponsive, unresponsive),
                (State::Releasing, releasing),
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
