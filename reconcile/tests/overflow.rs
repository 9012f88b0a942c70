//! Overflow raises: a table that was full gets twice the room at once.

mod model;

use std::time::Duration;

use model::{Agent, BUCKETS, Kernel, MAX, V4, V6, desired, exactly, written};
use nettune_crds::KeyState;
use nettune_reconcile::desired::Task;
use nettune_sizing::{DesiredValue, KernelVersion, SysctlKey};

fn both_families() -> Vec<(&'static SysctlKey, DesiredValue)> {
    let of = |family: [&'static SysctlKey; 3]| {
        [
            (family[0], exactly(0)),
            (family[1], DesiredValue::at_least(4096, 16_384)),
            (family[2], DesiredValue::at_least(8192, 32_768)),
        ]
    };
    of(V4).into_iter().chain(of(V6)).collect()
}

fn settled(wanted: &[(&SysctlKey, DesiredValue)]) -> (Agent, Kernel) {
    let (mut kernel, mut agent) = (Kernel::new(), Agent::new(desired(Task::Enforce, wanted)));
    agent.settle(&mut kernel);
    kernel.writes.clear();
    (agent, kernel)
}

#[test]
fn overflow_doubles_the_limit_of_its_family_in_safe_order() {
    let (mut agent, mut kernel) = settled(&both_families());
    kernel.overflows.neighbors_ipv4_overflows = 7;
    let settled = agent.settle(&mut kernel);
    assert_eq!(written(&kernel), ["gc_thresh3=16384", "gc_thresh2=8192"]);
    assert_eq!(kernel.thresholds(V6), [0, 4096, 8192]);
    let report = settled.key(V4[2]);
    assert_eq!((report.state, report.drift_count), (KeyState::Applied, 0));
    assert!(
        report.message.contains("raised to 16384"),
        "{}",
        report.message
    );
    agent.wait(Duration::from_secs(60));
    agent.settle(&mut kernel);
    assert_eq!(kernel.writes.len(), 2, "each is answered once");
}

#[test]
fn each_burst_doubles_once_up_to_the_ceiling() {
    let (mut agent, mut kernel) = settled(&both_families());
    for _ in 0..15 {
        kernel.overflows.neighbors_ipv4_overflows += 1;
        agent.settle(&mut kernel);
        agent.wait(Duration::from_millis(100));
    }
    assert_eq!(kernel.thresholds(V4), [0, 8192, 16_384]);
    for _ in 0..3 {
        agent.wait(Duration::from_secs(2));
        kernel.overflows.neighbors_ipv4_overflows += 1;
        agent.settle(&mut kernel);
    }
    assert_eq!(kernel.thresholds(V4), [0, 16_384, 32_768]);
    let settled = agent.settle(&mut kernel);
    let report = settled.key(V4[2]);
    assert!(
        report.message.contains("not raised further: 32768"),
        "{}",
        report.message
    );
}

#[test]
fn raise_survives_a_restart_until_the_profile_covers_it() {
    let (mut agent, mut kernel) = settled(&both_families());
    kernel.overflows.neighbors_ipv4_overflows = 1;
    agent.settle(&mut kernel);
    kernel.writes.clear();
    kernel.overflows.neighbors_ipv4_overflows = 0;
    let mut agent = Agent::resumed(agent.desired, agent.memory.persisted);
    agent.settle(&mut kernel);
    agent.turn_to(Task::Enforce, &both_families());
    agent.settle(&mut kernel);
    assert!(
        kernel.writes.is_empty(),
        "nor another version: {:?}",
        kernel.writes
    );
    let mut grown = both_families();
    grown[1].1 = DesiredValue::at_least(8192, 16_384);
    grown[2].1 = DesiredValue::at_least(16_384, 32_768);
    agent.turn_to(Task::Enforce, &grown);
    agent.settle(&mut kernel);
    assert!(agent.memory.persisted.overflow_raises.is_empty());
    agent.turn_to(Task::Enforce, &both_families());
    agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [0, 4096, 8192]);
}

#[test]
fn full_conntrack_table_gets_buckets_first() {
    let wanted = [
        (MAX, DesiredValue::at_least(131_072, 1_048_576)),
        (BUCKETS, DesiredValue::at_least(131_072, 1_048_576)),
    ];
    let (mut agent, mut kernel) = settled(&wanted);
    kernel.overflows.conntrack_full = 1;
    agent.settle(&mut kernel);
    let writes = ["nf_conntrack_buckets=262144", "nf_conntrack_max=262144"];
    assert_eq!(written(&kernel), writes);

    kernel.writes.clear();
    kernel.counts.conntrack = Some(250_000);
    kernel.overflows.conntrack_full = 9;
    agent.wait(Duration::from_secs(5));
    let busy = agent.settle(&mut kernel);
    assert_eq!(written(&kernel), ["nf_conntrack_max=524288"]);
    assert_eq!(busy.key(BUCKETS).state, KeyState::Waiting);
    kernel.overflows.chains_too_long = true;
    agent.settle(&mut kernel);
    assert_eq!(
        kernel.number(BUCKETS),
        Some(524_288),
        "not later, where chains fail"
    );
}

#[test]
fn long_chains_get_more_buckets_on_any_kernel() {
    let mut kernel = Kernel::new();
    kernel.machine.kernel = KernelVersion::parse("6.12.1").ok();
    let wanted = [
        (MAX, DesiredValue::at_least(262_144, 262_144)),
        (BUCKETS, DesiredValue::at_least(262_144, 262_144)),
    ];
    let mut agent = Agent::new(desired(Task::Enforce, &wanted));
    agent.settle(&mut kernel);
    assert_eq!(kernel.number(BUCKETS), Some(65_536));
    kernel.overflows.chains_too_long = true;
    agent.settle(&mut kernel);
    assert_eq!(kernel.number(BUCKETS), Some(262_144));
}

#[test]
fn exact_limits_and_passive_modes_are_not_raised() {
    let exact = [(V4[1], exactly(4096)), (V4[2], exactly(8192))];
    for (task, wanted) in [
        (Task::Enforce, exact.to_vec()),
        (Task::ApplyOnce, both_families()),
        (Task::Observe, both_families()),
    ] {
        let (mut kernel, mut agent) = (Kernel::new(), Agent::new(desired(task, &wanted)));
        agent.settle(&mut kernel);
        kernel.writes.clear();
        kernel.overflows.neighbors_ipv4_overflows = 1;
        agent.settle(&mut kernel);
        assert!(kernel.writes.is_empty(), "{task:?}");
    }
}

#[test]
fn release_reverts_overflow_raises() {
    let (mut agent, mut kernel) = settled(&both_families());
    kernel.overflows.neighbors_ipv6_overflows = 1;
    agent.settle(&mut kernel);
    agent.turn_to(Task::Release, &[]);
    agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V6), [128, 512, 1024]);
    assert!(agent.memory.persisted.overflow_raises.is_empty());
}

/// More would not help: another process keeps it low.
#[test]
fn limit_kept_low_by_another_process_is_not_raised() {
    let (mut agent, mut kernel) = settled(&both_families());
    kernel.set(V4[2], 1024);
    agent.settle(&mut kernel);
    kernel.set(V4[2], 1024);
    agent.settle(&mut kernel);
    kernel.overflows.neighbors_ipv4_overflows = 1;
    agent.settle(&mut kernel);
    agent.wait(Duration::from_secs(2));
    agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [0, 4096, 8192]);
}
