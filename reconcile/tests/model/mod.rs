//! A model of the kernel, and an agent over it without any I/O.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail them"
)]

pub(crate) mod simulation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nettune_reconcile::desired::{DesiredState, Revision, Source, Task};
use nettune_reconcile::effect::{Effect, Persisted};
use nettune_reconcile::memory::Memory;
use nettune_reconcile::observed::{
    Content, Counts, Machine, ObservedState, OverflowCounters, Seen,
};
use nettune_reconcile::outcome::KeyReport;

use nettune_reconcile::step::{Step, keys_to_read, step};
use nettune_sizing::{DesiredValue, KernelVersion, Mono, SysctlKey, Value, keys};
use rustix::io::Errno;

pub(crate) const V4: [&SysctlKey; 3] = [
    &keys::IPV4_GC_THRESH1,
    &keys::IPV4_GC_THRESH2,
    &keys::IPV4_GC_THRESH3,
];
pub(crate) const V6: [&SysctlKey; 3] = [
    &keys::IPV6_GC_THRESH1,
    &keys::IPV6_GC_THRESH2,
    &keys::IPV6_GC_THRESH3,
];
pub(crate) const MAX: &SysctlKey = &keys::NF_CONNTRACK_MAX;
pub(crate) const BUCKETS: &SysctlKey = &keys::NF_CONNTRACK_BUCKETS;

/// The time of day, on a machine that was started on the first day of 2026.
pub(crate) fn wall(now: Mono) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00.7Z".parse().unwrap();
    let running = SignedDuration::try_from(now.since(Mono::default())).unwrap();
    start.saturating_add(running).unwrap()
}

pub(crate) fn key(name: &str) -> SysctlKey {
    SysctlKey::parse(name).unwrap()
}

/// A kernel that keeps what is written, rounds what the real one rounds, and checks the rules that
/// hold at every instant.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) values: BTreeMap<SysctlKey, Content>,
    pub(crate) counts: Counts,
    pub(crate) initial_namespace: bool,
    pub(crate) overflows: OverflowCounters,
    pub(crate) machine: Machine,
    /// What a write of a key is answered with instead.
    pub(crate) refuses: BTreeMap<SysctlKey, Errno>,
    /// What a write of a key becomes.
    pub(crate) turns_into: BTreeMap<SysctlKey, Content>,
    /// Every write that was tried.
    pub(crate) writes: Vec<(SysctlKey, Content)>,
}

impl Kernel {
    /// The defaults of a small machine, and nothing in its tables.
    pub(crate) fn new() -> Self {
        let defaults: [(&SysctlKey, u64); 8] = [
            (V4[0], 128),
            (V4[1], 512),
            (V4[2], 1024),
            (V6[0], 128),
            (V6[1], 512),
            (V6[2], 1024),
            (MAX, 65_536),
            (BUCKETS, 65_536),
        ];
        Self {
            values: defaults
                .into_iter()
                .map(|(key, number)| (key.clone(), number.into()))
                .collect(),
            counts: Counts {
                neighbors_ipv4: Some(0),
                neighbors_ipv6: Some(0),
                conntrack: Some(0),
            },
            initial_namespace: true,
            overflows: OverflowCounters::default(),
            machine: Machine {
                cores: 2,
                kernel: KernelVersion::parse("6.1.0-18-amd64").ok(),
            },
            refuses: BTreeMap::new(),
            turns_into: BTreeMap::new(),
            writes: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, key: &SysctlKey, number: u64) -> Self {
        self.set(key, number);
        self
    }

    /// Somebody else writes.
    pub(crate) fn set(&mut self, key: &SysctlKey, number: u64) {
        self.values.insert(key.clone(), number.into());
    }

    pub(crate) fn number(&self, key: &SysctlKey) -> Option<u64> {
        self.values.get(key).and_then(Content::number)
    }

    pub(crate) fn thresholds(&self, family: [&SysctlKey; 3]) -> [u64; 3] {
        family.map(|key| self.number(key).unwrap())
    }

    fn observed(&self, desired: &DesiredState, memory: &Memory, now: Mono) -> ObservedState {
        let seen = |key: SysctlKey| {
            let seen = self
                .values
                .get(&key)
                .cloned()
                .map_or(Seen::Missing, Seen::Content);
            (key, seen)
        };
        ObservedState {
            initial_namespace: self.initial_namespace,
            keys: keys_to_read(desired, memory)
                .into_iter()
                .map(seen)
                .collect(),
            counts: self.counts,
            overflows: self.overflows,
            machine: self.machine,
            wall: wall(now),
        }
    }

    /// The agent writes.
    fn write(&mut self, key: &SysctlKey, content: Content) -> Result<(), Errno> {
        let ordered = [V4, V6].map(|family| self.is_ordered(family));
        let before = self.number(key);
        self.writes.push((key.clone(), content.clone()));
        if let Some(errno) = self.refuses.get(key) {
            return Err(*errno);
        }
        if !self.values.contains_key(key) {
            return Err(Errno::NOENT);
        }
        let becomes = match self.turns_into.get(key) {
            Some(other) => other.clone(),
            None if key == BUCKETS => content
                .number()
                .unwrap()
                .div_ceil(512)
                .saturating_mul(512)
                .into(),
            None => content,
        };
        self.values.insert(key.clone(), becomes);
        for (family, was_ordered) in [V4, V6].into_iter().zip(ordered) {
            let thresholds = || family.map(|key| self.number(key));
            assert!(
                !was_ordered || self.is_ordered(family),
                "{key} breaks {:?}",
                thresholds()
            );
        }
        self.assert_not_lowered_too_far(key, before);
        Ok(())
    }

    pub(crate) fn is_ordered(&self, family: [&SysctlKey; 3]) -> bool {
        let numbers: Vec<u64> = family.iter().filter_map(|key| self.number(key)).collect();
        numbers.windows(2).all(|pair| pair[0] < pair[1])
    }

    fn assert_not_lowered_too_far(&self, key: &SysctlKey, before: Option<u64>) {
        let count = match key {
            key if key == MAX => self.counts.conntrack,
            key if V4[1..].contains(&key) => self.counts.neighbors_ipv4,
            key if V6[1..].contains(&key) => self.counts.neighbors_ipv6,
            _ => return,
        };
        let (Some(before), Some(after)) = (before, self.number(key)) else {
            return;
        };
        assert!(key != MAX || after != 0, "unlimited");
        // What is taken off the kernel's highest number, so that the order has room, is no lowering.
        if after < before && after < i32::MAX as u64 - 2 {
            assert!(
                after >= 2 * count.unwrap(),
                "{key} lowered to {after} with {count:?} entries"
            );
        }
    }
}

/// An agent over a model kernel.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) desired: DesiredState,
    pub(crate) memory: Memory,
    pub(crate) now: Mono,
    /// Effects that were performed, of the process that lives now.
    pub(crate) effects: usize,
    /// How often another process changed a key.
    pub(crate) drifts: Vec<SysctlKey>,
}

