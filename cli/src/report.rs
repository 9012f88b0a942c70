//! The plan that is printed.

use nettune_crds::ProfileSysctl;
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plan {
    /// Sets of nodes with the same values, the largest first.
    pub(crate) groups: Vec<Group>,
    /// Nodes that no tuning selects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_selected: Vec<String>,
}

/// Nodes of a tuning with the same values.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Group {
    pub(crate) tuning: String,
    pub(crate) nodes: usize,
    /// Empty if the nodes are described by flags.
    pub(crate) node_names: Vec<String>,
    /// The facts of all nodes, or of most of them.
    pub(crate) facts: Facts,
    /// The fields of `facts` that are not equal for all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) facts_differ: Vec<&'static str>,
    pub(crate) sysctls: Vec<ProfileSysctl>,
    pub(crate) warnings: Vec<String>,
}

/// What the sizes of a node depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Facts {
    pub(crate) pods: u32,
    pub(crate) pod_network: &'static str,
    /// How the pod network was detected.
    pub(crate) pod_network_from: String,
    pub(crate) pod_links: &'static str,
    /// Version, or `unknown`.
    pub(crate) kernel: String,
    #[serde(rename = "memoryMiB")]
    pub(crate) memory_mib: u64,
    pub(crate) cores: u32,
    pub(crate) ipv6: bool,
    pub(crate) cloud: bool,
}

impl Facts {
    /// The printed names of the fields in which another node differs.
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static str> {
        [
            ("pods", self.pods != other.pods),
            ("podNetwork", self.pod_network != other.pod_network),
            (
                "podNetworkFrom",
                self.pod_network_from != other.pod_network_from,
            ),
            ("podLinks", self.pod_links != other.pod_links),
            ("kernel", self.kernel != other.kernel),
            ("memoryMiB", self.memory_mib != other.memory_mib),
            ("cores", self.cores != other.cores),
            ("ipv6", self.ipv6 != other.ipv6),
            ("cloud", self.cloud != other.cloud),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}
