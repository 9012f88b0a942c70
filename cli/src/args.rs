//! The command line, from raw arguments to values.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueEnum};
use nettune_sizing::KernelVersion;

#[derive(Debug, Parser)]
#[command(
    name = "kubectl-nettune",
    bin_name = "kubectl nettune",
    version,
    about = "Show how nettune would size the kernel network tables of nodes, and why",
    max_term_width = 100
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value of each sysctl and how it is computed; does not need a cluster
    Plan(PlanArgs),
}

const EXAMPLES: &str = "\
Examples:
  A cluster of 605 nodes with up to 30 pods each:
    kubectl nettune plan --nodes 605 --pods-per-node 30

  The same on an old kernel, which counts the entries of VXLAN:
    kubectl nettune plan --nodes 605 --pods-per-node 30 --kernel 4.14

  Pods with addresses from the VPC (AWS, Azure):
    kubectl nettune plan --nodes 1000 --pods-per-node 58 --pod-network flat --cloud

  The current cluster, with a tuning that is not applied yet:
    kubectl get nodes -o json | kubectl nettune plan --nodes-from - -f tuning.yaml

Each value has a rule. AtLeast: a limit; a higher value in the kernel is left unchanged. Exact:
exactly this value. See docs/sizing.md for the model.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub(crate) struct PlanArgs {
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Cluster")]
    #[arg(value_parser = count::<u32>)]
    pub(crate) nodes: u32,

    /// Number of pods that each node can run (status.allocatable.pods of a Node)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 110,
        help_heading = "Cluster"
    )]
    #[arg(value_parser = count::<u32>)]
    pub(crate) pods_per_node: u32,

    /// How pods on different nodes reach each other [default: overlay]
    #[arg(long, value_name = "KIND", value_enum, help_heading = "Cluster")]
    pub(crate) pod_network: Option<PodNetwork>,

    /// How pods are connected to their node [default: bridge]
    #[arg(long, value_name = "KIND", value_enum, help_heading = "Cluster")]
    pub(crate) pod_links: Option<PodLinks>,

    /// Memory of each node as a Kubernetes quantity, such as 16Gi or 512Mi
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "16Gi",
        help_heading = "Cluster"
    )]
    #[arg(value_parser = memory)]
    pub(crate) memory: u64,

    /// Number of logical CPUs of each node
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = "Cluster")]
    #[arg(value_parser = count::<u32>)]
    pub(crate) cores: u32,

    /// Kernel of each node: the output of uname -r, or only the first numbers
    #[arg(
        long,
        value_name = "RELEASE",
        default_value = "6.12",
        help_heading = "Cluster"
    )]
    #[arg(value_parser = KernelVersion::parse)]
    pub(crate) kernel: KernelVersion,

    /// The nodes run at a cloud provider, where addresses are reused quickly
    #[arg(long, help_heading = "Cluster")]
    pub(crate) cloud: bool,

    /// Read Nodes from a file instead of using the flags above: the output of `kubectl get nodes
    /// -o json` (or yaml); - reads stdin
    #[arg(long, value_name = "FILE", help_heading = "Input and output")]
    #[arg(conflicts_with_all = [
        "nodes", "pods_per_node", "pod_network", "pod_links", "memory", "cores", "kernel", "cloud",
    ])]
    pub(crate) nodes_from: Option<PathBuf>,

    /// Size for at least this number of nodes; overrides spec.neighbors.sizeForNodes
    #[arg(long, value_name = "N", help_heading = "Tuning")]
    #[arg(value_parser = count::<i64>)]
    pub(crate) size_for_nodes: Option<i64>,

    /// Read the NodeNetworkTuning from a file; - reads stdin. With --nodes-from, the file may contain
    /// several tunings, which apply according to their nodeSelector. Otherwise the tuning applies to
    /// all nodes [default: a tuning with all blocks and their defaults]
    #[arg(short = 'f', long, value_name = "TUNING.yaml", help_heading = "Tuning")]
    pub(crate) filename: Option<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Text, help_heading = "Input and output")]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Output {
    /// Tables
    Text,
    Json,
    Yaml,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PodNetwork {
    /// VXLAN or similar: Flannel, Cilium
    Overlay,
    /// Routes on the network of the nodes: host-gw, kube-router, Calico BGP
    Routed,
    /// Pod addresses on the network of the nodes: AWS VPC CNI, Azure CNI, macvlan
    Flat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PodLinks {
    /// One Linux bridge: Flannel, kube-router
    Bridge,
    /// A veth pair and a route for each pod: Calico, Cilium, AWS
    PointToPoint,
}

/// Parses the command line. Errors print one line to stderr and exit with 2; help and version print
/// to stdout and exit with 0.
pub(crate) fn parse() -> Result<Args, ExitCode> {
    Args::try_parse().map_err(|error| {
        let wordy = matches!(
            error.kind(),
            ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        );
        if wordy {
            // Nothing can be done if stdout is closed.
            let _ = error.print();
        } else {
            eprintln!("{}", one_line(&error.to_string()));
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// The message of clap without the usage.
fn one_line(message: &str) -> String {
    let before_usage = message.split("\n\nUsage:").next().unwrap_or_default();
    let before_hint = before_usage
        .split("\n\nFor more")
        .next()
        .unwrap_or_default();
    before_hint.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Parses a number of nodes, pods or cores, from 1 to 100000 as `sizeForNodes` in a tuning.
fn count<T: From<u32>>(text: &str) -> Result<T, String> {
    match text.parse::<u32>() {
        Ok(count @ 1..=100_000) => Ok(count.into()),
        _ => Err("must be a whole number from 1 to 100000".to_owned()),
    }
}

/// Parses a size of memory in bytes.
fn memory(text: &str) -> Result<u64, String> {
    let wrong = || "must be a size such as 16Gi or 512Mi, or a number of bytes".to_owned();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor: u64 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return Err(wrong()),
    };
    // `as` saturates. A float is exact up to 2^53 bytes, more than any memory.
    let bytes = (number * factor as f64) as u64;
    (bytes > 0).then_some(bytes).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn memory_is_parsed_as_a_kubernetes_quantity() {
        for (text, bytes) in [
            ("16Gi", 16 << 30),
            ("1.5Gi", 3 << 29),
            ("512Mi", 512 << 20),
            ("16393244Ki", 16_393_244 << 10),
            ("2Ti", 2 << 40),
            ("16G", 16_000_000_000),
            ("2000k", 2_000_000),
            ("1024", 1024),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "Gi", "16GB", "0", "-1Gi", "1.2.3Gi", "16 Gi"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }
}
