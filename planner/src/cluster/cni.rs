//! Detects a Node's pod network from annotations of CNI plugins, from its provider and from its pod CIDR.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::NodeAddress;
use nettune_sizing::{PodLinks, PodNetwork};

/// What was found, and the signs that it was found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Evidence {
    pub(crate) pod_network: PodNetwork,
    pub(crate) pod_links: PodLinks,
    /// Whether the CNI assigns the addresses of the node's pod CIDR, which then limits its pods.
    pub(crate) pod_cidr_bounds_pods: bool,
    signs: Vec<Sign>,
}

/// Something on a Node that indicates its pod network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sign {
    FlannelOverlay,
    FlannelHostGw,
    FlannelIpip,
    CalicoIpipTunnel,
    CalicoVxlanTunnel,
    CalicoWithoutTunnel,
    Cilium,
    KubeRouter,
    CloudWithoutPodCidr,
    NodeInItsPodCidr,
    Google,
}

impl Sign {
    fn network(self) -> PodNetwork {
        match self {
            Self::FlannelOverlay | Self::CalicoVxlanTunnel | Self::Cilium => PodNetwork::Overlay,
            Self::FlannelIpip | Self::CalicoIpipTunnel => PodNetwork::OverlayIpip,
            // Google's network routes to pod CIDRs itself, and a node has only its gateway on link.
            Self::FlannelHostGw | Self::CalicoWithoutTunnel | Self::KubeRouter | Self::Google => {
                PodNetwork::Routed
            }
            // The CNI plugins of AWS and Azure give pods addresses of the nodes' subnet, and then there
            // is no pod CIDR.
            Self::CloudWithoutPodCidr | Self::NodeInItsPodCidr => PodNetwork::Flat,
        }
    }

    fn links(self) -> PodLinks {
        match self {
            Self::FlannelOverlay
            | Self::FlannelHostGw
            | Self::FlannelIpip
            | Self::KubeRouter
            | Self::Google => PodLinks::Bridge,
            _ => PodLinks::PointToPoint,
        }
    }

    fn pod_cidr_bounds_pods(self) -> bool {
        matches!(
            self,
            Self::FlannelOverlay | Self::FlannelHostGw | Self::FlannelIpip | Self::KubeRouter
        )
    }

    fn words(self) -> &'static str {
        match self {
            Self::FlannelOverlay => "Flannel's backend type, an overlay",
            Self::FlannelHostGw => "Flannel's backend type host-gw",
            Self::FlannelIpip => "Flannel's backend type ipip",
            Self::CalicoIpipTunnel => "Calico's IPIP tunnel address",
            Self::CalicoVxlanTunnel => "Calico's VXLAN tunnel address",
            Self::CalicoWithoutTunnel => "Calico's address without a tunnel",
            Self::Cilium => "Cilium's annotations",
            Self::KubeRouter => "kube-router's annotations",
            Self::CloudWithoutPodCidr => "an AWS or Azure node without a pod CIDR",
            Self::NodeInItsPodCidr => "a pod CIDR that holds the node's own address",
            Self::Google => "a Google node with a pod CIDR",
        }
    }
}

const FLANNEL: &str = "flannel.alpha.coreos.com/";
const FLANNEL_BACKEND: &str = "flannel.alpha.coreos.com/backend-type";
const CALICO_IPIP: &str = "projectcalico.org/IPv4IPIPTunnelAddr";
const CALICO_VXLAN: &str = "projectcalico.org/IPv4VXLANTunnelAddr";
const CALICO_ADDRESS: &str = "projectcalico.org/IPv4Address";

/// Cilium's prefix, and the one before 1.14.
const CILIUM_PREFIXES: [&str; 2] = ["network.cilium.io/", "io.cilium.network."];

