//! The process is killed after each single effect, one run for each: the next process reaches the right
//! values and keeps the right originals.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail them"
)]

mod model;

use std::collections::BTreeMap;

use model::{Agent, BUCKETS, Kernel, MAX, V4, V6, desired, exactly, key};
use nettune_reconcile::desired::Task;
use nettune_reconcile::effect::Effect;
use nettune_reconcile::observed::{Content, OverflowCounters};
use nettune_sizing::{DesiredValue, SysctlKey};

fn wanted(times: u64) -> Vec<(SysctlKey, DesiredValue)> {
    let limit = |floor: u64| DesiredValue::at_least(floor * times, floor * times * 8);
    let mut all = vec![
        (MAX.clone(), limit(131_072)),
        (BUCKETS.clone(), limit(131_072)),
        (key("net.core.somaxconn"), exactly(4096 * times)),
    ];
    for family in [V4, V6] {
        all.push((family[0].clone(), exactly(0)));
        all.push((family[1].clone(), limit(4096)));
        all.push((family[2].clone(), limit(8192)));
    }
    all
}

/// What happens to a node, one after the other.
#[derive(Debug, Clone, Copy)]
enum Act {
    Apply(u64),
    Overflow,
    Release,
}

const ACTS: [Act; 5] = [
    Act::Apply(2),
    Act::Overflow,
    Act::Apply(8),
    Act::Apply(1),
    Act::Release,
];

/// Where it ends, and how many effects it took. The process ends after the effect of that number.
fn live_through(kill_after: Option<usize>) -> (BTreeMap<SysctlKey, Content>, Agent, usize) {
    let mut kernel = Kernel::new().with(&key("net.core.somaxconn"), 128);
    let before = kernel.values.clone();
    let mut agent = Agent::new(desired(Task::Enforce, &[]));
    let mut effects = 0;
    for act in ACTS {
        match act {
            Act::Apply(times) => {
                let wanted = wanted(times);
                let wanted: Vec<_> = wanted.iter().map(|(key, w)| (key, w.clone())).collect();
                agent.turn_to(Task::Enforce, &wanted);
            }
            Act::Overflow => kernel.overflows.neighbors_ipv4_overflows += 1,
            Act::Release => agent.turn_to(Task::Release, &[]),
        }
        loop {
            let rests = matches!(agent.once(&mut kernel).effect, Effect::Rest { .. });
            for (key, record) in &agent.memory.persisted.records {
                let original = record.original.as_ref();
                assert_eq!(original, before.get(key), "{key} after effect {effects}");
            }
            if rests {
                break;
            }
            if kill_after == Some(effects) {
                // A new process counts from nothing.
                kernel.overflows = OverflowCounters::default();
                agent = Agent::resumed(agent.desired, agent.memory.persisted);
            }
            effects += 1;
        }
    }
    (kernel.values, agent, effects)
}

#[test]
fn result_is_the_same_wherever_the_process_was_killed() {
    let (values, agent, effects) = live_through(None);
    assert_eq!(values[V4[2]], 1024.into());
    assert_eq!(values[MAX], 131_072.into(), "what kube-proxy would set");
    assert!(effects > 30, "{effects}");
    for kill_after in 0..effects {
        let (after, other, _) = live_through(Some(kill_after));
        assert_eq!(values, after, "killed after effect {kill_after}");
        assert_eq!(
            agent.memory.persisted, other.memory.persisted,
            "killed after effect {kill_after}"
        );
    }
}
