//! The pressure conditions of the kernel's tables, derived from its counters.
//!
//! Pure: it takes counters and the time, and says what is wrong, why, and what to do. A finding is
//! reported at once and withdrawn after [`QUIET`] without another sign. Messages contain no number that
//! changes, so that the status is not written every second.

use std::time::Duration;

use nettune_crds::conditions::reasons;
use nettune_sizing::Mono;

use crate::pressure::counters::{ConntrackCounters, NeighborCounters, Reading};
use nettune_reconcile::observed::OverflowCounters;

/// A finding stays this long after its last sign, so that bursts are one finding.
pub const QUIET: Duration = Duration::from_secs(600);

/// Counters are compared over at least this long: they are read one CPU after the other, and related
/// events are counted on several.
const INTERVAL: Duration = Duration::from_secs(1);

/// If the node has an eBPF data path and the table never held more than this, pods' connections bypass
/// it: the host itself (kubelet, health checks) has some hundreds.
const HOST_CONNECTIONS: u64 = 1024;

/// What the conditions depend on besides the counters.
#[derive(Debug, Clone, Copy, Default)]
pub struct PressureInputs<'a> {
    /// `nf_conntrack_max`; 0 is unlimited.
    pub conntrack_max: Option<u64>,
    /// A device of an eBPF data path, if there is one.
    pub ebpf: Option<&'a str>,
    /// What Flannel's devices lack, in a sentence; `None` if nothing.
    pub flannel: Option<&'a str>,
}

/// One of the conditions `NeighborPressure` and `ConntrackPressure`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PressureCondition {
    /// Whether there is pressure; `None` if unknown.
    pub status: Option<bool>,
    pub reason: &'static str,
    /// Cause and fix.
    pub message: String,
}

/// What is remembered of the tables' problems.
#[derive(Debug, Default)]
pub struct PressureTracker {
    evaluated: Option<(Reading, Mono)>,
    ipv4: NeighborSigns,
    ipv6: NeighborSigns,
    conntrack: ConntrackSigns,
    totals: PressureTotals,
    chains_too_long: bool,
}

/// Sums that the kernel does not count, since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PressureTotals {
    /// Seconds in which the conntrack table was full.
    pub full_seconds: u64,
    /// Insertions into it that lost a race against another packet of the same connection.
    pub races: u64,
    /// The most connections seen.
    pub most_connections: u64,
}

#[derive(Debug, Default)]
struct NeighborSigns {
    overflow: Sign,
    garbage: Sign,
}

#[derive(Debug, Default)]
struct ConntrackSigns {
    full: Sign,
    chains: Sign,
    race: Sign,
}

/// When a sign was last seen.
#[derive(Debug, Clone, Copy, Default)]
struct Sign(Option<Mono>);

impl Sign {
    fn note(&mut self, seen: bool, now: Mono) {
        if seen {
            self.0 = Some(now);
        }
    }

    fn lasts(self, now: Mono) -> bool {
        self.0.is_some_and(|seen| now.since(seen) < QUIET)
    }
}

impl PressureTracker {
    /// Evaluates the counters, at most once a second.
    pub fn observe(&mut self, reading: &Reading, inputs: PressureInputs<'_>, now: Mono) {
        let most = &mut self.totals.most_connections;
        *most = reading.conntrack.count.unwrap_or(0).max(*most);
        let Some((last, at)) = self.evaluated else {
            self.evaluated = Some((*reading, now));
            return;
        };
        if now.since(at) < INTERVAL {
            return;
        }
        self.ipv4.observe(&last.ipv4, &reading.ipv4, now);
        self.ipv6.observe(&last.ipv6, &reading.ipv6, now);
        let did = Did::between(&last.conntrack, &reading.conntrack, inputs.conntrack_max);
        self.conntrack.full.note(did.full, now);
        self.conntrack.chains.note(did.chains_too_long, now);
        self.conntrack.race.note(did.races > 0, now);
        self.totals.full_seconds += u64::from(did.full);
        self.totals.races = self.totals.races.saturating_add(did.races);
        self.chains_too_long = did.chains_too_long;
        self.evaluated = Some((*reading, now));
    }

    /// The overflows that the agent answers by raising limits.
    #[must_use]
    pub fn overflows(&self) -> OverflowCounters {
        let overflows = |counters: fn(&Reading) -> NeighborCounters| {
            let evaluated = self.evaluated.as_ref();
            evaluated.map_or(0, |(reading, _)| counters(reading).table_fulls.unwrap_or(0))
        };
        OverflowCounters {
            neighbors_ipv4_overflows: overflows(|reading| reading.ipv4),
            neighbors_ipv6_overflows: overflows(|reading| reading.ipv6),
            conntrack_full: self.totals.full_seconds,
            chains_too_long: self.chains_too_long,
        }
    }

