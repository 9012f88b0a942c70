//! What a Node shows of its pod network: by what CNI plugins write on their nodes, by its provider and
//! by its pod CIDR.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::NodeAddress;
use nettune_sizing::{PodLinks, PodNetwork};

/// What was found, and what it was found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Evidence {
    pub(crate) pod_network: PodNetwork,
    pub(crate) pod_links: PodLinks,
    /// Whether the CNI hands out the addresses of the node's pod CIDR, which then bounds its pods.
    pub(crate) pod_cidr_bounds_pods: bool,
    signs: Signs,
}

/// Some of [`SIGNS`], by their index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Signs(u16);

/// One thing that tells a pod network.
struct Sign {
    network: PodNetwork,
    links: PodLinks,
    pod_cidr_bounds_pods: bool,
    words: &'static str,
}

const fn bridge(network: PodNetwork, pod_cidr_bounds_pods: bool, words: &'static str) -> Sign {
    Sign {
        network,
        links: PodLinks::Bridge,
        pod_cidr_bounds_pods,
        words,
    }
}

const fn routes(network: PodNetwork, words: &'static str) -> Sign {
    Sign {
        network,
        links: PodLinks::PointToPoint,
        pod_cidr_bounds_pods: false,
        words,
    }
}

const FLANNEL_OVERLAY: usize = 0;
const FLANNEL_HOST_GW: usize = 1;
const FLANNEL_IPIP: usize = 2;
const CALICO_IPIP_TUNNEL: usize = 3;
const CALICO_VXLAN_TUNNEL: usize = 4;
const CALICO_NO_TUNNEL: usize = 5;
const CILIUM: usize = 6;
const KUBE_ROUTER: usize = 7;
const CLOUD_WITHOUT_POD_CIDR: usize = 8;
const NODE_IN_ITS_POD_CIDR: usize = 9;
const GOOGLE: usize = 10;

const SIGNS: [Sign; 11] = [
    bridge(
        PodNetwork::Overlay,
        true,
        "Flannel's backend type, an overlay",
    ),
    bridge(PodNetwork::Routed, true, "Flannel's backend type host-gw"),
    bridge(PodNetwork::OverlayIpip, true, "Flannel's backend type ipip"),
    routes(PodNetwork::OverlayIpip, "Calico's IPIP tunnel address"),
    routes(PodNetwork::Overlay, "Calico's VXLAN tunnel address"),
    routes(PodNetwork::Routed, "Calico's address without a tunnel"),
    routes(PodNetwork::Overlay, "Cilium's annotations"),
    bridge(PodNetwork::Routed, true, "kube-router's annotations"),
    // Their own CNI plugins give pods addresses of the nodes' subnet, and then no pod CIDR is handed
    // out.
    routes(PodNetwork::Flat, "an AWS or Azure node without a pod CIDR"),
    routes(
        PodNetwork::Flat,
        "a pod CIDR that holds the node's own address",
    ),
    // Google's network routes to pod CIDRs itself, and a node has just its gateway on link.
    bridge(PodNetwork::Routed, false, "a Google node with a pod CIDR"),
];

const FLANNEL: &str = "flannel.alpha.coreos.com/";
const FLANNEL_BACKEND: &str = "flannel.alpha.coreos.com/backend-type";
const CALICO_IPIP: &str = "projectcalico.org/IPv4IPIPTunnelAddr";
const CALICO_VXLAN: &str = "projectcalico.org/IPv4VXLANTunnelAddr";
const CALICO_ADDRESS: &str = "projectcalico.org/IPv4Address";

/// Cilium's own prefix, and the one that it had before 1.14.
const CILIUM_PREFIXES: [&str; 2] = ["network.cilium.io/", "io.cilium.network."];

