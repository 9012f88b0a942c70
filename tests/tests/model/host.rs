//! A node: its kernel and the agent's disk, what others do to them, and when time alone changes
//! something there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nettune_reconcile::effect::Persisted;
use nettune_reconcile::observed::{Content, Counts, OverflowCounters};
use nettune_sizing::{SysctlKey, Value as SysctlValue};
use serde_json::Value;

use crate::agent::Process;
use crate::api::Found;
use crate::intern::{Interned, Memo, Pool};
use crate::leader::{NOW, reckon};
use crate::rules;
use crate::setup::{Mutation, Setup};

/// The sysctls of one boot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Kernel {
    pub(crate) boot: u8,
    pub(crate) keys: BTreeMap<SysctlKey, Held>,
    pub(crate) counts: Counts,
    pub(crate) overflows: OverflowCounters,
}

/// What one sysctl holds, and what only the model knows of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Held {
    pub(crate) content: Content,
    /// What the agent wrote last.
    pub(crate) written: Option<Content>,
    /// What it held before the agent wrote it for the first time.
    pub(crate) original: Option<Content>,
}

impl Kernel {
    /// Another program than the agent has set a key.
    pub(crate) fn hold(&mut self, name: &str, value: &str) {
        let held = self.keys.iter_mut().find(|(key, _)| key.name() == name);
        if let Some((_, held)) = held {
            held.content = content(value);
        }
    }
}

pub(crate) fn content(value: &str) -> Content {
    SysctlValue::parse(value).map_or(Content::Empty, Content::Value)
}

impl Held {
    pub(crate) fn is_ours(&self) -> bool {
        self.written.as_ref() == Some(&self.content)
    }
}

/// What the agent has saved.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) boot: u8,
    pub(crate) persisted: Persisted,
}

/// The parts of a node that its agent moves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Host {
    pub(crate) kernel: Interned<Kernel>,
    pub(crate) disk: Interned<Disk>,
    pub(crate) process: Option<Interned<Process>>,
    /// The rule that was broken here.
    pub(crate) broken: Option<&'static str>,
}

impl Host {
    /// Whether the agent or its disk knows an object by this uid.
    pub(crate) fn names(&self, uid: &str) -> bool {
        let process = self.process.as_ref();
        self.disk.names(uid) || process.is_some_and(|process| process.names(uid))
    }
}

pub(crate) struct Hosts {
    /// One effect is one action; else all effects up to a rest are.
    pub(crate) fine: bool,
    pub(crate) longest: Duration,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) kernels: Pool<Kernel>,
    pub(crate) disks: Pool<Disk>,
    pub(crate) processes: Pool<Process>,
    pub(crate) acted: Memo<Host, Host>,
    pub(crate) later: Memo<(Interned<Process>, Duration), Interned<Process>>,
    /// The profile's name too: profiles of two nodes may be equal.
    pub(crate) brought: Memo<(Interned<Process>, Found, &'static str), Interned<Process>>,
    pub(crate) due: Memo<Host, Option<Duration>>,
    pub(crate) reported: Memo<(Interned<Process>, u8), Option<Arc<Value>>>,
}

impl Hosts {
    pub(crate) fn new(setup: &Setup) -> Self {
        Self {
            fine: setup.fine,
            longest: setup.longest,
            mutation: setup.mutation,
            kernels: Pool::default(),
            disks: Pool::default(),
            processes: Pool::default(),
            acted: Memo::default(),
            later: Memo::default(),
            brought: Memo::default(),
            due: Memo::default(),
            reported: Memo::default(),
        }
    }

    /// A node that was just booted for the first time, with an agent.
    pub(crate) fn boot(&self, kernel: Kernel) -> Host {
        let mut host = Host {
            kernel: self.kernels.put(kernel),
            disk: self.disks.put(Disk::default()),
            process: None,
            broken: None,
        };
        self.start(&mut host);
        host
    }

    /// Another boot: the kernel holds what it boots with, the disk what it held.
    pub(crate) fn reboot(&self, host: &mut Host, kernel: Kernel) {
        host.kernel = self.kernels.put(kernel);
        self.start(host);
    }

    /// Another node under the same name: its disk is empty.
    pub(crate) fn replace(&self, host: &mut Host, kernel: Kernel) {
        host.disk = self.disks.put(Disk::default());
        self.reboot(host, kernel);
    }
    /// Another program changes what the kernel holds.
    pub(crate) fn disturb(&self, host: &mut Host, change: impl FnOnce(&mut Kernel)) {
        let mut kernel = Kernel::clone(&host.kernel);
        change(&mut kernel);
        host.kernel = self.kernels.put(kernel);
    }

    /// After how long the agent would do something although nothing changes; `None`: never, or at once.
    pub(crate) fn due(&self, host: &Host) -> Option<Duration> {
        self.due.get(host, |host| {
            let process = host.process.as_ref()?;
            if self.acts(host) {
                return None;
            }
            let mut moments: Vec<Duration> = Vec::new();
            let mut memory = process.memory.clone();
            for moment in memory.moments_mut() {
                let since = NOW.since(*moment);
                moments.push(moment.since(NOW));
                moments.extend(rules::WAITS.map(|wait| wait.saturating_sub(since)));
            }
            moments.retain(|moment| !moment.is_zero());
            moments.sort_unstable();
            moments.dedup();
            moments.into_iter().find(|moment| {
                let mut then = host.clone();
                self.pass(&mut then, *moment);
                self.acts(&then)
            })
        })
    }

    pub(crate) fn pass(&self, host: &mut Host, time: Duration) {
        let Some(process) = &host.process else { return };
        let later = self.later.get(&(process.clone(), time), |(process, time)| {
            let mut process = Process::clone(process);
            reckon(process.memory.moments_mut(), *time, self.longest);
            self.processes.put(process)
        });
        host.process = Some(later);
    }
}