    /// Sums for the metrics.
    #[must_use]
    pub(crate) const fn totals(&self) -> PressureTotals {
        self.totals
    }

    /// The condition `NeighborPressure`.
    #[must_use]
    pub fn neighbors(&self, inputs: PressureInputs<'_>, now: Mono) -> PressureCondition {
        let mut found = Found::default();
        let overflow = families(self.ipv4.overflow.lasts(now), self.ipv6.overflow.lasts(now));
        if let Some((families, tables)) = overflow {
            found.add(
                reasons::OVERFLOW,
                format!(
                    "{families} neighbor {tables} overflowed (gc_thresh3): hosts that were not in it were \
                     unreachable; size for more (neighbors.sizeForNodes or neighbors.thresholds in the \
                     tuning), and restart software that misses its entries, such as Flannel"
                ),
            );
        }
        if let Some(missing) = inputs.flannel {
            found.add(reasons::FLANNEL_ENTRIES_MISSING, missing.to_owned());
        }
        let garbage = families(self.ipv4.garbage.lasts(now), self.ipv6.garbage.lasts(now));
        if let Some((families, tables)) = garbage {
            found.add(
                reasons::GARBAGE_COLLECTION,
                format!(
                    "new entries of {families} neighbor {tables} wait for garbage collection: more entries \
                     are in use than gc_thresh2; size for more (neighbors.sizeForNodes or \
                     neighbors.thresholds in the tuning)"
                ),
            );
        }
        let reading = self
            .evaluated
            .map(|(reading, _)| reading)
            .unwrap_or_default();
        let tells = |family: NeighborCounters| {
            family.table_fulls.is_some() && family.forced_gc_runs.is_some()
        };
        found.or_else(|| match (tells(reading.ipv4), tells(reading.ipv6)) {
            (true, _) | (_, true) => PressureCondition {
                status: Some(false),
                reason: reasons::NO_PRESSURE,
                message: String::new(),
            },
            _ => PressureCondition {
                status: None,
                reason: reasons::METRICS_UNAVAILABLE,
                message: "cannot read the neighbor tables' counters in /proc/net/stat/arp_cache, which only the \
                          initial network namespace has"
                    .to_owned(),
            },
        })
    }

    /// The condition `ConntrackPressure`.
    #[must_use]
    pub fn conntrack(&self, inputs: PressureInputs<'_>, now: Mono) -> PressureCondition {
        let mut found = Found::default();
        if self.conntrack.full.lasts(now) {
            found.add(
                reasons::TABLE_FULL,
                "the conntrack table was full (nf_conntrack_max): new connections were dropped, or others \
                 were evicted for them; raise conntrack.connectionsPerPod or conntrack.maxEntries in the \
                 tuning, or find out what opens so many (conntrack -L)"
                    .to_owned(),
            );
        }
        if self.conntrack.chains.lasts(now) {
            found.add(
                reasons::CHAINS_TOO_LONG,
                "new connections were dropped because the conntrack table's hash chains are too long: it has \
                 too few buckets for nf_conntrack_max; set nf_conntrack_buckets to the same number, which \
                 a tuning with a conntrack block does at once"
                    .to_owned(),
            );
        }
        let counters = self.evaluated.map(|(reading, _)| reading.conntrack);
        let counters = counters.unwrap_or_default();
        if self.conntrack.race.lasts(now) {
            let (reason, sentence) = race(&counters);
            found.add(reason, sentence.to_owned());
        }
        found.or_else(|| self.calm(&counters, inputs))
    }

    /// The condition if nothing was found.
    fn calm(&self, counters: &ConntrackCounters, inputs: PressureInputs<'_>) -> PressureCondition {
        let finding = |status, reason, message: &str| PressureCondition {
            status,
            reason,
            message: message.to_owned(),
        };
        let full = counters.drop.is_some() && counters.early_drop.is_some();
        if counters.count.is_none() {
            let message = "module nf_conntrack is not loaded; no connections are tracked";
            return finding(Some(false), reasons::NOT_LOADED, message);
        }
        if let Some(device) = inputs.ebpf
            && self.totals.most_connections < HOST_CONNECTIONS
        {
            let message = format!(
                "this node has an eBPF data path ({device}): pods' connections bypass the kernel's conntrack \
                 table; see the data path's own metrics for how full its maps are"
            );
            return finding(None, reasons::NOT_IN_PATH, &message);
        }
        if !full || counters.insert_failed.is_none() {
            let message = "cannot read the table's counters in /proc/net/stat/nf_conntrack";
            return finding(None, reasons::METRICS_UNAVAILABLE, message);
        }
        if counters.chainlength.is_none() {
            let message = "too long hash chains cannot be detected: kernels before 5.15 have no chainlength \
                           in /proc/net/stat/nf_conntrack";
            return finding(Some(false), reasons::CHAIN_LENGTH_UNAVAILABLE, message);
        }
        finding(Some(false), reasons::NO_PRESSURE, "")
    }
}

