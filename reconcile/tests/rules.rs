//! The rules that always hold, one by one, over a model of the kernel.

mod model;

use std::time::Duration;

use model::{
    Agent, BUCKETS, Kernel, MAX, V4, at_least, desired, exactly, key, text, thresholds, written,
};
use nettune_crds::KeyState;
use nettune_reconcile::desired::{DesiredState, Task};
use nettune_reconcile::effect::Effect;
use nettune_reconcile::observed::Content;
use nettune_sizing::{DesiredValue, Value};
use rustix::io::Errno;

#[test]
fn original_is_on_disk_before_the_first_write() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(1024, 4096, 8192)));
    let first = agent.once(&mut kernel).effect;
    let Effect::Persist(persisted) = first else {
        panic!("{first:?}")
    };
    let originals: Vec<_> = persisted
        .records
        .values()
        .map(|record| record.original.clone())
        .collect();
    assert_eq!(
        originals,
        [128, 512, 1024].map(|number| Some(Content::from(number)))
    );
    assert!(matches!(agent.once(&mut kernel).effect, Effect::Set(..)));
}

#[test]
fn new_profile_does_not_replace_the_original() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 4096, 8192)));
    agent.settle(&mut kernel);
    agent.turn_to(Task::Enforce, &thresholds(0, 8192, 16_384));
    let settled = agent.settle(&mut kernel);
    assert_eq!(settled.key(V4[2]).original, Some(1024.into()));
}

#[test]
fn key_with_the_desired_value_is_not_written() {
    let mut kernel = Kernel::new().with(V4[2], 65_536);
    let mut agent = Agent::new(desired(Task::Enforce, &[(V4[2], at_least(8192))]));
    let settled = agent.settle(&mut kernel);
    assert_eq!(settled.key(V4[2]).state, KeyState::Applied);
    assert!(kernel.writes.is_empty());
    assert!(agent.memory.persisted.records.is_empty());
}

#[test]
fn nothing_is_lowered_while_the_entries_are_unknown() {
    let mut kernel = Kernel::new().with(MAX, 1_000_000).with(BUCKETS, 1_000_000);
    kernel.counts.conntrack = None;
    let mut agent = Agent::new(desired(Task::Enforce, &[(MAX, exactly(131_072))]));
    let settled = agent.settle(&mut kernel);
    assert_eq!(settled.key(MAX).state, KeyState::Waiting);
    assert!(kernel.writes.is_empty());
}

#[test]
fn message_does_not_change_with_every_entry() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 16_384, 32_768)));
    agent.settle(&mut kernel);
    let mut wanted = thresholds(0, 4096, 8192);
    wanted.extend([(MAX, exactly(131_072)), (BUCKETS, at_least(131_072))]);
    agent.turn_to(Task::Enforce, &wanted);
    let mut said = |neighbors, connections| {
        kernel.counts.neighbors_ipv4 = Some(neighbors);
        kernel.counts.conntrack = Some(connections);
        agent.settle(&mut kernel).0.keys
    };
    assert_eq!(said(3000, 70_000), said(3001, 70_001));
}

/// Setting a limit where there was none is a lowering.
#[test]
fn unlimited_table_gets_no_limit_that_it_exceeds() {
    let mut kernel = Kernel::new().with(MAX, 0);
    kernel.counts.conntrack = Some(100_000);
    let mut agent = Agent::new(desired(Task::Enforce, &[(MAX, exactly(131_072))]));
    let settled = agent.settle(&mut kernel);
    assert_eq!(settled.key(MAX).state, KeyState::Waiting);
    assert_eq!(kernel.number(MAX), Some(0));
}

#[test]
fn unlimited_table_stays_unlimited() {
    let mut kernel = Kernel::new().with(MAX, 0);
    let mut agent = Agent::new(desired(Task::Enforce, &[(MAX, at_least(131_072))]));
    agent.settle(&mut kernel);
    assert_eq!(kernel.number(MAX), Some(0));
}

#[test]
fn limit_is_lowered_only_if_nettune_raised_it() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &[(MAX, at_least(524_288))]));
    agent.settle(&mut kernel);
    agent.turn_to(Task::Enforce, &[(MAX, at_least(131_072))]);
    agent.settle(&mut kernel);
    assert_eq!(kernel.number(MAX), Some(131_072));
    kernel.set(MAX, 524_288);
    agent.settle(&mut kernel);
    assert_eq!(
        kernel.number(MAX),
        Some(524_288),
        "that was an own value, but not the last one"
    );
}

