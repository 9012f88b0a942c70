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
  In a cluster, with the profile that the operator writes for this node:
    nettune-agent --node-name \"$(hostname)\" --kubeconfig /etc/nettune/kubeconfig

  Without a cluster: show what would change on this host, then apply it and keep it that way:
    nettune-agent check --policy /etc/nettune/policy.yaml
    nettune-agent --policy /etc/nettune/policy.yaml --nodes 200

  Apply once and exit, in an init container or a systemd unit:
    nettune-agent --policy /etc/nettune/policy.yaml --once

Exit codes of --once and check: 0 if every sysctl has its desired value or is waiting, such as for a
module; 2 if one does not (--once) or would be changed (check); 1 on an error.
Signals: SIGTERM stops the agent, SIGHUP reads the policy again. See docs/standalone.md.";

/// Sets and keeps the kernel network sysctls of this node as its NodeNetworkProfile says, or without a
/// cluster as a policy file says.
///
/// It writes only allow-listed sysctls below net/ and needs no Linux capabilities. While the API server
/// is unreachable, also at startup, it applies the last profile that it has saved.
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
    /// Print what would change on this host and why; writes nothing
    Check(CheckArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Name of this node and of its profile [default with --policy: the hostname]
    #[arg(long, env = "NODE_NAME", required_unless_present = "policy")]
    pub(crate) node_name: Option<String>,
    #[command(flatten)]
    pub(crate) host: HostArguments,
    /// Address of /metrics, /healthz and /readyz; port 0 picks a free port and logs it
    #[arg(long, default_value = "127.0.0.1:9464")]
    pub(crate) listen: SocketAddr,
    /// Kubeconfig for the API server [default: the pod's service account]. Not used with --policy
    #[arg(long, env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Apply once and exit; the exit code says whether everything is applied
    #[arg(long)]
    pub(crate) once: bool,
    /// Seconds that --once waits for the API server or for a profile; the last saved profile is applied
    /// first
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 10,
        requires = "once",
        conflicts_with = "policy"
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// File with the NodeNetworkTuning to apply to this host, in YAML or JSON. It is read again when it
    /// changes; an invalid file changes nothing
    #[arg(long, value_name = "TUNING.yaml", help_heading = "No cluster")]
    pub(crate) policy: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) hints: ClusterHintArguments,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// File with the NodeNetworkTuning to check this host against, in YAML or JSON
    #[arg(long, value_name = "TUNING.yaml")]
    pub(crate) policy: PathBuf,
    /// Name of this node [default: the hostname]
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: Option<String>,
    #[command(flatten)]
    pub(crate) host: HostArguments,
    #[command(flatten)]
    pub(crate) hints: ClusterHintArguments,
}

#[derive(Debug, Args)]
pub(crate) struct HostArguments {
    /// Path of /proc/sys; in a pod, where the host's is mounted
    #[arg(long, default_value = "/proc/sys")]
    sysctl_root: PathBuf,
    /// Path of /proc, for counters, routes and the boot id
    #[arg(long, default_value = "/proc")]
    proc_root: PathBuf,
    /// Directory for original values and the last profile, kept across restarts
    #[arg(long, default_value = "/var/lib/nettune")]
    pub(crate) state_dir: PathBuf,
}

impl RunArguments {
    /// What the agent must be able to do. Creates the state directory, because Landlock needs it to exist.
    pub(crate) fn needs(&self) -> Needs {
        let state_dir = &self.host.state_dir;
        if let Err(error) = std::fs::create_dir_all(state_dir) {
            let (path, error) = (state_dir.display().to_string(), error.to_string());
            tracing::error!(path, error, "cannot create the state directory");
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

/// What a host cannot find out itself.
#[derive(Debug, Args)]
#[command(next_help_heading = "No cluster")]
pub(crate) struct ClusterHintArguments {
    /// Nodes on this host's network, including itself
    #[arg(long, value_name = "N", default_value_t = 1, requires = "policy")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// Maximum number of pods or containers on each of them
    #[arg(long, value_name = "N", default_value_t = 110, requires = "policy")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pods: u32,
    /// The nodes run at a cloud provider, which reuses addresses quickly
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

/// Parses the command line. Help and version exit with 0, errors with 1: 2 has its own meaning.
pub(crate) fn parse() -> Result<Arguments, ExitCode> {
    Arguments::try_parse().map_err(|error| {
        // The output may be closed.
        let _unprinted = error.print();
        if error.use_stderr() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn node_name_is_required_without_a_policy() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("nettune-agent").is_err());
        assert!(parse("nettune-agent --node-name n").is_ok());
        assert!(parse("nettune-agent --policy p --nodes 5 --once").is_ok());
        assert!(parse("nettune-agent check --policy p --nodes 5").is_ok());
        assert!(parse("nettune-agent check").is_err());
    }

    #[test]
    fn flags_without_effect_are_rejected() {
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
