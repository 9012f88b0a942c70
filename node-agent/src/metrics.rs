//! The agent's metrics. Labels are bounded: by the allow-list, by states and by a few words.

use std::sync::atomic::{AtomicI64, AtomicU64};

use nettune_crds::KeyState;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::key_report::KeyReport;
use crate::tables::Tables;

/// All of them; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    sysctls: Family<StateLabel, Gauge<i64, AtomicI64>>,
    drifts: Family<KeyLabel, Counter<u64, AtomicU64>>,
    writes: Family<ResultLabel, Counter<u64, AtomicU64>>,
    saves: Family<ResultLabel, Counter<u64, AtomicU64>>,
    status_patches: Family<ResultLabel, Counter<u64, AtomicU64>>,
    api_reachable: Gauge<i64, AtomicI64>,
    entries: Family<TableLabel, Gauge<i64, AtomicI64>>,
    peak: Family<TableLabel, Gauge<i64, AtomicI64>>,
    limit: Family<TableLabel, Gauge<i64, AtomicI64>>,
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
struct TableLabel {
    table: &'static str,
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
    /// Registers them.
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
            "How often somebody else changed a sysctl",
            metrics.drifts.clone(),
        );
        registry.register("agent_writes", "Writes of sysctls", metrics.writes.clone());
        registry.register(
            "agent_state_saves",
            "Times that the state was saved to disk",
            metrics.saves.clone(),
        );
        registry.register(
            "agent_status_patches",
            "Writes of the profile's status",
            metrics.status_patches.clone(),
        );
        registry.register(
            "agent_api_reachable",
            "Whether the last request to the API server went through",
            metrics.api_reachable.clone(),
        );
        registry.register(
            "table_entries",
            "Entries of a kernel table; of neighbours, also those that are not counted against its limit",
            metrics.entries.clone(),
        );
        registry.register(
            "table_peak_entries",
            "The most entries seen in a kernel table since the agent was started",
            metrics.peak.clone(),
        );
        registry.register(
            "table_limit_entries",
            "The most entries that a kernel table may hold",
            metrics.limit.clone(),
        );
        metrics
    }

    /// Somebody else changed a sysctl.
    pub fn drift(&self, key: &str) {
        let label = KeyLabel {
            sysctl: key.to_owned(),
        };
        self.drifts.get_or_create(&label).inc();
    }

    /// A sysctl was written.
    pub fn write(&self, ok: bool) {
        self.writes.get_or_create(&result(ok)).inc();
    }

    /// The state was saved.
    pub fn save(&self, ok: bool) {
        self.saves.get_or_create(&result(ok)).inc();
    }

    /// The status was written.
    pub fn status_patch(&self, ok: bool) {
        self.status_patches.get_or_create(&result(ok)).inc();
    }

    /// Whether the API server answered.
    pub fn api_reachable(&self, reachable: bool) {
        self.api_reachable.set(reachable.into());
    }

    /// How the keys stand.
    pub fn keys(&self, keys: &[KeyReport]) {
        for (state, name) in STATES {
            let count = keys.iter().filter(|key| key.state == state).count();
            let gauge = self.sysctls.get_or_create(&StateLabel { state: name });
            gauge.set(count.try_into().unwrap_or(i64::MAX));
        }
    }

    /// How full the tables are.
    pub fn tables(&self, tables: &Tables) {
        let number = |entries: u64| entries.try_into().unwrap_or(i64::MAX);
        for (table, fill) in tables.fills() {
            let label = TableLabel { table };
            self.entries.get_or_create(&label).set(number(fill.entries));
            self.peak.get_or_create(&label).set(number(fill.peak));
            self.limit.get_or_create(&label).set(number(fill.limit));
        }
    }
}

fn result(ok: bool) -> ResultLabel {
    ResultLabel {
        result: if ok { "ok" } else { "failed" },
    }
}
