//! Inputs of the model: facts about the cluster and a node.

use crate::kernel_version::KernelVersion;

/// The cluster as one node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterFacts {
    /// Nodes in the cluster, this one included.
    pub nodes: u32,
    /// Pods that all these nodes can run together; counts where each pod has an address on the
    /// nodes' own network.
    pub pods: u64,
}

/// One node, as far as its sizes depend on it. Nodes with equal facts get equal sizes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeFacts {
    /// Pods that it can run: allocatable, and at most the usable addresses of its pod CIDR where
    /// its CNI hands those out.
    pub pods: u32,
    /// Memory in bytes, as [`NodeFacts::comparable`] rounds it; 0 where it is not known, and then
    /// fixed caps apply instead of its shares.
    pub memory: u64,
    /// Logical processors; kube-proxy sizes conntrack from them.
    pub cores: u32,
    /// The kernel it runs; `None` where its release could not be parsed.
    pub kernel: Option<KernelVersion>,
    /// How pods of different nodes reach each other.
    pub pod_network: PodNetwork,
    /// How its pods are linked to it.
    pub pod_links: PodLinks,
    /// Whether its kernel has IPv6 (the table exists).
    pub ipv6: bool,
    /// Whether it belongs to a cloud provider (`spec.providerID`), where addresses are soon reused.
    pub cloud: bool,
    /// Nodes on its own layer-2 network, itself included; `None`: all of them.
    pub same_l2_nodes: Option<u32>,
    /// Addresses of its on-link prefixes; `None` where its agent has not said.
    pub on_link_addresses: Option<u64>,
    /// The most counted neighbor entries seen on it, of either family.
    pub neighbors_peak: Option<u64>,
    /// The most conntrack entries seen on it.
    pub conntrack_peak: Option<u64>,
}

/// Memory is compared in steps of this many bytes.
const MEMORY_STEP: u64 = 64 << 20;

impl NodeFacts {
    /// Memory in bytes in coarse steps, so that nodes of one machine type, which differ by some
    /// hundred KiB, are sized alike. Rounded down: a cap is never above the share it is of.
    #[must_use]
    pub fn comparable(memory: u64) -> u64 {
        memory / MEMORY_STEP * MEMORY_STEP
    }
}

/// How pods of different nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PodNetwork {
    /// Routes on the nodes' network: host-gw, kube-router, Calico BGP.
    Routed,
    /// VXLAN or the like: remote nodes are programmed as PERMANENT entries, which kernels before
    /// 5.0 count.
    Overlay,
    /// IPIP: remote nodes are ordinary entries on every kernel.
    OverlayIpip,
    /// Every pod has an address on the nodes' layer-2 network: AWS VPC CNI, Azure CNI, macvlan.
    Flat,
}

/// How a node's pods are linked to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PodLinks {
    /// A veth pair and a host route for each: Calico, Cilium, AWS.
    PointToPoint,
    /// One Linux bridge: pods resolve each other. The larger table, hence the guess where nothing
    /// is known.
    Bridge,
}
