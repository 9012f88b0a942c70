//! A node's agent: a shell around the product's `step`, whose effects go to the model's kernel and
//! disk.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nettune_agent::api::merge_patch::difference;
use nettune_agent::kernel::facts::Identity;
use nettune_agent::pressure::conditions::PressureCondition;
use nettune_agent::pressure::monitor::TableConditions;
use nettune_agent::status::NodeReport;
use nettune_crds::{NodeNetworkProfileStatus, ProfileFacts};
use nettune_reconcile::desired::{DesiredState, Revision, Source, Task};
use nettune_reconcile::effect::{Effect, Persisted};
use nettune_reconcile::memory::Memory;
use nettune_reconcile::observed::{Content, Counts, Machine, ObservedState, Seen};
use nettune_reconcile::outcome::KeyReport;

use nettune_reconcile::step::{keys_to_read, step};
use nettune_sizing::{KernelVersion, SysctlKey};
use serde_json::{Value, json};

use crate::api::{Profile, uid};
use crate::host::{Disk, Held, Host, Hosts, Kernel};
use crate::intern::Interned;
use crate::leader::{NOW, boot_id, reckon};
use crate::rules;
use crate::setup::Mutation;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Process {
    pub(crate) memory: Memory,
    /// The profile that it works on.
    source: Option<Arc<Source>>,
    /// The profile as its watch or the answer to its own write brought it.
    pub(crate) profile: Option<Interned<Profile>>,
    rested: Option<Rested>,
}

/// What was found when nothing was left to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Rested {
    revision: Option<Revision>,
    task: Task,
    keys: Vec<KeyReport>,
    released: bool,
}

/// More effects than any goal needs.
const MOST_EFFECTS: usize = 100;

impl Hosts {
    /// The agent is started: of another boot only the goal counts.
    pub(crate) fn start(&self, host: &mut Host) {
        let mut persisted = host.disk.persisted.clone();
        let keeps = self.mutation == Some(Mutation::RebootedAgentKeepsRecords);
        if host.disk.boot != host.kernel.boot && !keeps {
            persisted = Persisted {
                source: persisted.source,
                ..Persisted::default()
            };
        }
        if self.mutation == Some(Mutation::RestartedAgentForgetsOriginals) {
            persisted.records.clear();
        }
        host.process = Some(self.processes.put(Process {
            source: persisted.source.clone(),
            memory: Memory::new(persisted),
            profile: None,
            rested: None,
        }));
    }

    /// The agent's watch, or the answer to its write, brings the profile of this name.
    pub(crate) fn bring(
        &self,
        host: &mut Host,
        name: &'static str,
        profile: Option<&Interned<Profile>>,
    ) {
        let Some(process) = &host.process else { return };
        if process.profile.as_ref() == profile {
            return;
        }
        let key = (process.clone(), profile.cloned(), name);
        host.process = Some(self.brought.get(&key, |(process, profile, name)| {
            let mut process = Process::clone(process);
            process.profile.clone_from(profile);
            process.source = profile.as_ref().map(|profile| source(name, profile));
            self.processes.put(process)
        }));
    }

    /// The same, but of a write only its version and status are taken: the watch brings the spec.
    pub(crate) fn answer(&self, host: &mut Host, profile: &Interned<Profile>) {
        let Some(process) = &host.process else { return };
        let mut process = Process::clone(process);
        process.profile = Some(profile.clone());
        host.process = Some(self.processes.put(process));
    }

    /// Whether the agent has anything to do.
    pub(crate) fn acts(&self, host: &Host) -> bool {
        self.acted(host) != *host
    }

    /// The agent looks, and does what is to be done.
    pub(crate) fn act(&self, host: &mut Host) {
        *host = self.acted(host);
    }

    fn acted(&self, host: &Host) -> Host {
        self.acted.get(host, |host| {
            let mut host = host.clone();
            for _ in 0..MOST_EFFECTS {
                if self.effect(&mut host) || self.fine {
                    return host;
                }
            }
            host.broken = host.broken.or(Some("there is an end of effects"));
            host
        })
    }

    /// One look and one effect: `true` where that was to rest.
    fn effect(&self, host: &mut Host) -> bool {
        let Some(process) = &host.process else {
            return true;
        };
        let mut process = Process::clone(process);
        let goal = goal(&process);
        let live = self.look(&host.kernel, &goal, &process.memory);
        let step = step(&goal, &live, &process.memory, NOW);
        let is_rest = matches!(step.effect, Effect::Rest { .. });
        match &step.effect {
            Effect::Rest { .. } => {
                process.rested = Some(Rested {
                    revision: goal.revision().cloned(),
                    task: goal.task,
                    keys: step.keys,
                    released: step.released,
                });
            }
            Effect::Persist(persisted) => self.save(host, persisted),
            Effect::Set(key, value) => self.write(host, &goal, key, value.clone().into()),
            Effect::Clear(key) => self.write(host, &goal, key, Content::Empty),
        }
        process.memory = step.memory.learn(step.effect, Ok(()), NOW);
        reckon(process.memory.moments_mut(), Duration::ZERO, self.longest);
        host.process = Some(self.processes.put(process));
        is_rest
    }

