//! What the host's IPv4 routes tell: how pods are linked to the node, and how many addresses are
//! on-link.
//!
//! `/proc/net/route` has the main table only, which is where CNI plugins and the kernel itself put
//! these routes; sysfs, which would tell a device's kind, is not mounted in the agent's pod. So pod
//! devices are told by the names that the plugins give them.

use std::collections::BTreeSet;

use nettune_crds::PodLinks;

/// One route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Route<'a> {
    device: &'a str,
    destination: u32,
    prefix_len: u32,
    has_gateway: bool,
}

/// Bridges that CNI plugins make (bridge and Flannel: cni0; kubenet: cbr0; kube-router: kube-bridge;
/// Weave: weave; Antrea: antrea-gw0).
const POD_BRIDGES: &[&str] = &["cni", "cbr", "kube-bridge", "weave", "antrea-gw"];

/// Host ends of veth pairs with a route of their own (Calico: cali; Cilium: lxc; AWS: eni; Azure: azv;
/// GKE: gke; ptp: veth).
const POD_VETHS: &[&str] = &["cali", "lxc", "eni", "azv", "gke", "veth"];

/// Other devices whose prefixes are not on the node's layer-2 network: tunnels, containers, virtual
/// machines.
const NOT_ON_LINK: &[&str] = &[
    "lo",
    "docker",
    "br-",
    "virbr",
    "vnet",
    "flannel",
    "vxlan",
    "geneve",
    "tunl",
    "ipip",
    "gre",
    "sit",
    "wg",
    "tun",
    "tap",
    "tailscale",
    "cilium",
    "kube-ipvs",
    "nodelocaldns",
    "dummy",
    "podman",
    "lxd",
    "ovn",
    "genev",
    "nerdctl",
];

/// How pods are linked, from the text of `/proc/net/route`; `None` while there is nothing to tell
/// from. Where both kinds are there, the bridge counts: it needs the larger table.
pub(crate) fn pod_links(text: &str) -> Option<PodLinks> {
    let routes: Vec<Route<'_>> = text.lines().skip(1).filter_map(parse).collect();
    let bridge = |route: &Route<'_>| {
        route.prefix_len < 32 && !route.has_gateway && starts(route.device, POD_BRIDGES)
    };
    let veth = |route: &Route<'_>| route.prefix_len == 32 && starts(route.device, POD_VETHS);
    if routes.iter().any(bridge) {
        Some(PodLinks::Bridge)
    } else if routes.iter().any(veth) {
        Some(PodLinks::PointToPoint)
    } else {
        None
    }
}

/// Addresses of the prefixes that are on-link on the node's own devices; `None` where there is no
/// such prefix, as on clouds that give the node a single address.
pub(crate) fn on_link_addresses(text: &str) -> Option<i64> {
    let own = |route: &Route<'_>| {
        (1..32).contains(&route.prefix_len)
            && !route.has_gateway
            && ![POD_BRIDGES, POD_VETHS, NOT_ON_LINK]
                .iter()
                .any(|names| starts(route.device, names))
    };
    // The same prefix may be there again with another metric, and counts once for each device: each
    // has neighbours of its own.
    let prefixes: BTreeSet<Route<'_>> =
        text.lines().skip(1).filter_map(parse).filter(own).collect();
    let addresses = prefixes
        .iter()
        .map(|route| 1_i64 << (32 - route.prefix_len));
    Some(addresses.sum()).filter(|sum| *sum > 0)
}

fn starts(device: &str, names: &[&str]) -> bool {
    names.iter().any(|name| device.starts_with(name))
}

/// One line: device, destination, gateway, flags, …, mask as the eighth; numbers in hexadecimal, in
/// the processor's byte order (net/ipv4/fib_trie.c, fib_route_seq_show).
fn parse(line: &str) -> Option<Route<'_>> {
    const UP: u32 = 1;
    const GATEWAY: u32 = 2;
    const REJECT: u32 = 0x200;
    let mut words = line.split_ascii_whitespace();
    let device = words.next()?;
    let mut number = |skip| u32::from_str_radix(words.nth(skip)?, 16).ok();
    let (destination, _gateway, flags) = (number(0)?, number(0)?, number(0)?);
    let mask = u32::from_be_bytes(number(3)?.to_ne_bytes());
    if flags & UP == 0 || flags & REJECT != 0 || mask.leading_ones() != mask.count_ones() {
        return None;
    }
    Some(Route {
        device,
        destination,
        prefix_len: mask.leading_ones(),
        has_gateway: flags & GATEWAY != 0,
    })
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const HEADER: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    const DEFAULT: &str = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
    const ETH0_24: &str = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
    const CNI0: &str = "cni0\t0001F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
    const CALI: &str = "cali12345\t0501F40A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n";
    const FLANNEL: &str = "flannel.1\t0002F40A\t0002F40A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    fn table(lines: &[&str]) -> String {
        format!("{HEADER}{}", lines.concat())
    }

    #[test]
    fn only_the_nodes_own_prefixes_are_on_link() {
        let text = table(&[DEFAULT, ETH0_24, ETH0_24, CNI0, CALI, FLANNEL]);
        assert_eq!(on_link_addresses(&text), Some(256));
        assert_eq!(on_link_addresses(&table(&[DEFAULT, CNI0])), None);
    }

    #[test]
    fn a_bridge_with_pods_is_told_from_host_routes() {
        assert_eq!(pod_links(&table(&[DEFAULT, ETH0_24])), None);
        assert_eq!(pod_links(&table(&[CALI])), Some(PodLinks::PointToPoint));
        assert_eq!(pod_links(&table(&[CALI, CNI0])), Some(PodLinks::Bridge));
    }

    #[test]
    fn garbage_is_no_route() {
        for text in [
            "",
            "\n",
            "Iface\neth0",
            "Iface\neth0 zz zz zz 0 0 0 zz",
            "Iface\ne 0 0 1 0 0 0 F0F0F0F0",
        ] {
            assert_eq!(
                (pod_links(text), on_link_addresses(text)),
                (None, None),
                "{text:?}"
            );
        }
    }
}
