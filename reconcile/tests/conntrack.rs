//! nf_conntrack_max and its hash table, over a model of the kernel that rounds as the real one does.

mod model;

use model::{Agent, BUCKETS, Kernel, MAX, at_least, desired, exactly, written};
use nettune_crds::KeyState;
use nettune_reconcile::desired::Task;
use nettune_sizing::{DesiredValue, KernelVersion, SysctlKey};
use rustix::io::Errno;

fn both(entries: u64) -> [(&'static SysctlKey, DesiredValue); 2] {
    [(MAX, at_least(entries)), (BUCKETS, at_least(entries))]
}

fn on(release: &str) -> Kernel {
    let mut kernel = Kernel::new();
    kernel.machine.kernel = KernelVersion::parse(release).ok();
    kernel
}

#[test]
fn buckets_are_raised_before_the_limit() {
    let mut kernel = on("6.1.0-18-amd64");
    let mut agent = Agent::new(desired(Task::Enforce, &both(262_144)));
    agent.settle(&mut kernel);
    let writes = ["nf_conntrack_buckets=262144", "nf_conntrack_max=262144"];
    assert_eq!(written(&kernel), writes);
}

#[test]
fn buckets_stay_when_the_limit_is_lowered() {
    let mut kernel = on("6.1.0-18-amd64");
    let mut agent = Agent::new(desired(Task::Enforce, &both(262_144)));
    agent.settle(&mut kernel);
    kernel.writes.clear();
    agent.turn_to(Task::Enforce, &both(131_072));
    agent.settle(&mut kernel);
    assert_eq!(written(&kernel), ["nf_conntrack_max=131072"]);
}

#[test]
fn extra_buckets_are_left_even_if_unlimited() {
    let mut kernel = on("6.1.0-18-amd64").with(MAX, 0).with(BUCKETS, 524_288);
    let mut agent = Agent::new(desired(Task::Enforce, &both(262_144)));
    let settled = agent.settle(&mut kernel);
    assert_eq!(settled.key(BUCKETS).state, KeyState::Applied);
    assert!(kernel.writes.is_empty());
}

#[test]
fn exact_buckets_are_lowered_after_the_limit() {
    let mut kernel = on("6.1.0-18-amd64");
    let wanted = |entries| [(MAX, at_least(entries)), (BUCKETS, exactly(entries))];
    let mut agent = Agent::new(desired(Task::Enforce, &wanted(262_144)));
    agent.settle(&mut kernel);
    kernel.writes.clear();
    agent.turn_to(Task::Enforce, &wanted(131_072));
    agent.settle(&mut kernel);
    let writes = ["nf_conntrack_max=131072", "nf_conntrack_buckets=131072"];
    assert_eq!(written(&kernel), writes);
}

#[test]
fn buckets_rounded_up_by_the_kernel_are_applied() {
    let mut kernel = on("6.1.0-18-amd64");
    let wanted = [(MAX, exactly(70_000)), (BUCKETS, exactly(70_000))];
    let mut agent = Agent::new(desired(Task::Enforce, &wanted));
    let settled = agent.settle(&mut kernel);
    assert_eq!(kernel.number(BUCKETS), Some(70_144));
    assert_eq!(settled.key(BUCKETS).state, KeyState::Applied);
    assert_eq!(kernel.writes.len(), 2);
}

#[test]
fn buckets_wait_for_a_quiet_moment_and_the_limit_does_not() {
    let mut kernel = on("6.1.0-18-amd64");
    kernel.counts.conntrack = Some(65_536);
    let mut agent = Agent::new(desired(Task::Enforce, &both(262_144)));
    let settled = agent.settle(&mut kernel);
    let report = settled.key(BUCKETS);
    assert_eq!(report.state, KeyState::Waiting);
    assert_eq!(report.waits_for.as_deref(), Some("a quiet moment"));
    assert_eq!(
        kernel.number(MAX),
        Some(262_144),
        "a full table is worse than long chains"
    );
    kernel.counts.conntrack = Some(65_535);
    agent.settle(&mut kernel);
    assert_eq!(kernel.number(BUCKETS), Some(262_144));
}

#[test]
fn eight_entries_per_bucket_need_no_resize_if_chains_may_be_long() {
    let mut kernel = on("6.12.48");
    let mut agent = Agent::new(desired(Task::Enforce, &both(524_288)));
    let settled = agent.settle(&mut kernel);
    assert_eq!(written(&kernel), ["nf_conntrack_max=524288"]);
    assert_eq!(settled.key(BUCKETS).state, KeyState::Applied);
    agent.turn_to(Task::Enforce, &both(524_289));
    agent.settle(&mut kernel);
    assert_eq!(kernel.number(BUCKETS), Some(524_800));
}

#[test]
fn buckets_follow_a_limit_raised_by_another_process() {
    let mut kernel = on("6.1.0-18-amd64");
    let mut agent = Agent::new(desired(Task::Enforce, &both(262_144)));
    agent.settle(&mut kernel);
    kernel.set(MAX, 1_000_000);
    agent.settle(&mut kernel);
    assert_eq!(kernel.number(MAX), Some(1_000_000));
    assert_eq!(kernel.number(BUCKETS), Some(1_000_448));
}

#[test]
fn rejected_buckets_do_not_hold_back_the_limit() {
    let mut kernel = on("6.1.0-18-amd64");
    kernel.refuses.insert(BUCKETS.clone(), Errno::NOMEM);
    let mut agent = Agent::new(desired(Task::Enforce, &both(262_144)));
    let settled = agent.settle(&mut kernel);
    assert_eq!(settled.key(BUCKETS).state, KeyState::Failed);
    assert_eq!(kernel.number(MAX), Some(262_144));
}
