//! Agents without a kernel, thousands in one process: the real link, the real step and the real report,
//! over sysctls that are kept in a map.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nettune_agent::agent::ProfileUpdate;
use nettune_agent::api::profile_watch::ProfileWatch;
use nettune_agent::kernel::facts::Identity;
use nettune_agent::kernel::sysctl::Roots;
use nettune_agent::metrics::Metrics;
use nettune_agent::pressure::monitor::TableMonitor;
use nettune_agent::status::NodeReport;
use nettune_crds::ProfileFacts;
use nettune_reconcile::desired::DesiredState;
use nettune_reconcile::effect::{Effect, Persisted};
use nettune_reconcile::memory::Memory;
use nettune_reconcile::observed::{
    Content, Counts, Machine, ObservedState, OverflowCounters, Seen,
};

use nettune_reconcile::step::{keys_to_read, step};
use nettune_sizing::Mono;
use nettune_sizing::SysctlKey;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster;

/// Agents that run until it is dropped.
pub(crate) struct Fleet {
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts an agent, with a connection of its own, for each of the first so many nodes.
    pub(crate) fn start(kubeconfig: &Path, nodes: u16) -> Self {
        let mut tasks = JoinSet::new();
        let metrics = Metrics::register(&mut Registry::default());
        for index in 0..nodes {
            let node = cluster::name(index);
            let (update, updates) = watch::channel(None);
            let (report, reports) = watch::channel(None);
            let kubeconfig = Some(kubeconfig.to_owned());
            let watch = ProfileWatch::new(kubeconfig, &node, update, reports, metrics.clone());
            tasks.spawn(async move {
                if let Err(error) = watch.run(CancellationToken::new()).await {
                    eprintln!("an agent has ended: {error}");
                }
            });
            tasks.spawn(Agent::new(&cluster::boot_id(index)).run(updates, report));
        }
        Self { tasks }
    }

    /// How many parts of agents run; all of them, or something is wrong.
    pub(crate) fn running(&self) -> usize {
        self.tasks.len() / 2
    }
}

struct Agent {
    identity: Arc<Identity>,
    kernel: BTreeMap<SysctlKey, Content>,
    memory: Memory,
    started: Instant,
}

impl Agent {
    fn new(boot_id: &str) -> Self {
        Self {
            identity: Arc::new(Identity {
                boot_id: boot_id.to_owned(),
                kernel_release: "6.1.0-56-cloud-amd64".to_owned(),
                base_kernel: None,
                cores: 8,
            }),
            kernel: BTreeMap::new(),
            memory: Memory::new(Persisted::default()),
            started: Instant::now(),
        }
    }

    async fn run(
        mut self,
        mut updates: watch::Receiver<Option<ProfileUpdate>>,
        report: watch::Sender<Option<Arc<NodeReport>>>,
    ) {
        while updates.changed().await.is_ok() {
            let update = updates.borrow_and_update().clone();
            let Some(ProfileUpdate::Profile(source)) = update else {
                continue;
            };
            match DesiredState::read(source) {
                Ok(goal) => report.send_replace(Some(Arc::new(self.reach(&goal)))),
                Err(error) => {
                    eprintln!("a profile cannot be read: {error}");
                    continue;
                }
            };
        }
    }

    /// Takes one effect after the other until nothing is left, as the real agent does.
    fn reach(&mut self, goal: &DesiredState) -> NodeReport {
        loop {
            let now = Mono::at(self.started.elapsed());
            let step = step(goal, &self.live(goal), &self.memory, now);
            match &step.effect {
                Effect::Rest { .. } => {
                    self.memory = step.memory;
                    return NodeReport {
                        revision: goal.revision().cloned(),
                        task: goal.task,
                        keys: step.keys,
                        released: step.released,
                        malformed: None,
                        tables: None,
                        table_conditions: TableMonitor::new(&nowhere()).conditions(now),
                        facts: ProfileFacts {
                            initial_network_namespace: true,
                            ipv6: true,
                            ..ProfileFacts::default()
                        },
                        identity: Arc::clone(&self.identity),
                    };
                }
                Effect::Set(key, value) => {
                    self.kernel.insert(key.clone(), value.clone().into());
                }
                Effect::Clear(key) => {
                    self.kernel.insert(key.clone(), Content::Empty);
                }
                Effect::Persist(_) => {}
            }
            self.memory = step.memory.learn(step.effect, Ok(()), now);
        }
    }

    fn live(&self, goal: &DesiredState) -> ObservedState {
        let seen = |key: SysctlKey| {
            // Every key is there, with a small number.
            let content = self.kernel.get(&key).cloned();
            let content = content.unwrap_or_else(|| 1_u64.into());
            (key, Seen::Content(content))
        };
        ObservedState {
            initial_namespace: true,
            keys: keys_to_read(goal, &self.memory)
                .into_iter()
                .map(seen)
                .collect(),
            counts: Counts {
                neighbors_ipv4: Some(0),
                neighbors_ipv6: Some(0),
                conntrack: Some(0),
            },
            overflows: OverflowCounters::default(),
            machine: Machine {
                cores: 8,
                kernel: None,
            },
            wall: Default::default(),
        }
    }
}

/// No counters: no pressure.
fn nowhere() -> Roots {
    Roots {
        sysctl: "/nonexistent".into(),
        proc: "/nonexistent".into(),
    }
}