#[test]
fn missing_key_is_applied_when_it_appears() {
    let vs = key("net.ipv4.vs.conn_reuse_mode");
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(
        Task::Enforce,
        &[(&vs, exactly(1)), (MAX, at_least(131_072))],
    ));
    let settled = agent.settle(&mut kernel);
    let report = settled.key(&vs);
    assert_eq!(
        (report.state, report.waits_for.as_deref()),
        (KeyState::Waiting, Some("ip_vs"))
    );
    assert_eq!(
        kernel.number(MAX),
        Some(131_072),
        "it holds up no other key"
    );
    kernel.set(&vs, 0);
    let settled = agent.settle(&mut kernel);
    assert_eq!(settled.key(&vs).state, KeyState::Applied);
    assert_eq!(settled.key(&vs).original, Some(0.into()));
    assert_eq!(
        settled.key(&vs).drift_count,
        0,
        "a module that is loaded changes nothing"
    );
}

#[test]
fn limits_do_not_apply_to_a_container_node() {
    let mut kernel = Kernel::new();
    kernel.initial_namespace = false;
    let somaxconn = key("net.core.somaxconn");
    kernel.set(&somaxconn, 128);
    for threshold in V4 {
        kernel.values.remove(threshold);
    }
    let mut wanted = thresholds(0, 4096, 8192);
    wanted.push((MAX, at_least(131_072)));
    wanted.push((&somaxconn, exactly(4096)));
    let mut agent = Agent::new(desired(Task::Enforce, &wanted));
    let settled = agent.settle(&mut kernel);
    for key in [V4[0], V4[1], V4[2], MAX] {
        assert_eq!(settled.key(key).state, KeyState::NotApplicable, "{key}");
    }
    assert_eq!(written(&kernel), ["somaxconn=4096"]);
}

#[test]
fn rejected_write_fails_only_its_key_and_is_retried_with_backoff() {
    let somaxconn = key("net.core.somaxconn");
    let mut kernel = Kernel::new().with(&somaxconn, 128);
    kernel.refuses.insert(somaxconn.clone(), Errno::INVAL);
    let mut agent = Agent::new(desired(
        Task::Enforce,
        &[(&somaxconn, exactly(1)), (MAX, at_least(131_072))],
    ));
    let settled = agent.settle(&mut kernel);
    let report = settled.key(&somaxconn);
    assert_eq!(report.state, KeyState::Failed);
    assert!(
        report.message.contains("EINVAL")
            && report.message.contains("set another one in the tuning"),
        "{}",
        report.message
    );
    assert_eq!(kernel.number(MAX), Some(131_072));
    let tries = |kernel: &Kernel| {
        kernel
            .writes
            .iter()
            .filter(|(key, _)| *key == somaxconn)
            .count()
    };
    let mut after = Vec::new();
    for _ in 0..1000 {
        agent.wait(Duration::from_secs(1));
        let before = tries(&kernel);
        agent.settle(&mut kernel);
        after.push(tries(&kernel) - before);
    }
    let at: Vec<usize> = after
        .iter()
        .enumerate()
        .filter(|(_, tries)| **tries > 0)
        .map(|(second, _)| second + 1)
        .collect();
    assert_eq!(
        at,
        [1, 3, 7, 15, 31, 63, 127, 255, 511, 811],
        "1 s, doubling, at most 5 min"
    );
    kernel.refuses.clear();
    agent.turn_to(Task::Enforce, &[(&somaxconn, exactly(1))]);
    let settled = agent.settle(&mut kernel);
    assert_eq!(
        settled.key(&somaxconn).state,
        KeyState::Applied,
        "at once for a new profile"
    );
}

#[test]
fn value_changed_by_the_kernel_fails_and_does_not_loop() {
    let somaxconn = key("net.core.somaxconn");
    let mut kernel = Kernel::new().with(&somaxconn, 128);
    kernel.turns_into.insert(somaxconn.clone(), 64.into());
    let mut agent = Agent::new(desired(Task::Enforce, &[(&somaxconn, exactly(1_000_000))]));
    let settled = agent.settle(&mut kernel);
    let report = settled.key(&somaxconn);
    assert_eq!(report.state, KeyState::Failed);
    assert!(
        report.message.contains("1000000") && report.message.contains("64"),
        "{}",
        report.message
    );
    assert_eq!(kernel.writes.len(), 2);
}

