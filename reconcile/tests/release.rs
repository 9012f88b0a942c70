//! Originals are restored, or the report says why not.

mod model;

use std::time::Duration;

use model::{
    Agent, BUCKETS, Kernel, MAX, Settled, V4, at_least, desired, exactly, key, thresholds, written,
};
use nettune_crds::{KeyState, ReleasePolicy};
use nettune_reconcile::desired::{DesiredState, Task};
use nettune_reconcile::step::Step;
use nettune_sizing::{DesiredValue, SysctlKey};
use rustix::io::Errno;

/// An agent that has reached a desired.
fn settled(kernel: &mut Kernel, wanted: &[(&SysctlKey, DesiredValue)]) -> Agent {
    let mut agent = Agent::new(desired(Task::Enforce, wanted));
    agent.settle(kernel);
    kernel.writes.clear();
    agent
}

fn release(agent: &mut Agent, kernel: &mut Kernel) -> Settled {
    agent.turn_to(Task::Release, &[]);
    agent.settle(kernel)
}

fn is_left(settled: &Settled, key: &SysctlKey, because: &str) -> bool {
    let report = settled.key(key);
    assert!(report.message.contains(because), "{}", report.message);
    report.state == KeyState::NotApplicable
}

#[test]
fn originals_are_restored_in_safe_order() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &thresholds(0, 4096, 8192));
    let released = release(&mut agent, &mut kernel);
    assert!(released.0.released);
    assert_eq!(kernel.thresholds(V4), [128, 512, 1024]);
    let writes = ["gc_thresh1=128", "gc_thresh2=512", "gc_thresh3=1024"];
    assert_eq!(written(&kernel), writes);
}

#[test]
fn value_set_by_another_process_since_is_left() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &thresholds(0, 4096, 8192));
    kernel.set(V4[1], 7000);
    let released = release(&mut agent, &mut kernel);
    assert!(is_left(&released, V4[1], "another process"));
    assert!(is_left(&released, V4[2], "order"), "1024 would be below it");
    assert_eq!(kernel.thresholds(V4), [128, 7000, 8192]);
}

#[test]
fn conntrack_limit_stays_at_or_above_kube_proxys() {
    let mut kernel = Kernel::new();
    kernel.machine.cores = 6;
    let mut agent = settled(&mut kernel, &[(MAX, at_least(262_144))]);
    release(&mut agent, &mut kernel);
    assert_eq!(kernel.number(MAX), Some(6 * 32_768));
}

#[test]
fn release_does_not_raise_a_limit_below_kube_proxys() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &[(MAX, at_least(100_000))]);
    let released = release(&mut agent, &mut kernel);
    assert!(is_left(&released, MAX, "kube-proxy"));
    assert_eq!(kernel.number(MAX), Some(100_000));
}

#[test]
fn original_below_twice_the_entries_is_not_restored() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &thresholds(0, 4096, 8192));
    kernel.counts.neighbors_ipv4 = Some(400);
    let released = release(&mut agent, &mut kernel);
    assert!(is_left(&released, V4[1], "more than half"));
    assert_eq!(kernel.thresholds(V4), [128, 4096, 8192]);
}

#[test]
fn too_few_buckets_for_the_limit_are_not_restored() {
    let mut kernel = Kernel::new();
    let wanted = [(MAX, at_least(262_144)), (BUCKETS, at_least(262_144))];
    let mut agent = settled(&mut kernel, &wanted);
    let released = release(&mut agent, &mut kernel);
    assert!(is_left(&released, BUCKETS, "too few for 131072"));
}

#[test]
fn lost_original_is_reported_as_unknown() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 4096, 8192)));
    agent.memory.persisted.originals_lost = true;
    let before = agent.settle(&mut kernel);
    assert_eq!(before.key(V4[2]).original, None);
    let released = release(&mut agent, &mut kernel);
    assert!(is_left(&released, V4[2], "next boot"));
    assert_eq!(kernel.thresholds(V4), [0, 4096, 8192]);
}

#[test]
fn rejected_original_is_reported_and_not_retried() {
    let somaxconn = key("net.core.somaxconn");
    let mut kernel = Kernel::new().with(&somaxconn, 128);
    let mut agent = settled(&mut kernel, &[(&somaxconn, exactly(4096))]);
    kernel.refuses.insert(somaxconn.clone(), Errno::ROFS);
    let released = release(&mut agent, &mut kernel);
    assert!(released.0.released);
    let report = released.key(&somaxconn);
    assert!(report.state == KeyState::Failed && report.message.contains("EROFS"));
    assert_eq!(kernel.writes.len(), 1);
}

