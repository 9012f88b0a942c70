//! This host as input of the sizing model, without a cluster.

use std::path::Path;

use nettune_crds::ProfileFacts;
use nettune_sizing::{ClusterFacts, NodeFacts, PodLinks, PodNetwork};

use crate::kernel::facts::Identity;
use crate::kernel::proc_file::read_bounded;
use crate::kernel::sysctl::Roots;

/// What a host cannot find out itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterHints {
    /// Nodes on its network, including itself.
    pub nodes: u32,
    /// Pods on each of them.
    pub pods: u32,
    /// Whether they run at a cloud provider, which reuses addresses quickly.
    pub cloud: bool,
}

impl ClusterHints {
    #[must_use]
    pub fn cluster(self) -> ClusterFacts {
        ClusterFacts {
            nodes: self.nodes,
            pods: u64::from(self.nodes) * u64::from(self.pods),
        }
    }

    /// This host in the cluster. What is unknown is guessed as the operator does: for the larger table.
    #[must_use]
    pub fn node(self, roots: &Roots, identity: &Identity, seen: &ProfileFacts) -> NodeFacts {
        NodeFacts {
            pods: self.pods,
            memory: NodeFacts::comparable(memory(&roots.proc)),
            cores: identity.cores,
            kernel: identity.machine().kernel,
            pod_network: PodNetwork::Overlay,
            pod_links: match seen.pod_links {
                Some(nettune_crds::PodLinks::PointToPoint) => PodLinks::PointToPoint,
                Some(nettune_crds::PodLinks::Bridge) | None => PodLinks::Bridge,
            },
            ipv6: seen.ipv6,
            cloud: self.cloud,
            same_l2_nodes: None,
            on_link_addresses: seen.on_link_room(),
            neighbors_peak: None,
            conntrack_peak: None,
        }
    }
}

/// `MemTotal` of /proc/meminfo in bytes, as a kubelet reports it; 0 if unknown.
fn memory(proc: &Path) -> u64 {
    let text = read_bounded(&proc.join("meminfo")).unwrap_or_default();
    mem_total(&text).unwrap_or(0)
}

fn mem_total(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let mut words = line.split_ascii_whitespace();
    let kib: u64 = words.next()?.parse().ok()?;
    (words.next() == Some("kB")).then(|| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_mem_total() {
        let text = "MemFree:  5 kB\nMemTotal:       16384000 kB\nMemTotal: 1 kB\n";
        assert_eq!(mem_total(text), Some(16_384_000 << 10));
        for text in [
            "",
            "MemTotal:",
            "MemTotal: x kB",
            "MemTotal: 5 MB",
            "MemTotal: -5 kB",
        ] {
            assert_eq!(mem_total(text), None, "{text:?}");
        }
        assert_eq!(
            mem_total("MemTotal: 18446744073709551615 kB"),
            Some(u64::MAX)
        );
    }
}
