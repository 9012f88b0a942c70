//! What is found on the tables by what their counters did.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail them")]

use std::time::Duration;

use nettune_agent::pressure::conditions::{
    PressureCondition, PressureInputs, PressureTracker, QUIET,
};
use nettune_agent::pressure::counters::{ConntrackCounters, NeighborCounters, Reading};
use nettune_crds::conditions::reasons;
use nettune_sizing::Mono;

const MAX: u64 = 1000;

/// A node whose counters rise as a test says.
struct Node {
    pressure: PressureTracker,
    reading: Reading,
    now: Mono,
}

/// How much conntrack's counters rise in a second: insert_failed, chainlength, drop, early_drop.
type Rise = [u64; 4];

impl Node {
    fn new() -> Self {
        let neighbors = NeighborCounters {
            entries: Some(10),
            forced_gc_runs: Some(0),
            table_fulls: Some(0),
        };
        let conntrack = ConntrackCounters {
            count: Some(10),
            insert_failed: Some(0),
            chainlength: Some(0),
            drop: Some(0),
            early_drop: Some(0),
            clashes_resolved: Some(0),
        };
        let reading = Reading {
            ipv4: neighbors,
            ipv6: neighbors,
            conntrack,
        };
        Self::showing(reading)
    }

    fn showing(reading: Reading) -> Self {
        let mut node = Self {
            pressure: PressureTracker::default(),
            reading,
            now: Mono::default(),
        };
        node.after(Duration::ZERO);
        node
    }

    fn after(&mut self, wait: Duration) {
        self.now = self.now.after(wait);
        let around = PressureInputs {
            conntrack_max: Some(MAX),
            ..PressureInputs::default()
        };
        self.pressure.observe(&self.reading, around, self.now);
    }

    fn second(&mut self) {
        self.after(Duration::from_secs(1));
    }

    fn conntrack(&mut self, count: u64, [insert_failed, chainlength, drop, early_drop]: Rise) {
        let counters = &mut self.reading.conntrack;
        counters.count = Some(count);
        for (counter, rise) in [
            (&mut counters.insert_failed, insert_failed),
            (&mut counters.chainlength, chainlength),
            (&mut counters.drop, drop),
            (&mut counters.early_drop, early_drop),
        ] {
            *counter = counter.map(|counter| counter + rise);
        }
        self.second();
    }

    fn neighbors(&self) -> PressureCondition {
        self.pressure.neighbors(PressureInputs::default(), self.now)
    }

    fn of_conntrack(&self) -> PressureCondition {
        self.pressure.conntrack(PressureInputs::default(), self.now)
    }
}

#[test]
fn conntrack_findings_follow_the_kernels_counters() {
    use reasons::{CHAINS_TOO_LONG, NO_PRESSURE, SOURCE_PORT_RACE, TABLE_FULL};
    let cases: [(&str, u64, Rise, &str); 10] = [
        ("nothing", 10, [0, 0, 0, 0], NO_PRESSURE),
        ("a full table of UDP", 900, [0, 0, 0, 21_808], TABLE_FULL),
        ("a full table of TCP", 1000, [0, 0, 500, 0], TABLE_FULL),
        ("at 95 %", 950, [0, 0, 500, 0], TABLE_FULL),
        ("drops below 95 %", 949, [0, 0, 500, 0], NO_PRESSURE),
        (
            "chains at 15 % use",
            150,
            [21_501, 21_501, 0, 0],
            CHAINS_TOO_LONG,
        ),
        ("a clash", 10, [3, 0, 3, 0], SOURCE_PORT_RACE),
        ("failures without drops", 10, [3, 0, 2, 0], NO_PRESSURE),
        ("a clash beside chains", 10, [5, 2, 3, 0], CHAINS_TOO_LONG),
        (
            "a clash in a table that is nearly full",
            990,
            [3, 0, 3, 0],
            SOURCE_PORT_RACE,
        ),
    ];
    for (what, count, rise, reason) in cases {
        let mut node = Node::new();
        node.conntrack(count, rise);
        let found = node.of_conntrack();
        assert_eq!(
            (found.reason, found.status),
            (reason, Some(reason != NO_PRESSURE)),
            "{what}"
        );
    }
}

#[test]
fn worst_finding_is_the_reason_and_all_are_in_the_message() {
    let mut node = Node::new();
    node.conntrack(1000, [10, 4, 9, 1]);
    let found = node.of_conntrack();
    assert_eq!(found.reason, reasons::TABLE_FULL);
    for part in ["nf_conntrack_max", "nf_conntrack_buckets", "--random-fully"] {
        assert!(found.message.contains(part), "{part}: {}", found.message);
    }
    assert!(found.message.chars().count() < 1024);
}

#[test]
fn dns_race_is_named_only_on_kernels_that_can_lose_it() {
    for (resolved, reason, dns) in [
        (Some(7), reasons::SOURCE_PORT_RACE, false),
        (None, reasons::INSERTION_RACE, true),
    ] {
        let mut reading = Node::new().reading;
        reading.conntrack.clashes_resolved = resolved;
        let mut node = Node::showing(reading);
        node.reading.conntrack.clashes_resolved = resolved.map(|sum| sum + 5);
        node.conntrack(10, [0; 4]);
        assert_eq!(node.of_conntrack().status, Some(false), "nothing was lost");
        node.conntrack(10, [3, 0, 3, 0]);
        let found = node.of_conntrack();
        assert_eq!(found.reason, reason);
        assert_eq!(found.message.contains("DNS"), dns, "{}", found.message);
        assert!(
            found.message.contains("--random-fully"),
            "{}",
            found.message
        );
    }
}