/// More effects than any profile needs: a write per key, a second one that follows, and saves.
pub(crate) const MOST_EFFECTS: usize = 60;

impl Agent {
    pub(crate) fn new(desired: DesiredState) -> Self {
        Self::resumed(desired, Persisted::default())
    }

    /// A process that starts with what an earlier one left on disk.
    pub(crate) fn resumed(desired: DesiredState, persisted: Persisted) -> Self {
        Self {
            desired,
            memory: Memory::new(persisted),
            now: Mono::default(),
            effects: 0,
            drifts: Vec::new(),
        }
    }

    /// Looks and performs one effect.
    pub(crate) fn once(&mut self, kernel: &mut Kernel) -> Step {
        let step = step(
            &self.desired,
            &kernel.observed(&self.desired, &self.memory, self.now),
            &self.memory,
            self.now,
        );
        self.drifts
            .extend(step.drifts.iter().map(|drift| drift.key.clone()));
        let outcome = match &step.effect {
            Effect::Set(key, value) => kernel.write(key, value.clone().into()),
            Effect::Clear(key) => kernel.write(key, Content::Empty),
            Effect::Persist(_) | Effect::Rest { .. } => Ok(()),
        };
        self.memory = step
            .memory
            .clone()
            .learn(step.effect.clone(), outcome, self.now);
        self.effects += 1;
        step
    }

    /// Goes on until there is nothing left to do, and says how each key stands.
    pub(crate) fn settle(&mut self, kernel: &mut Kernel) -> Settled {
        for _ in 0..MOST_EFFECTS {
            let step = self.once(kernel);
            if let Effect::Rest { .. } = step.effect {
                return Settled(step);
            }
        }
        panic!(
            "no end of effects: {:?}",
            &kernel.writes[kernel.writes.len() - 10..]
        );
    }

    pub(crate) fn wait(&mut self, wait: Duration) {
        self.now = self.now.after(wait);
    }

    /// A new profile, of the next generation.
    pub(crate) fn turn_to(&mut self, task: Task, wanted: &[(&SysctlKey, DesiredValue)]) {
        let generation = self
            .desired
            .revision()
            .map_or(0, |revision| revision.generation);
        self.desired = desired_of_generation(task, wanted, generation + 1);
    }
}

/// How each key stands when nothing is left to do.
#[derive(Debug)]
pub(crate) struct Settled(pub Step);

impl Settled {
    pub(crate) fn key(&self, key: &SysctlKey) -> &KeyReport {
        let report = self
            .0
            .keys
            .iter()
            .find(|report| &*report.name == key.name());
        report.unwrap_or_else(|| panic!("nothing of {key}"))
    }
}

pub(crate) fn desired(task: Task, wanted: &[(&SysctlKey, DesiredValue)]) -> DesiredState {
    desired_of_generation(task, wanted, 1)
}

fn desired_of_generation(
    task: Task,
    wanted: &[(&SysctlKey, DesiredValue)],
    generation: i64,
) -> DesiredState {
    let revision = Revision {
        uid: "uid".to_owned(),
        generation,
    };
    let spec = serde_json::Value::Null;
    DesiredState {
        source: Some(Arc::new(Source { revision, spec })),
        tuning: "default".to_owned(),
        task,
        values: wanted
            .iter()
            .map(|(key, wanted)| ((*key).clone(), wanted.clone()))
            .collect(),
        ..DesiredState::default()
    }
}

pub(crate) fn at_least(floor: u64) -> DesiredValue {
    DesiredValue::at_least(floor, u64::from(u32::MAX))
}

pub(crate) fn exactly(number: u64) -> DesiredValue {
    DesiredValue::exactly(number)
}

pub(crate) fn text(value: &str) -> Content {
    Content::Value(Value::parse(value).unwrap())
}

/// A desired for the IPv4 thresholds as the operator sizes them where addresses are soon reused.
pub(crate) fn thresholds(
    one: u64,
    two: u64,
    three: u64,
) -> Vec<(&'static SysctlKey, DesiredValue)> {
    vec![
        (V4[0], exactly(one)),
        (V4[1], at_least(two)),
        (V4[2], at_least(three)),
    ]
}

/// What was written, in its order, as `gc_thresh3=8192`.
pub(crate) fn written(kernel: &Kernel) -> Vec<String> {
    let leaf = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let writes = kernel.writes.iter();
    writes
        .map(|(key, content)| format!("{}={content}", leaf(key.name())))
        .collect()
}
