//! The environment of the agent: its node, the kernel's files, the state directory.

use std::path::PathBuf;
use std::sync::Arc;

use nettune_agent::agent::{AgentConfig, ProfileUpdate};
use nettune_agent::kernel::facts::Identity;
use nettune_agent::kernel::sysctl::Roots;
use nettune_agent::metrics::Metrics;
use nettune_agent::standalone::host::ClusterHints;
use nettune_agent::standalone::policy::Host;
use nettune_agent::standalone::policy_watch::{PolicyMetrics, PolicyWatch};
use nettune_agent::state::store::StateDir;
use nettune_agent::status::NodeReport;
use nettune_runtime::error;
use tokio::sync::watch;

use crate::cmd::args::HostArguments;

/// A node with its files.
pub(crate) struct HostEnv {
    pub(crate) node: String,
    pub(crate) roots: Roots,
    pub(crate) identity: Arc<Identity>,
    state_dir: PathBuf,
}

impl HostEnv {
    /// Without a name, the hostname is used.
    pub(crate) fn of(arguments: &HostArguments, node: Option<String>) -> anyhow::Result<Self> {
        let roots = arguments.roots();
        // Otherwise the node would look like a container.
        let sysctls = roots.sysctl.join("net");
        anyhow::ensure!(
            sysctls.is_dir(),
            "{} does not exist: --sysctl-root must be the host's /proc/sys, or the path in the pod below \
             which /proc/sys/net is mounted as net",
            sysctls.display()
        );
        let host_name = || {
            let name = rustix::system::uname();
            name.nodename().to_string_lossy().into_owned()
        };
        Ok(Self {
            node: node.unwrap_or_else(host_name),
            identity: Arc::new(Identity::read(&roots)?),
            roots,
            state_dir: arguments.state_dir.clone(),
        })
    }

    pub(crate) fn state(&self) -> StateDir {
        StateDir::new(&self.state_dir, &self.node, &self.identity.boot_id)
    }

    pub(crate) fn host(&self, hints: ClusterHints) -> Host {
        Host {
            roots: self.roots.clone(),
            identity: Arc::clone(&self.identity),
            hints,
        }
    }

    pub(crate) fn agent_config(
        &self,
        metrics: Metrics,
        reports: watch::Sender<Option<Arc<NodeReport>>>,
    ) -> AgentConfig {
        AgentConfig {
            node: self.node.clone(),
            roots: self.roots.clone(),
            identity: Arc::clone(&self.identity),
            state: self.state(),
            metrics,
            reports,
        }
    }

    /// A policy file of this host; an earlier process may have saved a profile from it.
    pub(crate) fn standalone(
        &self,
        path: PathBuf,
        hints: ClusterHints,
        metrics: PolicyMetrics,
    ) -> PolicyWatch {
        // An unusable state is set aside, and reported, by the agent.
        let last = self.state().peek().ok().and_then(|state| state.source);
        PolicyWatch::new(path, self.host(hints), last, metrics)
    }
}

/// The policy at startup; `None` if it cannot be used and the last saved profile is applied instead.
///
/// # Errors
/// When it cannot be used and nothing was saved.
pub(crate) fn first_update(policy: &mut PolicyWatch) -> anyhow::Result<Option<ProfileUpdate>> {
    match policy.load() {
        Ok(update) => Ok(Some(update)),
        Err(error) if policy.remembers() => {
            let error = error::chain(&error);
            tracing::error!(
                error,
                "cannot use the policy; the last saved profile stays in force"
            );
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
