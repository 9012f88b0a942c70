//! Originals go back, or it is said why not.

mod model;

use std::time::Duration;

use model::{
    Agent, BUCKETS, Kernel, MAX, Settled, V4, at_least, exactly, goal, key, thresholds, written,
};
use nettune_crds::{KeyState, ReleasePolicy};
use nettune_reconcile::desired::{DesiredState, Task};
use nettune_reconcile::step::Step;
use nettune_sizing::{DesiredValue, SysctlKey};
use rustix::io::Errno;

/// An agent that has reached a goal.
fn settled(kernel: &mut Kernel, wanted: &[(&SysctlKey, DesiredValue)]) -> Agent {
    let mut agent = Agent::new(goal(Task::Enforce, wanted));
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
fn originals_go_back_in_the_safe_order() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &thresholds(0, 4096, 8192));
    let released = release(&mut agent, &mut kernel);
    assert!(released.0.released);
    assert_eq!(kernel.thresholds(V4), [128, 512, 1024]);
    let writes = ["gc_thresh1=128", "gc_thresh2=512", "gc_thresh3=1024"];
    assert_eq!(written(&kernel), writes);
}

#[test]
fn what_somebody_else_has_set_since_is_left() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &thresholds(0, 4096, 8192));
    kernel.set(V4[1], 7000);
    let released = release(&mut agent, &mut kernel);
    assert!(is_left(&released, V4[1], "somebody else"));
    assert!(is_left(&released, V4[2], "order"), "1024 would be below it");
    assert_eq!(kernel.thresholds(V4), [128, 7000, 8192]);
}

#[test]
fn conntrack_does_not_fall_below_what_kube_proxy_would_set() {
    let mut kernel = Kernel::new();
    kernel.machine.cores = 6;
    let mut agent = settled(&mut kernel, &[(MAX, at_least(262_144))]);
    release(&mut agent, &mut kernel);
    assert_eq!(kernel.number(MAX), Some(6 * 32_768));
}

#[test]
fn conntrack_that_is_below_what_kube_proxy_would_set_is_not_raised_by_a_release() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &[(MAX, at_least(100_000))]);
    let released = release(&mut agent, &mut kernel);
    assert!(is_left(&released, MAX, "kube-proxy"));
    assert_eq!(kernel.number(MAX), Some(100_000));
}

#[test]
fn nothing_goes_back_below_twice_what_the_table_holds() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &thresholds(0, 4096, 8192));
    kernel.counts.neighbors_ipv4 = Some(400);
    let released = release(&mut agent, &mut kernel);
    assert!(is_left(&released, V4[1], "more than half"));
    assert_eq!(kernel.thresholds(V4), [128, 4096, 8192]);
}

#[test]
fn buckets_that_would_not_bear_the_limit_are_left() {
    let mut kernel = Kernel::new();
    let wanted = [(MAX, at_least(262_144)), (BUCKETS, at_least(262_144))];
    let mut agent = settled(&mut kernel, &wanted);
    let released = release(&mut agent, &mut kernel);
    assert!(is_left(&released, BUCKETS, "do not bear 131072"));
}

#[test]
fn an_original_that_was_lost_is_not_made_up() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(goal(Task::Enforce, &thresholds(0, 4096, 8192)));
    agent.memory.persisted.originals_lost = true;
    let before = agent.settle(&mut kernel);
    assert_eq!(before.key(V4[2]).original, None);
    let released = release(&mut agent, &mut kernel);
    assert!(is_left(&released, V4[2], "next boot"));
    assert_eq!(kernel.thresholds(V4), [0, 4096, 8192]);
}

#[test]
fn a_refused_original_is_said_and_not_tried_for_ever() {
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
fn a_key_that_the_profile_dropped_goes_back_with_the_others() {
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
fn a_release_that_is_over_stays_over_after_a_restart() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &thresholds(0, 4096, 8192));
    release(&mut agent, &mut kernel);
    kernel.set(V4[2], 8192);
    kernel.writes.clear();
    agent.settle(&mut kernel);
    let mut agent = Agent::resumed(agent.goal, agent.memory.persisted);
    let released = agent.settle(&mut kernel);
    assert!(released.0.released);
    assert!(
        kernel.writes.is_empty(),
        "8192 was nettune's value, but not any more"
    );
}

#[test]
fn a_node_that_is_taken_up_again_keeps_the_first_originals() {
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
    let mut agent = Agent::new(goal(Task::Enforce, &[]));
    agent.turn_to(Task::Enforce, wanted);
    DesiredState {
        release_policy: ReleasePolicy::Restore,
        ..agent.goal
    }
}

