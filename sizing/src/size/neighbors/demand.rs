//! How many neighbor entries a node may need.
//!
//! IPv4 and IPv6 get the same thresholds, so the family that needs more decides.

use std::fmt::Write as _;

use crate::facts::{ClusterFacts, NodeFacts, PodLinks, PodNetwork};
use crate::kernel_version::KernelVersion;
use crate::policy::{Factors, NeighborPolicy, PodNetworkChoice};
use crate::size::units::{Count, Factor};

/// Entries on the network of the nodes for other hosts: gateways, the load balancer, the address
/// of the API server, storage.
const OTHER_HOSTS: u64 = 4;

/// Entries for each pod of the node: one in the pod's namespace, one in the host's.
const PER_POD: u64 = 2;

/// IPv6 link-local entries for each pod if the kernel has IPv6 enabled, used or not: 6 measured on
/// Linux 6.18.
const IPV6_PER_POD: u64 = 6;

/// First kernel that does not count PERMANENT entries, which VXLAN overlays create for remote nodes
/// (58956317c8de "neighbor: Improve garbage collection", net/core/neighbour.c).
const PERMANENT_NOT_COUNTED: (u16, u16) = (5, 0);

/// The entries that a node may need, and why.
pub(crate) struct Demand {
    /// Entries with headroom.
    pub(crate) need: u64,
    /// gc_thresh2 for them, before limits.
    pub(crate) thresh2: u64,
    /// The numbers that went in.
    pub(crate) basis: String,
    /// How gc_thresh2 follows from them.
    pub(crate) rule: String,
}

impl Demand {
    pub(crate) fn of(
        policy: &NeighborPolicy,
        factors: &Factors,
        cluster: &ClusterFacts,
        node: &NodeFacts,
    ) -> Self {
        let nodes = Nodes::of(policy, cluster);
        match network(policy.pod_network, node.pod_network) {
            PodNetwork::Flat => flat(nodes, factors, cluster, node),
            network => routed_or_overlay(network, nodes.grown(factors), factors, node),
        }
    }
}

/// The network that the policy names, otherwise the detected one. An overlay is VXLAN unless IPIP
/// was detected.
pub(crate) fn network(choice: PodNetworkChoice, found: PodNetwork) -> PodNetwork {
    match (choice, found) {
        (PodNetworkChoice::Auto, found) => found,
        (PodNetworkChoice::Overlay, PodNetwork::OverlayIpip) => PodNetwork::OverlayIpip,
        (PodNetworkChoice::Overlay, _) => PodNetwork::Overlay,
        (PodNetworkChoice::Routed, _) => PodNetwork::Routed,
        (PodNetworkChoice::Flat, _) => PodNetwork::Flat,
    }
}

/// The current number of nodes and the number to size for.
#[derive(Clone, Copy)]
struct Nodes {
    today: u64,
    sized_for: u64,
}

impl Nodes {
    fn of(policy: &NeighborPolicy, cluster: &ClusterFacts) -> Self {
        let today = u64::from(cluster.nodes.max(1));
        let asked = u64::from(policy.size_for_nodes.unwrap_or(0));
        Self {
            today,
            sized_for: today.max(asked),
        }
    }

    fn grown(self, factors: &Factors) -> Self {
        let grown = percent(self.today, factors.growth_percent);
        Self {
            sized_for: self.sized_for.max(grown),
            ..self
        }
    }

    /// How many of them share the node's layer-2 network.
    fn on_the_same_network(self, node: &NodeFacts) -> u64 {
        node.same_l2_nodes
            .map_or(self.sized_for, |nodes| u64::from(nodes).min(self.sized_for))
            .max(1)
    }

    fn describe(self, node: &NodeFacts) -> String {
        let mut text = Count(self.today, "node").to_string();
        if self.sized_for > self.today {
            let _ = write!(text, ", sized for {}", self.sized_for);
        }
        let near = self.on_the_same_network(node);
        if near < self.sized_for {
            let _ = write!(text, ", {near} of them on this node's network");
        }
        text
    }
}

fn routed_or_overlay(
    network: PodNetwork,
    nodes: Nodes,
    factors: &Factors,
    node: &NodeFacts,
) -> Demand {
    let near = nodes.on_the_same_network(node) - 1 + OTHER_HOSTS;
    let (far, overlay) = overlay(network, nodes.sized_for - 1, node.kernel);
    let ipv4 = (near + far).saturating_add(local(factors, node));
    let counted = ipv4.saturating_add(ipv6(node));
    let seen = node.neighbors_peak.unwrap_or(0);
    let entries = counted.max(seen);

    let pods = Count(node.pods, "pod");
    let mut basis = nodes.describe(node);
    basis += overlay;
    let _ = match node.pod_links {
        PodLinks::Bridge => write!(basis, "; {pods} on a bridge"),
        PodLinks::PointToPoint => write!(basis, "; {pods} on point-to-point links"),
    };
    let _ = write!(basis, ": {ipv4} entries");
    if node.ipv6 {
        let _ = write!(basis, " on IPv4, {counted} on IPv6");
    }
    mention(&mut basis, seen, counted);
    let headroom = Factor(factors.headroom_percent);
    Demand {
        need: percent(entries, factors.headroom_percent),
        thresh2: power_of_two(percent(entries, factors.headroom_percent).saturating_mul(2)),
        basis,
        rule: format!("next power of two above 2 × {headroom} × {entries}"),
    }
}

