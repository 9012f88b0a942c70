//! The host's routes: how pods are linked to the node, and which prefixes are on-link.
//!
//! They come from netlink: `/proc/net/route` has only the main table, and on clouds that give a node several
//! interfaces each has its own table. Without netlink, and over a directory that stands in for /proc, the file is
//! used. sysfs, which has a device's kind, is not mounted in the agent's pod, so pod devices are recognized by the
//! names that plugins give them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use nettune_crds::PodLinks;
use rustix::net::{AddressFamily as SocketFamily, SocketType, netdevice, socket};

use crate::kernel::netlink::{self, NetlinkError};
use crate::kernel::proc_file::{is_of_kernel, read_bounded};

/// Routes without a gateway; each once, even if several tables have it.
#[derive(Debug, Default)]
pub(crate) struct Routes(BTreeSet<Route>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    device: String,
    network: IpNet,
}

/// The table of the node's own addresses (include/uapi/linux/rtnetlink.h, RT_TABLE_LOCAL).
const LOCAL: u8 = 255;

/// The most IPv6 prefixes that the schema allows.
const MOST_PREFIXES: usize = 16;

/// Bridges that CNI plugins create (bridge and Flannel: cni0; kubenet: cbr0; kube-router: kube-bridge;
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

impl Routes {
    /// Those of this network namespace, or of a directory that stands in for its /proc.
    pub(crate) fn read(proc: &Path) -> Self {
        let file = proc.join("net/route");
        let of_kernel = File::open(&file).and_then(is_of_kernel).unwrap_or(false);
        let listed = of_kernel.then(Self::by_netlink).and_then(Result::ok);
        listed.unwrap_or_else(|| Self::of_text(&read_bounded(&file).unwrap_or_default()))
    }

    fn by_netlink() -> Result<Self, NetlinkError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            netlink::routes(family, |header, entry| {
                // Most routes of a large cluster have a gateway; their attributes are not parsed.
                if may_be_on_link(header) {
                    found.extend(netlink::route(entry).as_ref().and_then(on_link));
                }
            })?;
        }
        let mut names = BTreeMap::new();
        let any = socket(SocketFamily::INET, SocketType::DGRAM, None).ok();
        let named = found.into_iter().filter_map(|(index, network)| {
            let name = names.entry(index).or_insert_with(|| {
                let any = any.as_ref()?;
                netdevice::index_to_name(any, index).ok()
            });
            let device = name.clone()?;
            Some(Route { device, network })
        });
        Ok(Self(named.collect()))
    }

    /// Those in the text of `/proc/net/route`.
    fn of_text(text: &str) -> Self {
        Self(text.lines().skip(1).filter_map(parse).collect())
    }

    /// How pods are linked; `None` if there are none. If there are both kinds, the bridge counts: it needs
    /// the larger table.
    pub(crate) fn pod_links(&self) -> Option<PodLinks> {
        let of = |names| {
            let of_pods = self
                .0
                .iter()
                .filter(move |route| starts(&route.device, names));
            of_pods.filter_map(|route| match route.network {
                IpNet::V4(network) => Some(network.prefix_len()),
                IpNet::V6(_) => None,
            })
        };
        if of(POD_BRIDGES).any(|length| length < 32) {
            Some(PodLinks::Bridge)
        } else if of(POD_VETHS).any(|length| length == 32) {
            Some(PodLinks::PointToPoint)
        } else {
            None
        }
    }

    /// Addresses of the IPv4 prefixes that are on-link on the node's own devices; `None` if there is no
    /// such prefix, as on clouds that give the node a single address. A prefix counts once per device:
    /// each has its own neighbors.
    pub(crate) fn on_link_addresses(&self) -> Option<i64> {
        let lengths = self.own().filter_map(|network| match network {
            IpNet::V4(network) => Some(network.prefix_len()),
            IpNet::V6(_) => None,
        });
        let of_one = lengths.filter(|length| (1..32).contains(length));
        let addresses: i64 = of_one.map(|length| 1_i64 << (32 - length)).sum();
        Some(addresses).filter(|sum| *sum > 0)
    }

    /// The IPv6 prefixes that are on-link on the node's own devices, except link-local ones, which every
    /// device has.
    pub(crate) fn on_link_prefixes_ipv6(&self) -> Vec<String> {
        let networks = self.own().filter_map(|network| match network {
            IpNet::V6(network) => Some(network),
            IpNet::V4(_) => None,
        });
        let is_own = |network: &Ipv6Net| {
            let address = network.network();
            (1..128).contains(&network.prefix_len())
                && !address.is_unicast_link_local()
                && !address.is_multicast()
        };
        let networks: BTreeSet<Ipv6Net> = networks.filter(is_own).collect();
        let reported = networks.iter().take(MOST_PREFIXES);
        reported.map(ToString::to_string).collect()
    }

    fn own(&self) -> impl Iterator<Item = IpNet> {
        let others = [POD_BRIDGES, POD_VETHS, NOT_ON_LINK];
        let own = self.0.iter().filter(move |route| {
            let mut others = others.iter();
            !others.any(|names| starts(&route.device, names))
        });
        own.map(|route| route.network)
    }
}