#[test]
fn family_is_named_and_overflow_outranks_garbage_collection() {
    let mut node = Node::new();
    node.reading.ipv6.forced_gc_runs = Some(4);
    node.second();
    let found = node.neighbors();
    assert_eq!(
        (found.status, found.reason),
        (Some(true), reasons::GARBAGE_COLLECTION)
    );
    assert!(
        found.message.contains("the IPv6 neighbor table"),
        "{}",
        found.message
    );
    node.reading.ipv4.table_fulls = Some(1);
    node.second();
    let found = node.neighbors();
    assert_eq!(
        (found.status, found.reason),
        (Some(true), reasons::OVERFLOW)
    );
    assert!(
        found
            .message
            .starts_with("the IPv4 neighbor table overflowed")
    );
    assert!(found.message.contains("garbage collection"));
}

#[test]
fn finding_is_reported_at_once_and_withdrawn_after_a_quiet_time() {
    let mut node = Node::new();
    node.reading.ipv4.table_fulls = Some(1);
    node.second();
    let found = node.neighbors();
    node.after(QUIET - Duration::from_secs(1));
    assert_eq!(
        node.neighbors(),
        found,
        "it says the same as long as it lasts"
    );
    node.reading.ipv4.table_fulls = Some(2);
    node.second();
    node.after(QUIET - Duration::from_secs(1));
    assert_eq!(node.neighbors(), found, "another one restarts the time");
    node.second();
    assert_eq!(node.neighbors().reason, reasons::NO_PRESSURE);
}

#[test]
fn counts_before_the_first_read_are_not_pressure() {
    let mut reading = Node::new().reading;
    reading.ipv4.table_fulls = Some(7);
    reading.conntrack.early_drop = Some(7);
    let mut node = Node::showing(reading);
    node.second();
    assert_eq!(node.neighbors().status, Some(false));
    assert_eq!(node.of_conntrack().status, Some(false));
}

#[test]
fn less_than_a_second_is_not_evaluated() {
    let mut node = Node::new();
    node.reading.conntrack.early_drop = Some(1);
    node.after(Duration::from_millis(999));
    assert_eq!(node.of_conntrack().status, Some(false));
    node.after(Duration::from_millis(1));
    assert_eq!(node.of_conntrack().status, Some(true));
}

#[test]
fn missing_counters_are_not_reported_as_healthy() {
    let nothing = Node::showing(Reading::default());
    assert_eq!(
        (nothing.neighbors().status, nothing.neighbors().reason),
        (None, reasons::METRICS_UNAVAILABLE)
    );
    assert_eq!(nothing.of_conntrack().reason, reasons::NOT_LOADED);

    let mut reading = Node::new().reading;
    reading.conntrack.chainlength = None;
    reading.conntrack.clashes_resolved = None;
    let mut old = Node::showing(reading);
    assert_eq!(old.of_conntrack().reason, reasons::CHAIN_LENGTH_UNAVAILABLE);
    old.conntrack(10, [3, 0, 3, 0]);
    assert_eq!(old.of_conntrack().reason, reasons::INSERTION_RACE);

    reading.conntrack = ConntrackCounters {
        count: Some(10),
        ..ConntrackCounters::default()
    };
    let found = Node::showing(reading).of_conntrack();
    assert_eq!(
        (found.status, found.reason),
        (None, reasons::METRICS_UNAVAILABLE)
    );
}

#[test]
fn bypassed_table_is_not_reported_as_healthy() {
    let around = PressureInputs {
        ebpf: Some("cilium_host"),
        ..PressureInputs::default()
    };
    let mut node = Node::new();
    let found = node.pressure.conntrack(around, node.now);
    assert_eq!((found.status, found.reason), (None, reasons::NOT_IN_PATH));
    assert!(found.message.contains("cilium_host"));
    // What happens to it is still reported.
    node.conntrack(10, [0, 0, 0, 1]);
    assert_eq!(
        node.pressure.conntrack(around, node.now).reason,
        reasons::TABLE_FULL
    );
    // A table that is used is in the path, also while it is empty for a while.
    let mut used = Node::new();
    used.conntrack(5000, [0; 4]);
    used.conntrack(0, [0; 4]);
    assert_eq!(
        used.pressure.conntrack(around, used.now).reason,
        reasons::NO_PRESSURE
    );
}

#[test]
fn overflows_are_counted_for_the_reconciler() {
    let mut node = Node::new();
    node.reading.ipv6.table_fulls = Some(5);
    node.conntrack(1000, [2, 2, 3, 0]);
    let overflows = node.pressure.overflows();
    assert_eq!(
        (
            overflows.neighbors_ipv4_overflows,
            overflows.neighbors_ipv6_overflows
        ),
        (0, 5)
    );
    assert_eq!(
        (overflows.conntrack_full, overflows.chains_too_long),
        (1, true)
    );
    node.conntrack(1000, [0, 0, 1, 0]);
    let overflows = node.pressure.overflows();
    assert_eq!(
        (overflows.conntrack_full, overflows.chains_too_long),
        (2, false)
    );
}
