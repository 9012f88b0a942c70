//! A whole cluster: a control plane, two operators, and nodes with agents over directories.
//!
//! Operators and agents have the rights of their service accounts and no more, reach the API server through a
//! [`Proxy`], and are started again when they end, as a kubelet does. What they write is in an [`Audit`].

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use tokio::time::sleep;

use crate::control_plane::audit::{Audit, Mark, Request};
use crate::control_plane::proxy::Proxy;
use crate::control_plane::{
    ControlPlane, ControlPlaneConfig, ControlPlaneError, KubectlError, StaticToken,
};
use crate::nodes::{self, NodeSpec};
use crate::process::ProcessError;
use crate::programs::Program;
use crate::workspace::MissingBinary;
use nettune_test_support::{FakeNode, FakeNodeError};

mod assertions;
pub mod chaos;
mod member;
mod rights;
mod sampler;

pub use assertions::DesiredValue;
pub use member::Member;
pub use rights::{AGENT, BINDINGS, OPERATOR};
pub use sampler::Sampler;

const OPERATORS: usize = 2;
/// How much of each log goes into an error.
const LOG_LINES: usize = 12;
const POLL: Duration = Duration::from_millis(100);

/// Configuration of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    pub nodes: u16,
    /// Duration of the operators' Lease in seconds, from 3 to 600.
    pub lease_seconds: u16,
    /// Environment variables: the program (`operator-0`, `node-0`), name and value.
    pub environment: Vec<(String, String, String)>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            nodes: 3,
            lease_seconds: 8,
            environment: Vec::new(),
        }
    }
}