#[test]
fn release_restores_keys_dropped_earlier() {
    let somaxconn = key("net.core.somaxconn");
    let mut kernel = Kernel::new().with(&somaxconn, 128);
    let mut agent = settled(&mut kernel, &[(&somaxconn, exactly(4096))]);
    agent.turn_to(Task::Enforce, &thresholds(0, 4096, 8192));
    agent.settle(&mut kernel);
    assert_eq!(
        kernel.number(&somaxconn),
        Some(4096),
        "no longer enforced, and not changed"
    );
    release(&mut agent, &mut kernel);
    assert_eq!(kernel.number(&somaxconn), Some(128));
}

#[test]
fn ended_release_stays_ended_after_a_restart() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &thresholds(0, 4096, 8192));
    release(&mut agent, &mut kernel);
    kernel.set(V4[2], 8192);
    kernel.writes.clear();
    agent.settle(&mut kernel);
    let mut agent = Agent::resumed(agent.desired, agent.memory.persisted);
    let released = agent.settle(&mut kernel);
    assert!(released.0.released);
    assert!(
        kernel.writes.is_empty(),
        "8192 was nettune's value, but not any more"
    );
}

#[test]
fn node_managed_again_keeps_its_first_originals() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &[(MAX, at_least(262_144))]);
    release(&mut agent, &mut kernel);
    assert_eq!(
        kernel.number(MAX),
        Some(131_072),
        "what kube-proxy would set"
    );
    agent.turn_to(Task::Enforce, &[(MAX, at_least(262_144))]);
    let settled = agent.settle(&mut kernel);
    assert_eq!(settled.key(MAX).original, Some(65_536.into()));
}

fn restoring(wanted: &[(&SysctlKey, DesiredValue)]) -> DesiredState {
    let mut agent = Agent::new(desired(Task::Enforce, &[]));
    agent.turn_to(Task::Enforce, wanted);
    DesiredState {
        release_policy: ReleasePolicy::Restore,
        ..agent.desired
    }
}

#[test]
fn dropped_key_is_restored_and_forgotten() {
    let somaxconn = key("net.core.somaxconn");
    for task in [Task::Enforce, Task::ApplyOnce] {
        let mut kernel = Kernel::new().with(&somaxconn, 128);
        let mut agent = settled(
            &mut kernel,
            &[(&somaxconn, exactly(4096)), (MAX, at_least(262_144))],
        );
        agent.desired = restoring(&[(MAX, at_least(262_144))]);
        agent.desired.task = task;
        agent.settle(&mut kernel);
        assert_eq!(written(&kernel), ["somaxconn=128"], "{task:?}");
        let records = &agent.memory.persisted.records;
        assert!(!records.contains_key(&somaxconn) && records.contains_key(MAX));
        kernel.set(&somaxconn, 4096);
        agent.settle(&mut kernel);
        assert_eq!(kernel.number(&somaxconn), Some(4096), "it is not ours now");
    }
}

#[test]
fn dropped_key_that_another_process_set_is_forgotten() {
    let somaxconn = key("net.core.somaxconn");
    let mut kernel = Kernel::new().with(&somaxconn, 128);
    let mut agent = settled(&mut kernel, &[(&somaxconn, exactly(4096))]);
    kernel.set(&somaxconn, 1000);
    agent.desired = restoring(&[]);
    agent.settle(&mut kernel);
    assert!(kernel.writes.is_empty());
    assert!(agent.memory.persisted.records.is_empty());
}

#[test]
fn dropped_limit_is_restored_once_its_table_allows() {
    let mut kernel = Kernel::new();
    let mut wanted = thresholds(0, 4096, 8192);
    wanted.push((MAX, at_least(262_144)));
    let mut agent = settled(&mut kernel, &wanted);
    kernel.counts.neighbors_ipv4 = Some(400);
    agent.desired = restoring(&[]);
    agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [128, 4096, 8192]);
    assert_eq!(kernel.number(MAX), Some(131_072), "what kube-proxy sets");
    kernel.counts.neighbors_ipv4 = Some(200);
    agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [128, 512, 1024]);
    assert!(agent.memory.persisted.records.is_empty());
}

#[test]
fn kube_proxys_value_is_capped_at_its_maximum() {
    let mut kernel = Kernel::new().with(MAX, 1_048_576);
    kernel.machine.cores = 64;
    let mut agent = settled(&mut kernel, &[(MAX, at_least(4_194_304))]);
    release(&mut agent, &mut kernel);
    assert_eq!(kernel.number(MAX), Some(1_048_576));
}

fn left(step: &Step) -> Vec<(&str, &str)> {
    let left = step.left.iter();
    left.map(|left| (&*left.key, left.message.as_str()))
        .collect()
}