impl NeighborSigns {
    fn observe(&mut self, last: &NeighborCounters, counters: &NeighborCounters, now: Mono) {
        let overflowed = grown(last.table_fulls, counters.table_fulls) > 0;
        let collected = grown(last.forced_gc_runs, counters.forced_gc_runs) > 0;
        self.overflow.note(overflowed, now);
        self.garbage.note(collected, now);
    }
}

/// What happened to the conntrack table between two reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Did {
    full: bool,
    chains_too_long: bool,
    races: u64,
}

impl Did {
    fn between(last: &ConntrackCounters, now: &ConntrackCounters, max: Option<u64>) -> Self {
        let grown = |of: fn(&ConntrackCounters) -> Option<u64>| grown(of(last), of(now));
        let chains = grown(|counters| counters.chainlength);
        let drops = grown(|counters| counters.drop);
        // Insertions fail for both reasons, and packets are dropped because of a race or a full table
        // (nf_conntrack_core.c, __nf_conntrack_confirm and nf_ct_resolve_clash).
        let races = grown(|counters| counters.insert_failed).saturating_sub(chains);
        let races = if drops >= races { races } else { 0 };
        // 0.95 · max, in whole numbers.
        let nearly_full = now
            .count
            .zip(max)
            .is_some_and(|(count, max)| max > 0 && u128::from(count) * 100 >= u128::from(max) * 95);
        Self {
            full: grown(|counters| counters.early_drop) > 0 || (drops > races && nearly_full),
            chains_too_long: chains > 0,
            races,
        }
    }
}

/// Reason, cause and fix of packets that lost a race.
///
/// Two lookups of one DNS query have the same first tuple. From 5.7 on (6a757c07e51f "netfilter: conntrack: allow
/// insertion of clashing entries") both go on, whatever NAT did to each, and kernels that count this are newer. There,
/// only a reply tuple that was taken meanwhile can be lost: the source port of SNAT.
fn race(counters: &ConntrackCounters) -> (&'static str, &'static str) {
    match counters.clashes_resolved {
        Some(_) => (
            reasons::SOURCE_PORT_RACE,
            "packets were dropped because SNAT gave two new connections to the same destination the same \
             source port at once; fix it with --random-fully in the masquerading rule (randomize in \
             nftables) or with more addresses to masquerade with; a larger table does not help",
        ),
        None => (
            reasons::INSERTION_RACE,
            "packets were dropped because two of them claimed the same conntrack entry at once; this kernel \
             does not say which: for DNS lookups over UDP, use a node-local DNS cache or the resolver \
             option single-request-reopen; for SNAT, use --random-fully in the masquerading rule; a \
             larger table does not help",
        ),
    }
}

fn grown(last: Option<u64>, now: Option<u64>) -> u64 {
    last.zip(now)
        .map_or(0, |(last, now)| now.saturating_sub(last))
}

fn families(ipv4: bool, ipv6: bool) -> Option<(&'static str, &'static str)> {
    match (ipv4, ipv6) {
        (true, true) => Some(("the IPv4 and IPv6", "tables")),
        (true, false) => Some(("the IPv4", "table")),
        (false, true) => Some(("the IPv6", "table")),
        (false, false) => None,
    }
}

/// The findings, worst first: the first is the reason, all of them are the message.
#[derive(Default)]
struct Found(Vec<(&'static str, String)>);

impl Found {
    fn add(&mut self, reason: &'static str, sentence: String) {
        self.0.push((reason, sentence));
    }

    fn or_else(self, calm: impl FnOnce() -> PressureCondition) -> PressureCondition {
        let Some((reason, _)) = self.0.first() else {
            return calm();
        };
        let reason = *reason;
        let sentences: Vec<String> = self.0.into_iter().map(|(_, sentence)| sentence).collect();
        PressureCondition {
            status: Some(true),
            reason,
            message: sentences.join(". "),
        }
    }
}