impl Evidence {
    /// Collects all signs on a Node. If they disagree, the network that needs the larger table wins. Without
    /// any sign it is assumed to be an overlay: a table that is too large costs nothing until it is used.
    pub(crate) fn of(
        annotations: &BTreeMap<String, String>,
        provider: Option<&str>,
        pod_cidr: Option<IpNet>,
        addresses: &[NodeAddress],
    ) -> Self {
        let mut signs = Vec::new();
        let has_prefix = |prefix: &str| {
            let first = annotations.range(prefix.to_owned()..).next();
            first.is_some_and(|(key, _)| key.starts_with(prefix))
        };
        if has_prefix(FLANNEL) {
            signs.push(match annotations.get(FLANNEL_BACKEND).map(String::as_str) {
                Some("host-gw") => Sign::FlannelHostGw,
                Some("ipip") => Sign::FlannelIpip,
                _ => Sign::FlannelOverlay,
            });
        }
        // A tunnel is more specific than the address that Calico writes too.
        if annotations.contains_key(CALICO_IPIP) {
            signs.push(Sign::CalicoIpipTunnel);
        } else if annotations.contains_key(CALICO_VXLAN) {
            signs.push(Sign::CalicoVxlanTunnel);
        } else if annotations.contains_key(CALICO_ADDRESS) {
            signs.push(Sign::CalicoWithoutTunnel);
        }
        if CILIUM_PREFIXES.iter().any(|prefix| has_prefix(prefix)) {
            signs.push(Sign::Cilium);
        }
        if has_prefix("kube-router.io/") {
            signs.push(Sign::KubeRouter);
        }
        let scheme = provider.and_then(|id| id.split_once("://"));
        if matches!(scheme, Some(("aws" | "azure", _))) && pod_cidr.is_none() {
            signs.push(Sign::CloudWithoutPodCidr);
        }
        let holds_node = |cidr: IpNet| {
            addresses
                .iter()
                .filter(|address| address.type_ == "InternalIP")
                .filter_map(|address| address.address.parse().ok())
                .any(|address: std::net::IpAddr| cidr.contains(&address))
        };
        if pod_cidr.is_some_and(holds_node) {
            signs.push(Sign::NodeInItsPodCidr);
        }
        // It needs the smallest table, so it counts only without any other sign.
        if signs.is_empty() && matches!(scheme, Some(("gce", _))) && pod_cidr.is_some() {
            signs.push(Sign::Google);
        }
        Self::from_signs(signs)
    }

    fn from_signs(signs: Vec<Sign>) -> Self {
        let larger = |a: Sign, b: Sign| if b.network() > a.network() { b } else { a };
        let largest = signs.iter().copied().reduce(larger);
        Self {
            pod_network: largest.map_or(PodNetwork::Overlay, Sign::network),
            pod_links: signs
                .iter()
                .map(|sign| sign.links())
                .max()
                .unwrap_or(PodLinks::Bridge),
            pod_cidr_bounds_pods: !signs.is_empty()
                && signs.iter().all(|sign| sign.pod_cidr_bounds_pods()),
            signs,
        }
    }

    /// For a tuning's status: the signs, and those that suggest another network.
    pub(crate) fn source(&self) -> String {
        let agrees = |sign: &&Sign| sign.network() == self.pod_network;
        let mut text = String::new();
        for sign in self.signs.iter().filter(agrees) {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{}", sign.words());
        }
        for sign in self.signs.iter().filter(|sign| !agrees(sign)) {
            let network = name(sign.network());
            let _ = write!(text, "; but {} suggests {network}", sign.words());
        }
        if text.is_empty() {
            text.push_str("nothing detected; assuming an overlay");
        }
        text
    }
}

/// A pod network as statuses name it.
pub(crate) fn name(network: PodNetwork) -> &'static str {
    match network {
        PodNetwork::Overlay => "Overlay",
        PodNetwork::OverlayIpip => "Overlay (IPIP)",
        PodNetwork::Routed => "Routed",
        PodNetwork::Flat => "Flat",
    }
}

