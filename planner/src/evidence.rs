//! What a Node's annotations and provider show of its pod network.

use std::collections::BTreeMap;

use nettune_sizing::{PodLinks, PodNetwork};

/// What was found, and what it was found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Evidence {
    pub(crate) pod_network: PodNetwork,
    pub(crate) pod_links: PodLinks,
    /// Whether the CNI hands out the addresses of the node's pod CIDR, which then bounds its pods.
    pub(crate) pod_cidr_bounds_pods: bool,
    /// In words, for the tuning's status.
    pub(crate) source: &'static str,
}

const FLANNEL_BACKEND: &str = "flannel.alpha.coreos.com/backend-type";
const CALICO_IPIP: &str = "projectcalico.org/IPv4IPIPTunnelAddr";
const CALICO_VXLAN: &str = "projectcalico.org/IPv4VXLANTunnelAddr";
const CALICO_ADDRESS: &str = "projectcalico.org/IPv4Address";
const CILIUM_POD_CIDR: &str = "network.cilium.io/ipv4-pod-cidr";
const KUBE_ROUTER: &str = "kube-router.io/";

/// Looks at what CNI plugins write on their nodes. Where nothing tells, the guess is the larger
/// table: one that is too large costs nothing until it is used.
pub(crate) fn find(
    annotations: &BTreeMap<String, String>,
    provider: Option<&str>,
    has_pod_cidr: bool,
) -> Evidence {
    if let Some(backend) = annotations.get(FLANNEL_BACKEND) {
        return flannel(backend);
    }
    let calico = |pod_network, source| Evidence {
        pod_network,
        pod_links: PodLinks::PointToPoint,
        pod_cidr_bounds_pods: false,
        source,
    };
    if annotations.contains_key(CALICO_IPIP) {
        return calico(PodNetwork::OverlayIpip, "Calico's IPIP tunnel address");
    }
    if annotations.contains_key(CALICO_VXLAN) {
        return calico(PodNetwork::Overlay, "Calico's VXLAN tunnel address");
    }
    if annotations.contains_key(CALICO_ADDRESS) {
        return calico(PodNetwork::Routed, "Calico's address without a tunnel");
    }
    if annotations.contains_key(CILIUM_POD_CIDR) {
        return calico(PodNetwork::Overlay, "Cilium's pod CIDR");
    }
    if annotations.keys().any(|key| key.starts_with(KUBE_ROUTER)) {
        return Evidence {
            pod_network: PodNetwork::Routed,
            pod_links: PodLinks::Bridge,
            pod_cidr_bounds_pods: true,
            source: "kube-router's annotations",
        };
    }
    match provider.and_then(|id| id.split_once("://")) {
        // Their own CNI plugins give pods addresses of the nodes' subnet, and then no pod CIDR is
        // handed out.
        Some(("aws" | "azure", _)) if !has_pod_cidr => Evidence {
            pod_network: PodNetwork::Flat,
            pod_links: PodLinks::PointToPoint,
            pod_cidr_bounds_pods: false,
            source: "a cloud provider's node without a pod CIDR",
        },
        _ => Evidence {
            pod_network: PodNetwork::Overlay,
            pod_links: PodLinks::Bridge,
            pod_cidr_bounds_pods: false,
            source: "no evidence, so the larger guess",
        },
    }
}

fn flannel(backend: &str) -> Evidence {
    let (pod_network, source) = match backend {
        "host-gw" => (PodNetwork::Routed, "Flannel's backend type host-gw"),
        "ipip" => (PodNetwork::OverlayIpip, "Flannel's backend type ipip"),
        _ => (PodNetwork::Overlay, "Flannel's backend type, an overlay"),
    };
    Evidence {
        pod_network,
        pod_links: PodLinks::Bridge,
        pod_cidr_bounds_pods: true,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn each_plugin_is_told_by_what_it_writes_on_its_nodes() {
        let cases = [
            (FLANNEL_BACKEND, "vxlan", PodNetwork::Overlay),
            (FLANNEL_BACKEND, "host-gw", PodNetwork::Routed),
            (CALICO_IPIP, "10.1.0.1", PodNetwork::OverlayIpip),
            (CALICO_VXLAN, "10.1.0.1", PodNetwork::Overlay),
            (CALICO_ADDRESS, "10.0.0.4/24", PodNetwork::Routed),
            ("kube-router.io/peer.asns", "64512", PodNetwork::Routed),
        ];
        for (key, value, expected) in cases {
            let found = find(&annotations(&[(key, value)]), None, true);
            assert_eq!(found.pod_network, expected, "{key}={value}");
        }
    }

    #[test]
    fn calicos_tunnel_counts_for_more_than_its_address() {
        let both = annotations(&[(CALICO_ADDRESS, "10.0.0.4/24"), (CALICO_IPIP, "10.1.0.1")]);
        assert_eq!(find(&both, None, true).pod_network, PodNetwork::OverlayIpip);
    }

    #[test]
    fn a_cloud_node_without_pod_cidr_has_a_flat_network() {
        let none = annotations(&[]);
        let id = Some("aws:///eu-west-1a/i-0abc");
        assert_eq!(find(&none, id, false).pod_network, PodNetwork::Flat);
        assert_eq!(find(&none, id, true).pod_network, PodNetwork::Overlay);
    }

    #[test]
    fn without_evidence_the_larger_table_is_guessed() {
        let found = find(&annotations(&[]), None, true);
        assert_eq!(
            (found.pod_network, found.pod_links),
            (PodNetwork::Overlay, PodLinks::Bridge)
        );
    }
}
