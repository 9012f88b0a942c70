//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use nettune_agent::kernel::sandbox::Needs;
use nettune_agent::kernel::sysctl::Roots;
use nettune_agent::standalone::host::ClusterHints;

const EXAMPLES: &str = "\
Examples:
  In a cluster, with the profile that the operator has written for this node:
    nettune-agent --node-name \"$(hostname)\" --kubeconfig /etc/nettune/kubeconfig

  With no cluster at all: what would be changed on this host, and then keep it that way:
    nettune-agent check --policy /etc/nettune/policy.yaml
    nettune-agent --policy /etc/nettune/policy.yaml --nodes 200

  Apply and end, as an init container or a systemd unit does:
    nettune-agent --policy /etc/nettune/policy.yaml --once

Exit codes of --once and check: 0 all is as wanted, as far as it can be by now (keys that wait for a
module are listed); 2 something is not (--once), or would be changed (check); 1 an error.
TableMonitor: SIGTERM ends, SIGHUP reads the policy again. See docs/standalone.md.";

/// Keeps the kernel network tables of this node as its NodeNetworkProfile says, or as a policy file
/// does where there is no cluster.
///
/// It writes allow-listed sysctls below net/ and nothing else, needs no Linux capability, and goes on
/// with what it was told last while the API server is away, from its own start on.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = EXAMPLES,
    after_long_help = EXAMPLES
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print what would be changed on this host and why; writes nothing
    Check(CheckArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Name of this node; its profile has the same name [default with --policy: the host's name]
    #[arg(long, env = "NODE_NAME", required_unless_present = "policy")]
    pub(crate) node_name: Option<String>,
    #[command(flatten)]
    pub(crate) host: HostArguments,
    /// Address of /metrics, /healthz and /readyz; port 0 takes a free one and logs it
    #[arg(long, default_value = "127.0.0.1:9464")]
    pub(crate) listen: SocketAddr,
    /// The kubeconfig to reach the API server with; without it, the pod's service account. Not used
    /// with --policy
    #[arg(long, env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Apply, and end; the exit code says whether all is applied
    #[arg(long)]
    pub(crate) once: bool,
    /// How many seconds --once waits for the API server or for a profile; what was kept of the last
    /// profile is applied before
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 10,
        requires = "once",
        conflicts_with = "policy"
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// No cluster: the NodeNetworkTuning to apply to this host, in YAML or JSON. It is read again
    /// when it changes; one that cannot be used changes nothing
    #[arg(long, value_name = "TUNING.yaml", help_heading = "No cluster")]
    pub(crate) policy: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) hints: ClusterHintArguments,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The NodeNetworkTuning to check this host against, in YAML or JSON
    #[arg(long, value_name = "TUNING.yaml")]
    pub(crate) policy: PathBuf,
    /// Name of this node [default: the host's name]
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: Option<String>,
    #[command(flatten)]
    pub(crate) host: HostArguments,
    #[command(flatten)]
    pub(crate) hints: ClusterHintArguments,
}

#[derive(Debug, Args)]
pub(crate) struct HostArguments {
    /// What stands for /proc/sys: in a pod, where the host's is mounted
    #[arg(long, default_value = "/proc/sys")]
    sysctl_root: PathBuf,
    /// What stands for /proc: counters, routes, boot id
    #[arg(long, default_value = "/proc")]
    proc_root: PathBuf,
    /// Where originals and the last goal are kept across restarts
    #[arg(long, default_value = "/var/lib/nettune")]
    pub(crate) state_dir: PathBuf,
}

impl RunArguments {
    /// What the agent has to be able to do. The state directory is made: what is not there cannot be
    /// named to the kernel.
    pub(crate) fn needs(&self) -> Needs {
        let state_dir = &self.host.state_dir;
        if let Err(error) = std::fs::create_dir_all(state_dir) {
            let (path, error) = (state_dir.display().to_string(), error.to_string());
            tracing::error!(path, error, "cannot make the state directory");
        }
        Needs {
            sysctls: self.host.sysctl_root.join("net"),
            state: state_dir.clone(),
            reads: self
                .kubeconfig
                .iter()
                .chain(&self.policy)
                .cloned()
                .collect(),
            listens: (!self.once).then(|| self.listen.port()),
            starts_programs: self.kubeconfig.is_some() && self.policy.is_none(),
        }
    }
}

impl HostArguments {
    pub(crate) fn roots(&self) -> Roots {
        Roots {
            sysctl: self.sysctl_root.clone(),
            proc: self.proc_root.clone(),
        }
    }
}

/// What a host cannot see of itself.
#[derive(Debug, Args)]
#[command(next_help_heading = "No cluster")]
pub(crate) struct ClusterHintArguments {
    /// Nodes on this host's network, itself included
    #[arg(long, value_name = "N", default_value_t = 1, requires = "policy")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// Pods or containers that each of them runs, at most
    #[arg(long, value_name = "N", default_value_t = 110, requires = "policy")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pods: u32,
    /// The nodes belong to a cloud provider, where addresses are soon used again
    #[arg(long, requires = "policy")]
    cloud: bool,
}

impl ClusterHintArguments {
    pub(crate) fn hints(&self) -> ClusterHints {
        ClusterHints {
            nodes: self.nodes,
            pods: self.pods,
            cloud: self.cloud,
        }
    }
}

/// Parses the command line. Help and version end with 0, and what cannot be parsed with 1: 2 has a
/// meaning of its own.
pub(crate) fn parse() -> Result<Arguments, ExitCode> {
    Arguments::try_parse().map_err(|error| {
        // Nothing can be done about an output that is closed.
        let _unprinted = error.print();
        match error.use_stderr() {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_does_not_contradict_itself() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_node_name_is_needed_where_there_is_no_policy() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("nettune-agent").is_err());
        assert!(parse("nettune-agent --node-name n").is_ok());
        assert!(parse("nettune-agent --policy p --nodes 5 --once").is_ok());
        assert!(parse("nettune-agent check --policy p --nodes 5").is_ok());
        assert!(parse("nettune-agent check").is_err());
    }

    #[test]
    fn flags_that_would_do_nothing_are_refused() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        for line in [
            "nettune-agent --node-name n --nodes 5",
            "nettune-agent --node-name n --timeout 5",
            "nettune-agent --policy p --once --timeout 5",
            "nettune-agent --once check --policy p",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
