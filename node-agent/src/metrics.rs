//! The agent's metrics. All labels are bounded.

use std::sync::atomic::{AtomicI64, AtomicU64};

use nettune_crds::KeyState;
use nettune_crds::conditions::{CONNTRACK_PRESSURE, NEIGHBOR_PRESSURE};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::pressure::counters::NeighborCounters;
use crate::pressure::flannel::{Entry, Flannel};
use crate::pressure::monitor::{TableConditions, TableMonitor};
use crate::pressure::utilization::Utilization;
use nettune_reconcile::outcome::KeyReport;

/// Clones share the same metrics.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    sysctls: Family<StateLabel, Gauge<i64, AtomicI64>>,
    drifts: Family<KeyLabel, Counter<u64, AtomicU64>>,
    writes: Family<ResultLabel, Counter<u64, AtomicU64>>,
    saves: Family<ResultLabel, Counter<u64, AtomicU64>>,
    status_patches: Family<ResultLabel, Counter<u64, AtomicU64>>,
    api_reachable: Gauge<i64, AtomicI64>,
    change_detection: Family<ModeLabel, Gauge<i64, AtomicI64>>,
    entries: Family<TableLabel, Gauge<i64, AtomicI64>>,
    peak: Family<TableLabel, Gauge<i64, AtomicI64>>,
    counted: Family<TableLabel, Gauge<i64, AtomicI64>>,
    limit: Family<TableLabel, Gauge<i64, AtomicI64>>,
    pressure: Family<PressureLabel, Gauge<i64, AtomicI64>>,
    overflows: Family<FamilyLabel, Counter<u64, AtomicU64>>,
    forced_gc_runs: Family<FamilyLabel, Counter<u64, AtomicU64>>,
    flannel_routes: Gauge<i64, AtomicI64>,
    flannel_missing: Family<EntryLabel, Gauge<i64, AtomicI64>>,
    conntrack_full: Counter<u64, AtomicU64>,
    conntrack_races: Counter<u64, AtomicU64>,
    conntrack_clashes_resolved: Counter<u64, AtomicU64>,
    conntrack_long_chains: Counter<u64, AtomicU64>,
    conntrack_insertions_failed: Counter<u64, AtomicU64>,
    conntrack_drops: Counter<u64, AtomicU64>,
    conntrack_early_drops: Counter<u64, AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabel {
    sysctl: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModeLabel {
    mode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabel {
    table: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabel {
    family: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EntryLabel {
    entry: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PressureLabel {
    condition: &'static str,
    reason: &'static str,
}

const STATES: [(KeyState, &str); 6] = [
    (KeyState::Applied, "Applied"),
    (KeyState::Waiting, "Waiting"),
    (KeyState::NotApplicable, "NotApplicable"),
    (KeyState::Drifted, "Drifted"),
    (KeyState::Contested, "Contested"),
    (KeyState::Failed, "Failed"),
];

impl Metrics {
    /// Registers all but those of [`register_api`](Self::register_api).
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("nettune");
        registry.register(
            "agent_sysctls",
            "Managed sysctls in each state",
            metrics.sysctls.clone(),
        );
        registry.register(
            "agent_drifts",
            "Changes of a sysctl by another process",
            metrics.drifts.clone(),
        );
        registry.register("agent_writes", "Writes of sysctls", metrics.writes.clone());
        registry.register(
            "agent_state_saves",
            "Saves of the state to disk",
            metrics.saves.clone(),
        );
        registry.register(
            "agent_change_detection",
            "How changes by other processes are noticed: inotify (at once) or polling (within 100 ms)",
            metrics.change_detection.clone(),
        );
        registry.register(
            "table_entries",
            "Entries of a kernel table, including neighbors that do not count against its limit",
            metrics.entries.clone(),
        );
        registry.register(
            "table_peak_entries",
            "Most entries seen in a kernel table since the agent started",
            metrics.peak.clone(),
        );
        registry.register(
            "table_counted_entries",
            "Entries of a kernel table that count against its limit, if known",
            metrics.counted.clone(),
        );
        registry.register(
            "table_limit_entries",
            "Limit of a kernel table",
            metrics.limit.clone(),
        );
        metrics.register_pressure(registry);
        metrics
    }

    /// Registers those of the connection to the API server.
    pub fn register_api(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("nettune");
        registry.register(
            "agent_status_patches",
            "Writes of the profile's status",
            self.status_patches.clone(),
        );
        registry.register(
            "agent_api_reachable",
            "Whether the API server answers: the last request succeeded, or the watch brings events",
            self.api_reachable.clone(),
        );
    }

    fn register_pressure(&self, registry: &mut Registry) {
        registry.register(
            "pressure",
            "1 for the present reason of the condition NeighborPressure or ConntrackPressure",
            self.pressure.clone(),
        );
        registry.register(
            "neighbor_overflows",
            "Insertions that found the neighbor table full (table_fulls)",
            self.overflows.clone(),
        );
        registry.register(
            "neighbor_forced_gc_runs",
            "Insertions into the neighbor table that had to wait for garbage collection",
            self.forced_gc_runs.clone(),
        );
        registry.register(
            "flannel_routes",
            "Routes to other nodes' pods over Flannel's VXLAN devices",
            self.flannel_routes.clone(),
        );
        registry.register(
            "flannel_missing_entries",
            "Missing neighbor and forwarding entries of these routes",
            self.flannel_missing.clone(),
        );
        registry.register(
            "conntrack_full_seconds",
            "Seconds in which the conntrack table was full",
            self.conntrack_full.clone(),
        );
        registry.register(
            "conntrack_insertion_races",
            "Connections that lost a race for their place in the conntrack table",
            self.conntrack_races.clone(),
        );
        registry.register(
            "conntrack_clashes_resolved",
            "Connections that lost such a race without losing a packet, mostly DNS lookups (clashres)",
            self.conntrack_clashes_resolved.clone(),
        );
        registry.register(
            "conntrack_long_chains",
            "Connections that were not tracked because a hash chain was too long (chainlength)",
            self.conntrack_long_chains.clone(),
        );
        registry.register(
            "conntrack_insertions_failed",
            "Connections that were not tracked for any reason (insert_failed)",
            self.conntrack_insertions_failed.clone(),
        );
        registry.register(
            "conntrack_drops",
            "Packets that were dropped because their connection could not be tracked (drop)",
            self.conntrack_drops.clone(),
        );
        registry.register(
            "conntrack_early_drops",
            "Connections that were evicted for new ones because the table was full (early_drop)",
            self.conntrack_early_drops.clone(),
        );
    }

    /// Another process changed a sysctl.
    pub fn drift(&self, key: &str) {
        let label = KeyLabel {
            sysctl: key.to_owned(),
        };
        self.drifts.get_or_create(&label).inc();
    }

    pub fn write(&self, ok: bool) {
        self.writes.get_or_create(&result(ok)).inc();
    }

    pub fn save(&self, ok: bool) {
        self.saves.get_or_create(&result(ok)).inc();
    }

    pub(crate) fn status_patch(&self, ok: bool) {
        self.status_patches.get_or_create(&result(ok)).inc();
    }

    pub(crate) fn api_reachable(&self, reachable: bool) {
        self.api_reachable.set(reachable.into());
    }

    pub(crate) fn change_detection(&self, by_event: bool) {
        for (state, is_so) in [("inotify", by_event), ("polling", !by_event)] {
            let gauge = self
                .change_detection
                .get_or_create(&ModeLabel { mode: state });
            gauge.set(is_so.into());
        }
    }

    pub fn keys(&self, keys: &[KeyReport]) {
        for (state, name) in STATES {
            let managed = keys.iter().filter(|key| !key.dropped);
            let count = managed.filter(|key| key.state == state).count();
            let gauge = self.sysctls.get_or_create(&StateLabel { state: name });
            gauge.set(count.try_into().unwrap_or(i64::MAX));
        }
    }

    /// The tables' counters, conditions and usage.
    pub fn tables(&self, monitor: &TableMonitor, found: &TableConditions) {
        self.usage(monitor.utilization());
        // Only the present reasons are exported.
        self.pressure.clear();
        for (condition, finding) in [
            (NEIGHBOR_PRESSURE, &found.neighbors),
            (CONNTRACK_PRESSURE, &found.conntrack),
        ] {
            let reason = finding.reason;
            let label = PressureLabel { condition, reason };
            self.pressure.get_or_create(&label).set(1);
        }
        self.flannel(monitor.flannel());
        let reading = monitor.reading();
        for (family, counters) in [("ipv4", reading.ipv4), ("ipv6", reading.ipv6)] {
            let NeighborCounters {
                table_fulls,
                forced_gc_runs,
                ..
            } = counters;
            let label = FamilyLabel { family };
            raise(&self.overflows.get_or_create(&label), table_fulls);
            raise(&self.forced_gc_runs.get_or_create(&label), forced_gc_runs);
        }
        let (totals, conntrack) = (monitor.totals(), reading.conntrack);
        raise(&self.conntrack_full, Some(totals.full_seconds));
        raise(&self.conntrack_races, Some(totals.races));
        raise(&self.conntrack_clashes_resolved, conntrack.clashes_resolved);
        raise(&self.conntrack_long_chains, conntrack.chainlength);
        raise(&self.conntrack_insertions_failed, conntrack.insert_failed);
        raise(&self.conntrack_drops, conntrack.drop);
        raise(&self.conntrack_early_drops, conntrack.early_drop);
    }

    fn flannel(&self, flannel: &Flannel) {
        let number = |count: u64| count.try_into().unwrap_or(i64::MAX);
        self.flannel_routes.set(number(flannel.routes.unwrap_or(0)));
        for entry in [Entry::Neighbor, Entry::Forwarding] {
            let missing = flannel.missing.iter().filter(|one| one.entry == entry);
            let label = EntryLabel {
                entry: entry.name(),
            };
            let gauge = self.flannel_missing.get_or_create(&label);
            gauge.set(number(missing.count() as u64));
        }
    }

    fn usage(&self, tables: &Utilization) {
        let number = |entries: u64| entries.try_into().unwrap_or(i64::MAX);
        // A table that is gone, or a count that is no longer known, is not exported.
        for gauges in [&self.entries, &self.peak, &self.counted, &self.limit] {
            gauges.clear();
        }
        for (table, usage) in tables.usages() {
            let label = TableLabel { table };
            self.entries
                .get_or_create(&label)
                .set(number(usage.entries));
            self.peak.get_or_create(&label).set(number(usage.peak));
            self.limit.get_or_create(&label).set(number(usage.limit));
            if let Some(counted) = usage.counted {
                self.counted.get_or_create(&label).set(number(counted));
            }
        }
    }
}

/// Raises a counter to a sum, where it is known.
fn raise(counter: &Counter<u64, AtomicU64>, sum: Option<u64>) {
    counter.inc_by(sum.map_or(0, |sum| sum.saturating_sub(counter.get())));
}

fn result(ok: bool) -> ResultLabel {
    ResultLabel {
        result: if ok { "ok" } else { "failed" },
    }
}