/// Each pod has an address on the network of the nodes, and a node may talk to each of them.
///
/// This counts the current nodes and pods (or `sizeForNodes`) without room for growth: all addresses
/// are an upper bound, the next power of four is twice that on average, and gc_thresh3 twice again.
fn flat(nodes: Nodes, factors: &Factors, cluster: &ClusterFacts, node: &NodeFacts) -> Demand {
    let near = nodes.on_the_same_network(node);
    let pods_today = cluster.pods.max(u64::from(node.pods));
    let pods = share(pods_today, near, nodes.today);
    let reachable = near
        .saturating_add(pods)
        .saturating_add(PER_POD * u64::from(node.pods))
        .saturating_add(ipv6(node));
    let addresses = node.on_link_addresses.unwrap_or(u64::MAX);
    let counted = reachable.min(addresses);
    let seen = node.neighbors_peak.unwrap_or(0);
    let need = counted.max(percent(seen, factors.headroom_percent));

    let mut basis = nodes.describe(node);
    let _ = write!(
        basis,
        "; {} with addresses on the network of the nodes: {reachable} entries",
        Count(pods, "pod")
    );
    if addresses < reachable {
        let _ = write!(basis, ", but only {addresses} addresses are on-link");
    }
    mention(&mut basis, seen, counted);
    Demand {
        need,
        thresh2: power_of_four(need),
        basis,
        rule: format!("next power of four above {need}"),
    }
}

/// Entries for remote nodes on the overlay device that the kernel counts, and the text for them.
fn overlay(network: PodNetwork, others: u64, kernel: Option<KernelVersion>) -> (u64, &'static str) {
    let (major, minor) = PERMANENT_NOT_COUNTED;
    match (network, kernel) {
        (PodNetwork::OverlayIpip, _) => (others, ", each also on the IPIP device"),
        (PodNetwork::Overlay, Some(kernel)) if !kernel.at_least(major, minor) => (
            others,
            ", each also on the VXLAN device, which kernels before 5.0 count",
        ),
        (PodNetwork::Overlay, None) => (0, " (kernel unknown, assumed 5.0 or later)"),
        _ => (0, ""),
    }
}

fn local(factors: &Factors, node: &NodeFacts) -> u64 {
    let pods = u64::from(node.pods);
    let among_pods = match node.pod_links {
        PodLinks::PointToPoint => 0,
        PodLinks::Bridge => {
            let fan_in = u64::from(factors.bridge_fan_in);
            pods.saturating_mul(pods.saturating_sub(1).min(fan_in))
        }
    };
    (PER_POD * pods).saturating_add(among_pods)
}

fn ipv6(node: &NodeFacts) -> u64 {
    if node.ipv6 {
        IPV6_PER_POD * u64::from(node.pods)
    } else {
        0
    }
}

fn mention(basis: &mut String, seen: u64, counted: u64) {
    if seen > counted {
        let _ = write!(basis, "; observed peak {seen}");
    }
}

/// `amount × percent / 100`, rounded up.
fn percent(amount: u64, percent: u32) -> u64 {
    amount.saturating_mul(u64::from(percent)).div_ceil(100)
}

/// `amount × part / whole`, rounded up.
fn share(amount: u64, part: u64, whole: u64) -> u64 {
    let scaled = (u128::from(amount) * u128::from(part)).div_ceil(u128::from(whole.max(1)));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// The next power of two, at most 2^62 (which is a power of four).
fn power_of_two(least: u64) -> u64 {
    least.min(1 << 62).next_power_of_two()
}

fn power_of_four(least: u64) -> u64 {
    let two = power_of_two(least);
    two << (two.trailing_zeros() % 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_four_skip_every_second_power_of_two() {
        for (least, power) in [(0, 1), (2, 4), (4, 4), (5, 16), (4097, 16384)] {
            assert_eq!(power_of_four(least), power);
        }
        assert_eq!(power_of_four(u64::MAX), 1 << 62);
    }

    #[test]
    fn a_requested_overlay_is_vxlan_unless_ipip_was_detected() {
        let asked = PodNetworkChoice::Overlay;
        assert_eq!(network(asked, PodNetwork::Flat), PodNetwork::Overlay);
        assert_eq!(
            network(asked, PodNetwork::OverlayIpip),
            PodNetwork::OverlayIpip
        );
    }
}
