//! One node of one cluster, with all that its sizes depend on, and how to read its sizes.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests may fail them"
)]

use nettune_sizing::{
    ClusterFacts, ConnReuseMode, ConntrackPolicy, DesiredValue, EntryBounds, Factors, IpvsPolicy,
    KernelVersion, NeighborPolicy, NodeFacts, PodLinks, PodNetwork, PodNetworkChoice, Policy,
    Sizes, SysctlKey, Thresholds, Value, size,
};

/// A cluster of equal nodes; the default is a common one.
#[derive(Debug, Clone)]
pub struct Case {
    pub nodes: u32,
    pub pods: u32,
    pub memory: u64,
    pub cores: u32,
    pub kernel: Option<KernelVersion>,
    pub network: PodNetwork,
    pub choice: PodNetworkChoice,
    pub links: PodLinks,
    pub ipv6: bool,
    pub cloud: bool,
    pub same_l2: Option<u32>,
    pub on_link: Option<u64>,
    pub neighbors_peak: Option<u64>,
    pub conntrack_peak: Option<u64>,
    pub factors: Factors,
    pub size_for_nodes: Option<u32>,
    pub fixed: Option<Thresholds>,
    pub connections_per_pod: u32,
    pub entries: EntryBounds,
    pub reuse: ConnReuseMode,
    pub sysctls: Vec<(SysctlKey, Value)>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            nodes: 3,
            pods: 110,
            memory: 16 << 30,
            cores: 4,
            kernel: Some(KernelVersion::new(6, 1, None)),
            network: PodNetwork::Overlay,
            choice: PodNetworkChoice::Auto,
            links: PodLinks::Bridge,
            ipv6: true,
            cloud: false,
            same_l2: None,
            on_link: None,
            neighbors_peak: None,
            conntrack_peak: None,
            factors: Factors::default(),
            size_for_nodes: None,
            fixed: None,
            connections_per_pod: 3072,
            entries: EntryBounds::default(),
            reuse: ConnReuseMode::Auto,
            sysctls: Vec::new(),
        }
    }
}

impl Case {
    pub fn policy(&self) -> Policy {
        let mut policy = Policy::default();
        policy.neighbors = Some(NeighborPolicy {
            pod_network: self.choice,
            size_for_nodes: self.size_for_nodes,
            thresholds: self.fixed,
        });
        policy.conntrack = Some(ConntrackPolicy {
            connections_per_pod: self.connections_per_pod,
            bounds: self.entries,
        });
        policy.ipvs = Some(IpvsPolicy {
            conn_reuse_mode: self.reuse,
        });
        policy.factors = self.factors;
        policy.with_sysctls(self.sysctls.clone()).unwrap()
    }

    pub fn size(&self) -> Sizes {
        let cluster = ClusterFacts {
            nodes: self.nodes,
            pods: u64::from(self.nodes) * u64::from(self.pods),
        };
        let node = NodeFacts {
            pods: self.pods,
            memory: self.memory,
            cores: self.cores,
            kernel: self.kernel,
            pod_network: self.network,
            pod_links: self.links,
            ipv6: self.ipv6,
            cloud: self.cloud,
            same_l2_nodes: self.same_l2,
            on_link_addresses: self.on_link,
            neighbors_peak: self.neighbors_peak,
            conntrack_peak: self.conntrack_peak,
        };
        size(&self.policy(), &cluster, &node)
    }

    pub fn wanted(&self, key: &str) -> Option<DesiredValue> {
        let key = SysctlKey::parse(key).unwrap();
        self.size().get(&key).map(|sized| sized.wanted.clone())
    }

    pub fn reason(&self, key: &str) -> String {
        let key = SysctlKey::parse(key).unwrap();
        self.size().get(&key).unwrap().reason.clone()
    }
}

/// gc_thresh1, 2 and 3 for IPv4.
pub fn thresholds(sizes: &Sizes) -> [u64; 3] {
    [1, 2, 3].map(|n| value(sizes, &format!("net.ipv4.neigh.default.gc_thresh{n}")))
}

/// What is written for a key.
pub fn value(sizes: &Sizes, key: &str) -> u64 {
    let key = SysctlKey::parse(key).unwrap();
    let sized = sizes.get(&key).unwrap();
    sized.wanted.value().as_number().unwrap()
}

/// The floor of a limit.
pub fn floor(sizes: &Sizes, key: &str) -> u64 {
    let key = SysctlKey::parse(key).unwrap();
    match &sizes.get(&key).unwrap().wanted {
        DesiredValue::AtLeast(bounds) => bounds.floor(),
        DesiredValue::Exact(value) => panic!("{key} is exactly {value}"),
    }
}

/// A value that must be just so.
pub fn exactly(sizes: &Sizes, key: &str) -> String {
    let key = SysctlKey::parse(key).unwrap();
    match &sizes.get(&key).unwrap().wanted {
        DesiredValue::Exact(value) => value.to_string(),
        DesiredValue::AtLeast(bounds) => panic!("{key} is a limit: {bounds:?}"),
    }
}