#[test]
fn waiting_dropped_limit_is_in_the_status_and_logged_once() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &thresholds(0, 4096, 8192));
    kernel.counts.neighbors_ipv4 = Some(400);
    agent.desired = restoring(&[]);
    let settled = agent.settle(&mut kernel);
    let report = settled.key(V4[1]);
    assert!(report.dropped && report.state == KeyState::Waiting);
    let full =
        "left at 4096: 512 is desired, but the table holds more than half that many IPv4 neighbors";
    assert_eq!(report.message, full);
    let logged = left(&settled.0);
    assert!(logged.contains(&(V4[1].name(), full)), "{logged:?}");
    for minute in 1..30 {
        kernel.counts.neighbors_ipv4 = Some(400 + minute);
        agent.wait(Duration::from_secs(60));
        let again = agent.settle(&mut kernel);
        assert_eq!(again.0.keys, settled.0.keys, "the status stays as it is");
        assert_eq!(left(&again.0), []);
    }
    kernel.counts.neighbors_ipv4 = Some(200);
    let settled = agent.settle(&mut kernel);
    assert_eq!((settled.0.keys, settled.0.left), (vec![], vec![]));
}

#[test]
fn dropped_key_that_cannot_be_restored_stays_in_the_status() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &[(MAX, at_least(100_000))]);
    agent.desired = restoring(&[]);
    let settled = agent.settle(&mut kernel);
    assert!(is_left(&settled, MAX, "kube-proxy"));
    assert_eq!(left(&settled.0).len(), 1);
    assert_eq!(left(&agent.settle(&mut kernel).0), []);
    agent.turn_to(Task::Enforce, &[(MAX, at_least(100_000))]);
    assert!(!agent.settle(&mut kernel).key(MAX).dropped);
    agent.turn_to(Task::Enforce, &[]);
    agent.desired.release_policy = ReleasePolicy::Restore;
    assert_eq!(left(&agent.settle(&mut kernel).0).len(), 1, "dropped anew");
}

#[test]
fn rejected_dropped_original_is_logged_once_and_retried() {
    let somaxconn = key("net.core.somaxconn");
    let mut kernel = Kernel::new().with(&somaxconn, 128);
    let mut agent = settled(&mut kernel, &[(&somaxconn, exactly(4096))]);
    kernel.refuses.insert(somaxconn.clone(), Errno::ROFS);
    agent.desired = restoring(&[]);
    let settled = agent.settle(&mut kernel);
    assert_eq!(settled.key(&somaxconn).state, KeyState::Waiting);
    assert!(left(&settled.0)[0].1.contains("EROFS"));
    for _ in 0..10 {
        agent.wait(Duration::from_secs(301));
        assert_eq!(left(&agent.settle(&mut kernel).0), []);
    }
    assert!(kernel.writes.len() > 3);
}

#[test]
fn release_reports_replaced_original() {
    let somaxconn = key("net.core.somaxconn");
    let mut kernel = Kernel::new().with(&somaxconn, 128);
    let mut agent = settled(&mut kernel, &[(&somaxconn, exactly(4096))]);
    kernel.set(&somaxconn, 1000);
    agent.desired = restoring(&[]);
    let logged = [(
        somaxconn.name(),
        "left at 1000: another process has set it since",
    )];
    assert_eq!(left(&agent.once(&mut kernel)), logged);
    let settled = agent.settle(&mut kernel);
    assert_eq!((settled.0.keys, settled.0.left), (vec![], vec![]));
}

/// A kill between any two effects of a change that drops keys leaves the same end.
#[test]
fn kill_after_any_effect_of_a_partial_release_changes_nothing() {
    let mut wanted = thresholds(0, 4096, 8192);
    wanted.extend([(MAX, at_least(262_144)), (BUCKETS, at_least(262_144))]);
    for kill_at in 0..40 {
        let mut kernel = Kernel::new();
        let mut agent = settled(&mut kernel, &wanted);
        agent.desired = restoring(&[(MAX, at_least(262_144))]);
        for effect in 0..40 {
            agent.once(&mut kernel);
            if effect == kill_at {
                agent = Agent::resumed(agent.desired, agent.memory.persisted);
            }
        }
        assert_eq!(kernel.thresholds(V4), [128, 512, 1024], "{kill_at}");
        assert_eq!(kernel.number(MAX), Some(262_144));
        let records = &agent.memory.persisted.records;
        assert_eq!(records[MAX].original, Some(65_536.into()));
        assert!(V4.iter().all(|key| !records.contains_key(*key)));
    }
}
