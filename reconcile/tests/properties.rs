//! From any state of the kernel, to any desired state, through any kill.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail them"
)]

mod model;

use model::{Agent, BUCKETS, Kernel, MAX, V4, V6, key};
use nettune_crds::KeyState;
use nettune_reconcile::desired::{DesiredState, Task};
use nettune_reconcile::effect::Effect;
use nettune_sizing::{DesiredValue, SysctlKey};
use proptest::prelude::*;

const HIGHEST: u64 = i32::MAX as u64;

/// Numbers around those that matter: small, like real sizes, and the highest.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..10_u64,
        (0..22_u32).prop_map(|power| 1 << power),
        (0..22_u32, 0..3_u64).prop_map(|(power, off)| (1 << power) + off),
        HIGHEST - 3..=HIGHEST,
        0..=HIGHEST,
    ]
}

fn count() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![1 => Just(None), 4 => (0..100_000_u64).prop_map(Some), 4 => (0..300_u64).prop_map(Some)]
}

fn wanted() -> impl Strategy<Value = DesiredValue> {
    // A desired with a higher threshold than the order has room for is refused when it is read.
    let number = || number().prop_map(|number| number.clamp(1, HIGHEST - 2));
    let limit = (number(), 1..64_u64)
        .prop_map(|(floor, times)| DesiredValue::at_least(floor, floor * times));
    prop_oneof![limit, number().prop_map(DesiredValue::exactly)]
}

fn managed() -> Vec<SysctlKey> {
    let mut all: Vec<SysctlKey> = V4.into_iter().chain(V6).cloned().collect();
    all.extend([MAX.clone(), BUCKETS.clone(), key("net.core.somaxconn")]);
    all
}

fn desired_values() -> impl Strategy<Value = Vec<(SysctlKey, DesiredValue)>> {
    let entry = |key: SysctlKey| {
        proptest::option::weighted(0.8, wanted().prop_map(move |wanted| (key.clone(), wanted)))
    };
    let entries: Vec<_> = managed().into_iter().map(entry).collect();
    entries.prop_map(|entries| entries.into_iter().flatten().collect())
}

/// Thresholds in any order, any limits, any counts, on any kernel; now and then a key is not there.
fn kernels() -> impl Strategy<Value = Kernel> {
    let values =
        proptest::collection::vec(proptest::option::weighted(0.95, number()), managed().len());
    let release = prop_oneof![
        Just("5.10.1"),
        Just("6.1.0-18-amd64"),
        Just("6.12.1"),
        Just("?")
    ];
    (values, count(), count(), count(), release).prop_map(|(values, v4, v6, conntrack, release)| {
        let mut kernel = Kernel::new();
        kernel.values.clear();
        for (key, value) in managed().into_iter().zip(values) {
            let value = value.map(|value| {
                if key == *BUCKETS {
                    value.div_ceil(512) * 512
                } else {
                    value
                }
            });
            kernel.values.extend(value.map(|value| (key, value.into())));
        }
        kernel.counts.neighbors_ipv4 = v4;
        kernel.counts.neighbors_ipv6 = v6;
        kernel.counts.conntrack = conntrack;
        kernel.machine.kernel = nettune_sizing::KernelVersion::parse(release).ok();
        kernel
    })
}

fn as_goal(task: Task, wanted: &[(SysctlKey, DesiredValue)], generation: i64) -> DesiredState {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(key, wanted)| (key, wanted.clone()))
        .collect();
    let mut agent = Agent::new(DesiredState::default());
    for _ in 0..generation {
        agent.turn_to(task, &wanted);
    }
    agent.desired
}

/// Goes on until there is nothing left to do, with a new process after each effect whose number is
/// in `kills`.
fn settle_with_kills(
    desired: &DesiredState,
    mut agent: Agent,
    kernel: &mut Kernel,
    kills: &[bool],
) -> Agent {
    agent.desired = desired.clone();
    for effect in 0..1000 {
        let step = agent.once(kernel);
        if let Effect::Rest { .. } = step.effect {
            return agent;
        }
        if kills.get(effect).copied().unwrap_or(false) {
            agent = Agent::resumed(desired.clone(), agent.memory.persisted);
        }
    }
    panic!("no end of effects");
}