#[test]
fn a_key_that_is_dropped_goes_back_alone_and_is_forgotten() {
    let somaxconn = key("net.core.somaxconn");
    for task in [Task::Enforce, Task::ApplyOnce] {
        let mut kernel = Kernel::new().with(&somaxconn, 128);
        let mut agent = settled(
            &mut kernel,
            &[(&somaxconn, exactly(4096)), (MAX, at_least(262_144))],
        );
        agent.goal = restoring(&[(MAX, at_least(262_144))]);
        agent.goal.task = task;
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
fn a_key_that_is_dropped_and_is_somebody_elses_by_now_is_forgotten_as_it_is() {
    let somaxconn = key("net.core.somaxconn");
    let mut kernel = Kernel::new().with(&somaxconn, 128);
    let mut agent = settled(&mut kernel, &[(&somaxconn, exactly(4096))]);
    kernel.set(&somaxconn, 1000);
    agent.goal = restoring(&[]);
    agent.settle(&mut kernel);
    assert!(kernel.writes.is_empty());
    assert!(agent.memory.persisted.records.is_empty());
}

#[test]
fn dropped_limits_go_back_when_their_table_allows_it() {
    let mut kernel = Kernel::new();
    let mut wanted = thresholds(0, 4096, 8192);
    wanted.push((MAX, at_least(262_144)));
    let mut agent = settled(&mut kernel, &wanted);
    kernel.counts.neighbors_ipv4 = Some(400);
    agent.goal = restoring(&[]);
    agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [128, 4096, 8192]);
    assert_eq!(kernel.number(MAX), Some(131_072), "what kube-proxy sets");
    kernel.counts.neighbors_ipv4 = Some(200);
    agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [128, 512, 1024]);
    assert!(agent.memory.persisted.records.is_empty());
}

#[test]
fn kube_proxy_is_not_thought_to_set_more_than_its_own_most() {
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
fn a_dropped_limit_that_waits_is_in_the_status_and_told_once() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &thresholds(0, 4096, 8192));
    kernel.counts.neighbors_ipv4 = Some(400);
    agent.goal = restoring(&[]);
    let settled = agent.settle(&mut kernel);
    let report = settled.key(V4[1]);
    assert!(report.dropped && report.state == KeyState::Waiting);
    let full =
        "left at 4096: 512 is wanted, but the table holds more than half as many IPv4 neighbours";
    assert_eq!(report.message, full);
    let told = left(&settled.0);
    assert!(told.contains(&(V4[1].name(), full)), "{told:?}");
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
fn a_dropped_key_that_never_goes_back_stays_in_the_status() {
    let mut kernel = Kernel::new();
    let mut agent = settled(&mut kernel, &[(MAX, at_least(100_000))]);
    agent.goal = restoring(&[]);
    let settled = agent.settle(&mut kernel);
    assert!(is_left(&settled, MAX, "kube-proxy"));
    assert_eq!(left(&settled.0).len(), 1);
    assert_eq!(left(&agent.settle(&mut kernel).0), []);
    agent.turn_to(Task::Enforce, &[(MAX, at_least(100_000))]);
    assert!(!agent.settle(&mut kernel).key(MAX).dropped);
    agent.turn_to(Task::Enforce, &[]);
    agent.goal.release_policy = ReleasePolicy::Restore;
    assert_eq!(left(&agent.settle(&mut kernel).0).len(), 1, "dropped anew");
}

#[test]
fn a_dropped_original_that_is_refused_is_told_once_and_tried_again() {
    let somaxconn = key("net.core.somaxconn");
    let mut kernel = Kernel::new().with(&somaxconn, 128);
    let mut agent = settled(&mut kernel, &[(&somaxconn, exactly(4096))]);
    kernel.refuses.insert(somaxconn.clone(), Errno::ROFS);
    agent.goal = restoring(&[]);
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
fn what_somebody_else_put_in_the_place_of_an_original_is_told_before_it_is_forgotten() {
    let somaxconn = key("net.core.somaxconn");
    let mut kernel = Kernel::new().with(&somaxconn, 128);
    let mut agent = settled(&mut kernel, &[(&somaxconn, exactly(4096))]);
    kernel.set(&somaxconn, 1000);
    agent.goal = restoring(&[]);
    let told = [(
        somaxconn.name(),
        "left at 1000: somebody else has set it since",
    )];
    assert_eq!(left(&agent.once(&mut kernel)), told);
    let settled = agent.settle(&mut kernel);
    assert_eq!((settled.0.keys, settled.0.left), (vec![], vec![]));
}

/// A kill between any two effects of a change that drops keys leaves the same end.
#[test]
fn a_kill_after_any_effect_of_a_partial_release_changes_nothing() {
    let mut wanted = thresholds(0, 4096, 8192);
    wanted.extend([(MAX, at_least(262_144)), (BUCKETS, at_least(262_144))]);
    for kill_at in 0..40 {
        let mut kernel = Kernel::new();
        let mut agent = settled(&mut kernel, &wanted);
        agent.goal = restoring(&[(MAX, at_least(262_144))]);
        for effect in 0..40 {
            agent.once(&mut kernel);
            if effect == kill_at {
                agent = Agent::resumed(agent.goal, agent.memory.persisted);
            }
        }
        assert_eq!(kernel.thresholds(V4), [128, 512, 1024], "{kill_at}");
        assert_eq!(kernel.number(MAX), Some(262_144));
        let records = &agent.memory.persisted.records;
        assert_eq!(records[MAX].original, Some(65_536.into()));
        assert!(V4.iter().all(|key| !records.contains_key(*key)));
    }
}
