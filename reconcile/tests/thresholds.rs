//! The order of the thresholds, over a model of the kernel that checks it at every write.

mod model;

use std::time::Duration;

use model::{Agent, Kernel, V4, at_least, desired, exactly, thresholds, written};
use nettune_crds::KeyState;
use nettune_reconcile::desired::Task;
use rustix::io::Errno;

/// Also by so little that another order would break nothing: it is one less thing to think about.
#[test]
fn raising_writes_the_highest_threshold_first() {
    for [one, two, three] in [[1024, 4096, 8192], [129, 513, 1025]] {
        let mut kernel = Kernel::new();
        let mut agent = Agent::new(desired(Task::Enforce, &thresholds(one, two, three)));
        agent.settle(&mut kernel);
        let writes = [("3", three), ("2", two), ("1", one)];
        let writes = writes.map(|(place, value)| format!("gc_thresh{place}={value}"));
        assert_eq!(written(&kernel), writes);
    }
}

#[test]
fn lowering_writes_the_lowest_threshold_first() {
    for [one, two, three] in [[100, 200, 400], [1023, 4095, 8191]] {
        let mut kernel = Kernel::new();
        let mut agent = Agent::new(desired(Task::Enforce, &thresholds(1024, 4096, 8192)));
        agent.settle(&mut kernel);
        kernel.writes.clear();
        agent.turn_to(Task::Enforce, &thresholds(one, two, three));
        agent.settle(&mut kernel);
        let writes = [("1", one), ("2", two), ("3", three)];
        let writes = writes.map(|(place, value)| format!("gc_thresh{place}={value}"));
        assert_eq!(written(&kernel), writes);
    }
}

#[test]
fn threshold_follows_a_lower_one_raised_by_another_process() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 4096, 8192)));
    agent.settle(&mut kernel);
    kernel.set(V4[1], 200_000);
    let settled = agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [0, 200_000, 400_000]);
    assert_eq!(settled.key(V4[2]).state, KeyState::Applied);
    assert_eq!(
        settled.key(V4[2]).drift_count,
        0,
        "nobody changed gc_thresh3 but nettune"
    );
    kernel.set(V4[1], 512);
    agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [0, 4096, 400_000]);
    agent.wait(Duration::from_secs(3600));
    agent.settle(&mut kernel);
    assert_eq!(
        kernel.thresholds(V4),
        [0, 4096, 8192],
        "its own follow-up is lowered again, not at once"
    );
}

#[test]
fn kernels_maximum_leaves_room_for_the_thresholds_above() {
    let highest = i32::MAX as u64;
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 4096, 8192)));
    agent.settle(&mut kernel);
    kernel.set(V4[1], highest);
    agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [0, highest - 1, highest]);
}

#[test]
fn first_threshold_of_zero_is_left() {
    let mut kernel = Kernel::new().with(V4[0], 0);
    let mut agent = Agent::new(desired(
        Task::Enforce,
        &[
            (V4[0], at_least(1024)),
            (V4[1], at_least(4096)),
            (V4[2], at_least(8192)),
        ],
    ));
    let settled = agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [0, 4096, 8192]);
    assert_eq!(settled.key(V4[0]).state, KeyState::Applied);
}

#[test]
fn first_threshold_of_zero_set_by_nettune_is_raised() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 4096, 8192)));
    agent.settle(&mut kernel);
    agent.turn_to(Task::Enforce, &[(V4[0], at_least(1024))]);
    agent.settle(&mut kernel);
    assert_eq!(kernel.number(V4[0]), Some(1024));
}

#[test]
fn nothing_is_lowered_below_twice_what_the_table_holds() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 16_384, 32_768)));
    agent.settle(&mut kernel);
    kernel.counts.neighbors_ipv4 = Some(3000);
    agent.turn_to(Task::Enforce, &thresholds(0, 4096, 8192));
    let settled = agent.settle(&mut kernel);
    assert_eq!(
        kernel.thresholds(V4),
        [0, 16_384, 32_768],
        "the third stays above the second"
    );
    assert_eq!(settled.key(V4[1]).state, KeyState::Waiting);
    assert!(
        settled
            .key(V4[1])
            .message
            .contains("more than half that many IPv4 neighbors"),
        "{}",
        settled.key(V4[1]).message
    );
    kernel.counts.neighbors_ipv4 = Some(2048);
    agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [0, 4096, 8192]);
}

#[test]
fn families_are_independent() {
    let mut kernel = Kernel::new();
    kernel.counts.neighbors_ipv6 = Some(100_000);
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 200, 400)));
    kernel.set(V4[1], 512);
    agent.turn_to(Task::Enforce, &[(V4[2], exactly(600))]);
    agent.settle(&mut kernel);
    assert_eq!(kernel.number(V4[2]), Some(600));
}

#[test]
fn second_threshold_waits_if_the_third_cannot_be_raised() {
    let mut kernel = Kernel::new();
    kernel.refuses.insert(V4[2].clone(), Errno::INVAL);
    let mut agent = Agent::new(desired(Task::Enforce, &thresholds(0, 4096, 8192)));
    let settled = agent.settle(&mut kernel);
    assert_eq!(kernel.thresholds(V4), [0, 512, 1024]);
    assert_eq!(settled.key(V4[1]).state, KeyState::Waiting);
    assert_eq!(settled.key(V4[2]).state, KeyState::Failed);
}

#[test]
fn apply_once_leaves_an_order_broken_by_another_process() {
    let mut kernel = Kernel::new();
    let mut agent = Agent::new(desired(Task::ApplyOnce, &[(V4[1], at_least(600))]));
    agent.settle(&mut kernel);
    kernel.set(V4[1], 200_000);
    kernel.writes.clear();
    agent.settle(&mut kernel);
    assert!(kernel.writes.is_empty(), "{:?}", kernel.writes);
}