fn originals(agent: &Agent) -> Vec<(SysctlKey, Option<nettune_reconcile::observed::Content>)> {
    let records = agent.memory.persisted.records.iter();
    records
        .map(|(key, record)| (key.clone(), record.original.clone()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The model asserts at each write that an order that held still holds, that nothing falls below
    /// twice its count, and that conntrack never becomes unlimited.
    #[test]
    fn any_desired_state_is_reached_in_bounded_effects_without_breaking_a_rule(mut kernel in kernels(), wanted in desired_values()) {
        let mut agent = Agent::new(as_goal(Task::Enforce, &wanted, 1));
        let settled = agent.settle(&mut kernel);
        for (key, wanted) in &wanted {
            let report = settled.key(key);
            prop_assert_eq!(report.observed.as_ref(), kernel.values.get(key));
            if report.state == KeyState::Applied && *key != *BUCKETS {
                let number = kernel.number(key).unwrap();
                match wanted {
                    DesiredValue::Exact(value) => prop_assert_eq!(Some(number), value.as_number()),
                    DesiredValue::AtLeast(bounds) => prop_assert!(number >= bounds.floor() || number == 0),
                }
            }
            prop_assert!(!matches!(report.state, KeyState::Failed | KeyState::Drifted), "{:?}", report);
        }
        for family in [V4, V6] {
            if family.iter().any(|key| wanted.iter().any(|(own, _)| own == *key)) {
                prop_assert!(kernel.is_ordered(family), "{:?}", kernel.values);
            }
        }
        let writes = kernel.writes.len();
        agent.settle(&mut kernel);
        prop_assert_eq!(kernel.writes.len(), writes, "nothing is left to do");
        prop_assert!(agent.drifts.is_empty());
    }

    #[test]
    fn kill_between_any_two_effects_changes_neither_result_nor_originals(
        kernel in kernels(),
        first in desired_values(),
        second in desired_values(),
        kills in proptest::collection::vec(any::<bool>(), 120),
    ) {
        let desired_values = [as_goal(Task::Enforce, &first, 1), as_goal(Task::Enforce, &second, 2), as_goal(Task::Release, &second, 3)];
        let found = kernel.values.clone();
        let (mut calm, mut killed) = (kernel.clone(), kernel);
        let (mut one, mut other) = (Agent::new(DesiredState::default()), Agent::new(DesiredState::default()));
        for (place, desired) in desired_values.iter().enumerate() {
            one = settle_with_kills(desired, one, &mut calm, &[]);
            other = settle_with_kills(desired, other, &mut killed, &kills[place * 40..]);
            prop_assert_eq!(&calm.values, &killed.values);
            prop_assert_eq!(originals(&one), originals(&other));
            for (key, original) in originals(&one) {
                prop_assert_eq!(original.as_ref(), found.get(&key), "what {} held before any desired", key);
            }
        }
    }

    #[test]
    fn release_restores_each_original_or_reports_why_not(mut kernel in kernels(), wanted in desired_values()) {
        let before = kernel.values.clone();
        let mut agent = Agent::new(as_goal(Task::Enforce, &wanted, 1));
        agent.settle(&mut kernel);
        agent.desired = as_goal(Task::Release, &wanted, 2);
        let released = agent.settle(&mut kernel);
        prop_assert!(released.0.released);
        for report in &released.0.keys {
            let key = key(&report.name);
            let is_back = kernel.values.get(&key) == before.get(&key);
            prop_assert!(is_back || !report.message.is_empty(), "{:?}", report);
            prop_assert_eq!(report.original.as_ref(), before.get(&key));
        }
        let writes = kernel.writes.len();
        for key in managed() {
            if kernel.values.contains_key(&key) {
                kernel.set(&key, 77_777);
            }
        }
        agent.settle(&mut kernel);
        prop_assert_eq!(kernel.writes.len(), writes, "nothing is enforced afterwards");
    }

    #[test]
    fn passive_modes_write_nothing(mut kernel in kernels(), wanted in desired_values()) {
        let mut agent = Agent::new(as_goal(Task::Observe, &wanted, 1));
        agent.settle(&mut kernel);
        prop_assert!(kernel.writes.is_empty());
    }
}