/// Why a cluster does not run or is in the wrong state.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    #[error(transparent)]
    Directory(#[from] FakeNodeError),
    #[error(transparent)]
    Missing(#[from] MissingBinary),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("the API server refuses the harness")]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Kubectl(#[from] KubectlError),
    #[error("cannot use a file or a port of the harness")]
    Io(#[from] io::Error),
    #[error("not so after {} s: {last}\n{logs}", waited.as_secs())]
    NotSo {
        waited: Duration,
        last: String,
        logs: String,
    },
}

/// A node: its Node object, a fake kernel, and its agent.
#[derive(Debug)]
pub struct Machine {
    /// The Node object's content.
    pub spec: NodeSpec,
    /// The fake kernel.
    pub directory: FakeNode,
    /// Its sysctls before any agent ran.
    pub originals: std::collections::BTreeMap<String, String>,
    pub agent: Member,
}

/// A cluster; its parts end in this order.
#[derive(Debug)]
pub struct Cluster {
    pub operators: Vec<Member>,
    pub machines: Vec<Machine>,
    /// Proxies to the API server: one for each operator, in their order, and one for all agents.
    pub proxies: Vec<Proxy>,
    /// The API server and its etcd.
    pub control_plane: ControlPlane,
    /// What was asked of the API server.
    pub audit: Audit,
    config: ClusterConfig,
}

impl Cluster {
    /// Starts one with CRDs, Ready Nodes, operators and agents, but no tuning.
    pub async fn start(config: ClusterConfig) -> Result<Self, ClusterError> {
        let audit = Audit::new()?;
        let control_plane = ControlPlane::start(ControlPlaneConfig {
            tokens: vec![
                StaticToken::of(OPERATOR, "token-of-the-operator"),
                StaticToken::of(AGENT, "token-of-the-agents"),
            ],
            api_server_flags: audit.flags(),
        })
        .await?;
        control_plane.install_crds().await?;
        control_plane.apply(rights::ROLES).await?;
        control_plane.apply(BINDINGS).await?;
        let dir = control_plane.dir();
        let mut proxies = Vec::new();
        let mut operators = Vec::new();
        for index in 0..OPERATORS {
            let name = format!("operator-{index}");
            let proxy = Proxy::to(control_plane.port())?;
            let (port, token) = (proxy.port(), "token-of-the-operator");
            let kubeconfig = control_plane.kubeconfig_through(port, &name, token)?;
            operators.push(Member::new(&name, &kubeconfig, dir));
            proxies.push(proxy);
        }
        let proxy = Proxy::to(control_plane.port())?;
        let (port, token) = (proxy.port(), "token-of-the-agents");
        let agents = control_plane.kubeconfig_through(port, "agents", token)?;
        proxies.push(proxy);
        let client = control_plane.client().await?;
        let mut machines = Vec::new();
        for index in 0..config.nodes {
            let spec = NodeSpec {
                pods: 64,
                ..NodeSpec::worker(&format!("node-{index}"), index)
            };
            nodes::create(&client, &spec).await?;
            let directory = FakeNode::new(&spec.boot_id)?;
            machines.push(Machine {
                originals: directory.sysctls()?,
                agent: Member::new(&spec.name, &agents, dir),
                spec,
                directory,
            });
        }
        let mut cluster = Self {
            operators,
            machines,
            proxies,
            control_plane,
            audit,
            config,
        };
        cluster.revive()?;
        Ok(cluster)
    }

    /// Restarts programs that have ended.
    pub fn revive(&mut self) -> Result<(), ClusterError> {
        let environment = &self.config.environment;
        let seconds = self.config.lease_seconds.to_string();
        for operator in &mut self.operators {
            let command = |kubeconfig: &Path| {
                Program::operator_command(kubeconfig, &["--lease-seconds", &seconds])
            };
            operator.revive(command, environment)?;
        }
        for machine in &mut self.machines {
            let (spec, directory) = (&machine.spec, &machine.directory);
            let command =
                |kubeconfig: &Path| Program::agent_command(kubeconfig, &spec.name, directory);
            machine.agent.revive(command, environment)?;
        }
        Ok(())
    }

    /// An administrator's client, for the runtime of the caller.
    pub async fn client(&self) -> Result<kube::Client, ClusterError> {
        Ok(self.control_plane.client().await?)
    }

    /// Waits until `look` succeeds, and restarts programs that end meanwhile. Returns how long it took.
    pub async fn until<E: std::fmt::Display>(
        &mut self,
        deadline: Duration,
        mut look: impl AsyncFnMut(&Self) -> Result<(), E>,
    ) -> Result<Duration, ClusterError> {
        let began = Instant::now();
        loop {
            self.revive()?;
            let Err(why) = look(self).await else {
                return Ok(began.elapsed());
            };
            if began.elapsed() > deadline {
                return Err(ClusterError::NotSo {
                    waited: began.elapsed(),
                    last: why.to_string(),
                    logs: self.logs(),
                });
            }
            sleep(POLL).await;
        }
    }

    /// Waits until every node holds the desired values and every status says so.
    pub async fn comes_right(
        &mut self,
        client: &kube::Client,
        wanted: &DesiredValue<'_>,
        deadline: Duration,
    ) -> Result<Duration, ClusterError> {
        let look = async |cluster: &Self| cluster.is_right(client, wanted).await;
        self.until(deadline, look).await
    }

    /// Fails unless every node's kernel holds these values now, whatever the API says.
    pub fn all_hold(&self, values: &[(&str, &str)]) -> Result<(), String> {
        let mut all = self.machines.iter();
        all.try_for_each(|machine| machine.holds(values))
    }

    /// Waits until every node's kernel holds these values.
    pub async fn holds(
        &mut self,
        values: &[(&str, &str)],
        deadline: Duration,
    ) -> Result<Duration, ClusterError> {
        let look = async |cluster: &Self| cluster.all_hold(values);
        self.until(deadline, look).await
    }

    /// The ends of all logs.
    fn logs(&self) -> String {
        let agents = self.machines.iter().map(|machine| &machine.agent);
        let everybody = self.operators.iter().chain(agents);
        everybody.fold(String::new(), |mut all, member| {
            let end = member.end_of_log(LOG_LINES);
            let _ = writeln!(
                all,
                "--- {}, started {} times\n{end}",
                member.name(),
                member.starts()
            );
            all
        })
    }

    /// Which operator leads, by the Lease and its log; none if the holder is gone.
    pub async fn leader(&self, client: &kube::Client) -> Result<Option<usize>, ClusterError> {
        let leases = Api::<Lease>::namespaced(client.clone(), "default");
        let spec = leases.get("nettune-operator").await?.spec;
        let holder = spec.and_then(|spec| spec.holder_identity);
        let holder = holder.filter(|holder| !holder.is_empty());
        Ok(holder.and_then(|holder| {
            let leads = |operator: &Member| {
                let log = operator.log();
                let last = log.lines().rfind(|line| line.contains("\"leading\""));
                last.is_some_and(|line| line.contains(&holder))
            };
            self.operators.iter().position(leads)
        }))
    }

    /// The writes of operators and agents since then.
    pub fn writes(&self, since: Mark) -> Result<Vec<Request>, ClusterError> {
        let requests = self.audit.since(since)?.into_iter();
        let ours = |request: &Request| matches!(request.user.as_str(), OPERATOR | AGENT);
        Ok(requests
            .filter(|request| request.is_write() && ours(request))
            .collect())
    }

    /// Waits until operators and agents have written nothing for this long.
    pub async fn rests(&mut self, calm: Duration, deadline: Duration) -> Result<(), ClusterError> {
        let began = Instant::now();
        loop {
            let mark = self.audit.mark();
            sleep(calm).await;
            let writes = self.writes(mark)?;
            if writes.is_empty() {
                return Ok(());
            }
            if began.elapsed() > deadline {
                return Err(ClusterError::NotSo {
                    waited: began.elapsed(),
                    last: writes
                        .iter()
                        .fold("still written:".to_owned(), |reported, write| {
                            format!("{reported}\n{write}")
                        }),
                    logs: self.logs(),
                });
            }
        }
    }
}

impl Machine {
    fn holds(&self, values: &[(&str, &str)]) -> Result<(), String> {
        for (name, wanted) in values {
            let held = self.directory.sysctl(name);
            let held = held.map_err(|error| error.to_string())?;
            if held != *wanted {
                return Err(format!(
                    "{}: {name} is {held}, not {wanted}",
                    self.spec.name
                ));
            }
        }
        Ok(())
    }
}