/// What the header alone shows. IPv6 has no scopes.
fn may_be_on_link(header: &RouteHeader) -> bool {
    let in_scope =
        header.address_family == AddressFamily::Inet6 || header.scope == RouteScope::Link;
    header.kind == RouteType::Unicast && header.table != LOCAL && in_scope
}

/// The device's index and the prefix; `None` if there is a gateway, or several devices.
fn on_link(message: &RouteMessage) -> Option<(u32, IpNet)> {
    let (mut device, mut network) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Destination(address) => network = netlink::ip(address),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => return None,
            _ => {}
        }
    }
    let any: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let length = message.header.destination_prefix_length;
    let network = IpNet::new(network.unwrap_or(any), length).ok()?;
    Some((device?, network))
}

fn starts(device: &str, names: &[&str]) -> bool {
    names.iter().any(|name| device.starts_with(name))
}

/// One line: device, destination, gateway, flags, …, mask as the eighth; numbers in hexadecimal, in
/// the processor's byte order (net/ipv4/fib_trie.c, fib_route_seq_show).
fn parse(line: &str) -> Option<Route> {
    const UP: u32 = 1;
    const GATEWAY: u32 = 2;
    const REJECT: u32 = 0x200;
    let mut words = line.split_ascii_whitespace();
    let device = words.next()?;
    let mut number = |skip| u32::from_str_radix(words.nth(skip)?, 16).ok();
    let (destination, _gateway, flags) = (number(0)?, number(0)?, number(0)?);
    let mask = u32::from_be_bytes(number(3)?.to_ne_bytes());
    if flags & (UP | GATEWAY | REJECT) != UP || mask.leading_ones() != mask.count_ones() {
        return None;
    }
    let address = Ipv4Addr::from(destination.to_ne_bytes());
    let length = u8::try_from(mask.leading_ones()).ok()?;
    Some(Route {
        device: device.to_owned(),
        network: Ipv4Net::new(address, length).ok()?.into(),
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
        let on_link = |lines: &[&str]| Routes::of_text(&table(lines)).on_link_addresses();
        let all = [DEFAULT, ETH0_24, ETH0_24, CNI0, CALI, FLANNEL];
        assert_eq!(on_link(&all), Some(256));
        assert_eq!(on_link(&[DEFAULT, CNI0]), None);
    }

    #[test]
    fn bridge_with_pods_is_distinguished_from_host_routes() {
        let pod_links = |lines: &[&str]| Routes::of_text(&table(lines)).pod_links();
        assert_eq!(pod_links(&[DEFAULT, ETH0_24]), None);
        assert_eq!(pod_links(&[CALI]), Some(PodLinks::PointToPoint));
        assert_eq!(pod_links(&[CALI, CNI0]), Some(PodLinks::Bridge));
    }

    #[test]
    fn garbage_is_not_a_route() {
        for text in [
            "",
            "\n",
            "Iface\neth0",
            "Iface\neth0 zz zz zz 0 0 0 zz",
            "Iface\ne 0 0 1 0 0 0 F0F0F0F0",
        ] {
            assert!(Routes::of_text(text).0.is_empty(), "{text:?}");
        }
    }

    fn routes(routes: &[(&str, &str)]) -> Routes {
        let routes = routes.iter().map(|(device, network)| Route {
            device: (*device).to_owned(),
            network: network.parse().unwrap(),
        });
        Routes(routes.collect())
    }

    #[test]
    fn each_interface_counts_and_ipv6_prefixes_are_named() {
        let routes = routes(&[
            ("eth0", "10.0.0.0/24"),
            ("eth1", "10.0.0.0/24"),
            ("eth0", "2001:db8::/64"),
            ("eth1", "2001:db8::/64"),
            ("eth0", "2001:db8::17/128"),
            ("eth0", "fe80::/64"),
            ("eth0", "ff00::/8"),
            ("eth0", "::/0"),
            ("cni0", "2001:db8:1::/64"),
        ]);
        assert_eq!(routes.on_link_addresses(), Some(512));
        assert_eq!(routes.on_link_prefixes_ipv6(), ["2001:db8::/64"]);
    }

    #[test]
    fn netlink_and_proc_agree_on_the_kernels_routes() {
        let text = std::fs::read_to_string("/proc/net/route").unwrap();
        let listed = Routes::by_netlink().unwrap();
        // The file has a part of them: the main table, and no IPv6.
        for route in Routes::of_text(&text).0 {
            assert!(listed.0.contains(&route), "{route:?} of {listed:?}");
        }
    }
}