impl Evidence {
    /// Looks at all that a Node shows. Where that disagrees, the larger table wins, and where there is
    /// nothing, it is guessed: one that is too large costs nothing until it is used.
    pub(crate) fn of(
        annotations: &BTreeMap<String, String>,
        provider: Option<&str>,
        pod_cidr: Option<IpNet>,
        addresses: &[NodeAddress],
    ) -> Self {
        let mut signs = Signs::default();
        let has_prefix = |prefix: &str| {
            let first = annotations.range(prefix.to_owned()..).next();
            first.is_some_and(|(key, _)| key.starts_with(prefix))
        };
        if has_prefix(FLANNEL) {
            signs.add(match annotations.get(FLANNEL_BACKEND).map(String::as_str) {
                Some("host-gw") => FLANNEL_HOST_GW,
                Some("ipip") => FLANNEL_IPIP,
                _ => FLANNEL_OVERLAY,
            });
        }
        // A tunnel says more than the address that Calico writes beside it.
        if annotations.contains_key(CALICO_IPIP) {
            signs.add(CALICO_IPIP_TUNNEL);
        } else if annotations.contains_key(CALICO_VXLAN) {
            signs.add(CALICO_VXLAN_TUNNEL);
        } else if annotations.contains_key(CALICO_ADDRESS) {
            signs.add(CALICO_NO_TUNNEL);
        }
        if CILIUM_PREFIXES.iter().any(|prefix| has_prefix(prefix)) {
            signs.add(CILIUM);
        }
        if has_prefix("kube-router.io/") {
            signs.add(KUBE_ROUTER);
        }
        let scheme = provider.and_then(|id| id.split_once("://"));
        if matches!(scheme, Some(("aws" | "azure", _))) && pod_cidr.is_none() {
            signs.add(CLOUD_WITHOUT_POD_CIDR);
        }
        let holds_node = |cidr: IpNet| {
            addresses
                .iter()
                .filter(|address| address.type_ == "InternalIP")
                .filter_map(|address| address.address.parse().ok())
                .any(|address: std::net::IpAddr| cidr.contains(&address))
        };
        if pod_cidr.is_some_and(holds_node) {
            signs.add(NODE_IN_ITS_POD_CIDR);
        }
        // It asks for the least of all, so that it counts only where nothing else tells.
        if signs == Signs::default() && matches!(scheme, Some(("gce", _))) && pod_cidr.is_some() {
            signs.add(GOOGLE);
        }
        Self::from(signs)
    }

    /// In words, for a tuning's status: what it was found by, and what speaks for another network.
    pub(crate) fn source(self) -> String {
        let mut text = String::new();
        for sign in self.signs.iter().filter(|sign| self.agrees(sign)) {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{}", sign.words);
        }
        for sign in self.signs.iter().filter(|sign| !self.agrees(sign)) {
            let network = name(sign.network);
            let _ = write!(text, "; but {} suggests {network}", sign.words);
        }
        if text.is_empty() {
            text.push_str("nothing detected; assuming an overlay");
        }
        text
    }

    fn agrees(self, sign: &Sign) -> bool {
        sign.network == self.pod_network
    }
}

impl From<Signs> for Evidence {
    fn from(signs: Signs) -> Self {
        let larger = |a: &'static Sign, b: &'static Sign| if b.network > a.network { b } else { a };
        let Some(largest) = signs.iter().reduce(larger) else {
            return Self {
                pod_network: PodNetwork::Overlay,
                pod_links: PodLinks::Bridge,
                pod_cidr_bounds_pods: false,
                signs,
            };
        };
        Self {
            pod_network: largest.network,
            pod_links: signs
                .iter()
                .map(|sign| sign.links)
                .max()
                .unwrap_or(largest.links),
            pod_cidr_bounds_pods: signs.iter().all(|sign| sign.pod_cidr_bounds_pods),
            signs,
        }
    }
}

impl Signs {
    fn add(&mut self, sign: usize) {
        self.0 |= 1 << sign;
    }

    fn iter(self) -> impl Iterator<Item = &'static Sign> {
        SIGNS
            .iter()
            .enumerate()
            .filter(move |(index, _)| self.0 & (1 << index) != 0)
            .map(|(_, sign)| sign)
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

/// How many nodes can be on a node's layer-2 network, by the prefix that Calico writes with the node's
/// address.
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