/// The maximum number of nodes on a node's layer-2 network, by the prefix in the address that Calico writes.
pub(crate) fn nodes_on_the_same_network(annotations: &BTreeMap<String, String>) -> Option<u32> {
    let (_, length) = annotations.get(CALICO_ADDRESS)?.split_once('/')?;
    let host_bits = 32_u32.checked_sub(length.parse().ok()?)?;
    let addresses = 1_u32.checked_shl(host_bits).unwrap_or(u32::MAX);
    Some(addresses.saturating_sub(2).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pairs: &[(&str, &str)], provider: Option<&str>, pod_cidr: Option<&str>) -> Evidence {
        let annotations = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let address = NodeAddress {
            address: "10.0.0.4".into(),
            type_: "InternalIP".into(),
        };
        let cidr = pod_cidr.map(|cidr| cidr.parse().unwrap());
        Evidence::of(&annotations, provider, cidr, &[address])
    }

    const CIDR: Option<&str> = Some("10.244.0.0/24");

    /// Annotations, provider and pod CIDR; what is found and by what.
    type Case<'a> = (
        &'a [(&'a str, &'a str)],
        Option<&'a str>,
        Option<&'a str>,
        PodNetwork,
        PodLinks,
        &'a str,
    );

    #[test]
    fn each_sign_leads_to_its_network_and_is_named() {
        use PodLinks::{Bridge, PointToPoint};
        use PodNetwork::{Flat, Overlay, OverlayIpip, Routed};
        let aws = Some("aws:///eu-west-1a/i-0abc");
        let cases: &[Case<'_>] = &[
            (
                &[(FLANNEL_BACKEND, "vxlan")],
                None,
                CIDR,
                Overlay,
                Bridge,
                "Flannel's backend type, an overlay",
            ),
            (
                &[("flannel.alpha.coreos.com/public-ip", "1.2.3.4")],
                None,
                CIDR,
                Overlay,
                Bridge,
                "Flannel's backend type, an overlay",
            ),
            (
                &[(FLANNEL_BACKEND, "host-gw")],
                None,
                CIDR,
                Routed,
                Bridge,
                "Flannel's backend type host-gw",
            ),
            (
                &[(FLANNEL_BACKEND, "ipip")],
                None,
                CIDR,
                OverlayIpip,
                Bridge,
                "Flannel's backend type ipip",
            ),
            (
                &[(CALICO_ADDRESS, "10.0.0.4/24"), (CALICO_IPIP, "10.1.0.1")],
                None,
                None,
                OverlayIpip,
                PointToPoint,
                "Calico's IPIP tunnel address",
            ),
            (
                &[(CALICO_VXLAN, "10.1.0.1")],
                None,
                CIDR,
                Overlay,
                PointToPoint,
                "Calico's VXLAN tunnel address",
            ),
            (
                &[(CALICO_ADDRESS, "10.0.0.4/24")],
                None,
                None,
                Routed,
                PointToPoint,
                "Calico's address without a tunnel",
            ),
            (
                &[("network.cilium.io/ipv4-pod-cidr", "10.1.0.0/24")],
                None,
                CIDR,
                Overlay,
                PointToPoint,
                "Cilium's annotations",
            ),
            (
                &[("io.cilium.network.ipv4-pod-cidr", "10.1.0.0/24")],
                None,
                CIDR,
                Overlay,
                PointToPoint,
                "Cilium's annotations",
            ),
            (
                &[("kube-router.io/peer.asns", "64512")],
                None,
                CIDR,
                Routed,
                Bridge,
                "kube-router's annotations",
            ),
            (
                &[],
                aws,
                None,
                Flat,
                PointToPoint,
                "an AWS or Azure node without a pod CIDR",
            ),
            (
                &[],
                Some("azure:///subscriptions/x"),
                None,
                Flat,
                PointToPoint,
                "an AWS or Azure node without a pod CIDR",
            ),
            (
                &[],
                aws,
                CIDR,
                Overlay,
                Bridge,
                "nothing detected; assuming an overlay",
            ),
            (
                &[],
                Some("gce://project/zone/name"),
                CIDR,
                Routed,
                Bridge,
                "a Google node with a pod CIDR",
            ),
            (
                &[],
                Some("gce://project/zone/name"),
                None,
                Overlay,
                Bridge,
                "nothing detected; assuming an overlay",
            ),
            (
                &[],
                None,
                Some("10.0.0.0/22"),
                Flat,
                PointToPoint,
                "a pod CIDR that holds the node's own address",
            ),
            (
                &[],
                None,
                CIDR,
                Overlay,
                Bridge,
                "nothing detected; assuming an overlay",
            ),
        ];
        for (annotations, provider, cidr, network, links, source) in cases {
            let found = find(annotations, *provider, *cidr);
            assert_eq!(
                (found.pod_network, found.pod_links),
                (*network, *links),
                "{source}"
            );
            assert_eq!(found.source(), *source);
        }
    }

    #[test]
    fn where_signs_disagree_the_larger_table_wins_and_both_are_named() {
        let both = [(FLANNEL_BACKEND, "vxlan"), (CALICO_ADDRESS, "10.0.0.4/24")];
        let found = find(&both, None, CIDR);
        assert_eq!(
            (
                found.pod_network,
                found.pod_links,
                found.pod_cidr_bounds_pods
            ),
            (PodNetwork::Overlay, PodLinks::Bridge, false)
        );
        assert_eq!(
            found.source(),
            "Flannel's backend type, an overlay; but Calico's address without a tunnel suggests Routed"
        );
        let found = find(&[(CALICO_VXLAN, "10.1.0.1")], Some("aws:///a/i-0"), None);
        assert_eq!(
            found.source(),
            "an AWS or Azure node without a pod CIDR; but Calico's VXLAN tunnel address suggests Overlay"
        );
    }

    #[test]
    fn calicos_prefix_bounds_the_nodes_on_the_same_network() {
        let of = |address: &str| {
            let annotations = BTreeMap::from([(CALICO_ADDRESS.to_owned(), address.to_owned())]);
            nodes_on_the_same_network(&annotations)
        };
        for (address, nodes) in [
            ("10.0.0.4/24", Some(254)),
            ("10.0.0.4/32", Some(1)),
            ("10.0.0.4/0", Some(u32::MAX - 2)),
            ("10.0.0.4", None),
            ("10.0.0.4/33", None),
            ("10.0.0.4/x", None),
        ] {
            assert_eq!(of(address), nodes, "{address}");
        }
    }
}