#[test]
fn drift_is_counted_once_and_undone() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 4096, 8192)));
    agent.settle(&mut kernel);
    assert!(agent.drifts.is_empty(), "the first value is nobody's drift");
    kernel.set(V4[2], 5000);
    let settled = agent.settle(&mut kernel);
    assert_eq!(kernel.number(V4[2]), Some(8192));
    assert_eq!(settled.key(V4[2]).drift_count, 1);
    assert_eq!(agent.drifts, std::slice::from_ref(V4[2]));
}

#[test]
fn repair_does_not_write_to_disk() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 4096, 8192)));
    agent.settle(&mut kernel);
    kernel.set(V4[2], 5000);
    assert!(matches!(agent.once(&mut kernel).effect, Effect::Set(..)));
}

#[test]
fn full_disk_fails_new_keys_and_repairs_known_ones() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &[(MAX, at_least(131_072))]));
    agent.settle(&mut kernel);
    agent.turn_to(
        Task::Enforce,
        &[(MAX, at_least(262_144)), (V4[2], at_least(8192))],
    );
    let step = agent.once(&mut kernel);
    assert!(matches!(step.effect, Effect::Persist(_)));
    agent.memory = step.memory.learn(step.effect, Err(Errno::NOSPC), agent.now);
    let settled = agent.settle(&mut kernel);
    assert_eq!(
        kernel.number(MAX),
        Some(262_144),
        "its original is on disk already"
    );
    assert_eq!(kernel.number(V4[2]), Some(1024));
    let report = settled.key(V4[2]);
    assert!(
        report.state == KeyState::Failed && report.message.contains("ENOSPC"),
        "{}",
        report.message
    );
    agent.wait(Duration::from_secs(1));
    let settled = agent.settle(&mut kernel);
    assert_eq!(settled.key(V4[2]).state, KeyState::Applied);
}

#[test]
fn observe_writes_nothing_and_reports_differences() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Observe, &thresholds(0, 4096, 8192)));
    let settled = agent.settle(&mut kernel);
    assert!(kernel.writes.is_empty());
    assert_eq!(settled.key(V4[2]).state, KeyState::Drifted);
}

#[test]
fn apply_once_leaves_later_changes_until_the_next_generation() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::ApplyOnce, &thresholds(0, 4096, 8192)));
    agent.settle(&mut kernel);
    kernel.set(V4[2], 5000);
    let settled = agent.settle(&mut kernel);
    assert_eq!(kernel.number(V4[2]), Some(5000));
    let report = settled.key(V4[2]);
    assert_eq!((report.state, report.drift_count), (KeyState::Drifted, 1));

    let mut agent = Agent::resumed(agent.desired, agent.memory.persisted);
    agent.settle(&mut kernel);
    assert_eq!(
        kernel.number(V4[2]),
        Some(5000),
        "a restart is no new generation"
    );
    agent.turn_to(Task::ApplyOnce, &thresholds(0, 4096, 8192));
    agent.settle(&mut kernel);
    assert_eq!(kernel.number(V4[2]), Some(8192));
}

#[test]
fn deleted_profile_changes_nothing_and_is_forgotten() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 4096, 8192)));
    agent.settle(&mut kernel);
    agent.desired = DesiredState::default();
    kernel.writes.clear();
    agent.settle(&mut kernel);
    kernel.set(V4[2], 5000);
    agent.settle(&mut kernel);
    assert!(kernel.writes.is_empty());
    assert_eq!(agent.memory.persisted.source, None);
    assert_eq!(
        agent.memory.persisted.records.len(),
        3,
        "originals stay until the next boot"
    );
}

#[test]
fn empty_list_is_restored_as_empty() {
    let ports = key("net.ipv4.ip_local_reserved_ports");
    let mut kernel = Kernel::new();
    kernel.values.insert(ports.clone(), Content::Empty);
    let wanted = DesiredValue::Exact(Value::parse("30000-32767").unwrap());
    let mut agent = Agent::new(desired(Task::Enforce, &[(&ports, wanted)]));
    agent.settle(&mut kernel);
    assert_eq!(kernel.values.get(&ports), Some(&text("30000-32767")));
    agent.turn_to(Task::Release, &[]);
    agent.settle(&mut kernel);
    assert_eq!(kernel.values.get(&ports), Some(&Content::Empty));
}