    fn look(&self, kernel: &Kernel, goal: &DesiredState, memory: &Memory) -> ObservedState {
        let trusts = self.mutation == Some(Mutation::AgentTrustsItsWrites);
        let content = |held: &Held| match &held.written {
            Some(written) if trusts => written.clone(),
            _ => held.content.clone(),
        };
        let seen = |key: SysctlKey| {
            let held = kernel.keys.get(&key);
            let seen = held.map_or(Seen::Missing, |held| Seen::Content(content(held)));
            (key, seen)
        };
        let mut counts = kernel.counts;
        if self.mutation == Some(Mutation::AgentTakesTablesForEmpty) {
            counts = Counts {
                neighbors_ipv4: Some(0),
                neighbors_ipv6: Some(0),
                conntrack: Some(0),
            };
        }
        ObservedState {
            wall: Timestamp::UNIX_EPOCH,
            initial_namespace: true,
            keys: keys_to_read(goal, memory).into_iter().map(seen).collect(),
            counts,
            overflows: kernel.overflows,
            machine: Machine {
                cores: CORES,
                kernel: KernelVersion::parse(RELEASE).ok(),
            },
        }
    }

    fn save(&self, host: &mut Host, persisted: &Persisted) {
        let mut kernel = Kernel::clone(&host.kernel);
        for (key, held) in &mut kernel.keys {
            // What is not on disk any more is over: the next write is a first one.
            if !persisted.records.contains_key(key) {
                held.original = None;
            }
        }
        host.kernel = self.kernels.put(kernel);
        host.disk = self.disks.put(Disk {
            boot: host.kernel.boot,
            persisted: persisted.clone(),
        });
    }

    fn write(&self, host: &mut Host, goal: &DesiredState, key: &SysctlKey, to: Content) {
        let mut kernel = Kernel::clone(&host.kernel);
        if let Some(held) = kernel.keys.get_mut(key) {
            held.original.get_or_insert_with(|| held.content.clone());
            (held.content, held.written) = (to.clone(), Some(to));
        }
        let broken = rules::of_write(goal, key, &host.kernel, &kernel, &host.disk.persisted);
        host.broken = host.broken.or(broken);
        host.kernel = self.kernels.put(kernel);
    }
    /// The status that the agent would write now; `None` where it would write none.
    pub(crate) fn report(&self, host: &Host) -> Option<Arc<Value>> {
        let process = host.process.clone()?;
        self.reported
            .get(&(process, host.kernel.boot), |(process, boot)| {
                let (profile, rested) = (process.profile.as_ref()?, process.rested.as_ref()?);
                let source = process.source.as_ref()?;
                let report = node_report(rested, *boot);
                let about = report.reported_revision().map(|revision| &revision.uid);
                let name = source.revision.uid.rsplit_once('.')?.0;
                if about != Some(&uid(name, profile.life)) {
                    return None;
                }
                let previous: NodeNetworkProfileStatus =
                    serde_json::from_value(profile.status.clone()).unwrap_or_default();
                let status = json!(report.status(&previous, Timestamp::UNIX_EPOCH));
                difference(&profile.status, &status).map(|_| Arc::new(status))
            })
    }
}

fn source(name: &str, profile: &Profile) -> Arc<Source> {
    Arc::new(Source {
        revision: Revision {
            uid: uid(name, profile.life),
            generation: profile.generation,
        },
        spec: json!(*profile.spec),
    })
}

fn goal(process: &Process) -> DesiredState {
    let source = process.source.clone();
    source.map_or_else(DesiredState::default, |source| {
        DesiredState::read(source).expect("a profile of the planner can be read")
    })
}

/// Of every node.
pub(crate) const CORES: u32 = 4;
const RELEASE: &str = "6.1.0";

fn node_report(rested: &Rested, boot: u8) -> NodeReport {
    let nothing = || PressureCondition {
        status: Some(false),
        reason: "NoPressure",
        message: String::new(),
    };
    NodeReport {
        revision: rested.revision.clone(),
        task: rested.task,
        keys: rested.keys.clone(),
        released: rested.released,
        malformed: None,
        tables: None,
        table_conditions: TableConditions {
            neighbors: nothing(),
            conntrack: nothing(),
        },
        facts: ProfileFacts {
            initial_network_namespace: true,
            ..ProfileFacts::default()
        },
        identity: Arc::new(Identity {
            boot_id: boot_id(boot),
            kernel_release: RELEASE.to_owned(),
            base_kernel: None,
            cores: CORES,
        }),
    }
}
