//! Whether Flannel's VXLAN device has all that its routes need.
//!
//! For each remote node Flannel adds three things (pkg/backend/vxlan): a route to its pod network by
//! way of that network's first address on the device, a PERMANENT neighbour that gives this address
//! the remote device's MAC, and a forwarding entry that gives this MAC the remote node's address. A
//! neighbour table that overflows refuses the second one, and Flannel does not try again: the pods of
//! that node stay out of reach until it is restarted. Routes of DirectRouting go by way of the node's
//! own device and are not looked at.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rustix::net::{AddressFamily as SocketFamily, SocketType, netdevice, socket};

use crate::kernel::netlink::{self, NetlinkError};

/// What was found on Flannel's devices at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Routes to other nodes' pods over them.
    pub routes: u64,
    /// What is missing.
    pub missing: BTreeSet<Missing>,
}

/// A remote node's pod network that cannot be reached, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Which of its entries is missing.
    pub entry: Entry,
    /// The device.
    pub device: String,
    /// Where the route leads to.
    pub network: IpNet,
}

/// One of the two entries that a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// The gateway's MAC.
    Neighbor,
    /// The node that this MAC is on.
    Forwarding,
}

/// Names in a message; the rest is a number.
const MOST_NAMED: usize = 3;

/// Names of Flannel's VXLAN devices in the text of `/proc/net/dev`: `flannel.VNI`, and
/// `flannel-v6.VNI` of IPv6. Other backends' devices are called otherwise (`flannel.ipip`,
/// `flannel-wg`).
pub(crate) fn devices(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names
        .map(|(name, _)| name.trim())
        .filter(|name| {
            let vni = name
                .strip_prefix("flannel.")
                .or_else(|| name.strip_prefix("flannel-v6."));
            vni.is_some_and(|vni| {
                !vni.is_empty() && vni.bytes().all(|digit| digit.is_ascii_digit())
            })
        })
        .map(str::to_owned)
        .collect()
}

/// The device's route to a remote node's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    device: u32,
    network: IpNet,
    gateway: IpAddr,
}

/// Entries of the kernel that routes may need.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    devices: HashMap<u32, String>,
    neighbors: HashMap<(u32, IpAddr), Vec<u8>>,
    forwarding: HashSet<(u32, Vec<u8>)>,
}

impl Entries {
    /// Of these devices, those that are there.
    pub(crate) fn of(names: &[String]) -> Self {
        let mut entries = Self::default();
        let Ok(any) = socket(SocketFamily::INET, SocketType::DGRAM, None) else {
            return entries;
        };
        for name in names {
            if let Ok(index) = netdevice::name_to_index(&any, name) {
                entries.devices.insert(index, name.clone());
            }
        }
        entries
    }

    /// Whether there is a device of a family.
    pub(crate) fn has(&self, family: AddressFamily) -> bool {
        let is_ipv6 = family == AddressFamily::Inet6;
        let mut names = self.devices.values();
        names.any(|name| name.starts_with("flannel-v6.") == is_ipv6)
    }

    pub(crate) fn is_of(&self, device: u32) -> bool {
        self.devices.contains_key(&device)
    }

    /// Takes a neighbour that may be one of theirs.
    pub(crate) fn take(&mut self, message: &NeighbourMessage) {
        let device = message.header.ifindex;
        if !self.is_of(device) {
            return;
        }
        let resolved = !matches!(
            message.header.state,
            NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
        );
        let mac = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(mac) => Some(mac.clone()),
                _ => None,
            });
        let destination = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(address) => Some(address),
                _ => None,
            });
        match (message.header.family, mac, destination) {
            (AddressFamily::Bridge, Some(mac), Some(_)) => {
                self.forwarding.insert((device, mac));
            }
            (_, Some(mac), Some(NeighbourAddress::Inet(address))) if resolved => {
                self.neighbors.insert((device, (*address).into()), mac);
            }
            (_, Some(mac), Some(NeighbourAddress::Inet6(address))) if resolved => {
                self.neighbors.insert((device, (*address).into()), mac);
            }
            _ => {}
        }
    }

    /// Asks for routes and forwarding entries, and says what is missing.
    pub(crate) fn judge(mut self) -> Result<Found, NetlinkError> {
        netlink::neighbors(AddressFamily::Bridge, |header, entry| {
            if self.is_of(header.ifindex)
                && let Some(message) = netlink::neighbor(entry)
            {
                self.take(&message);
            }
        })?;
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            if self.has(family) {
                netlink::routes(family, |_, entry| {
                    let route = netlink::route(entry).as_ref().and_then(route);
                    routes.extend(route.filter(|route| self.is_of(route.device)));
                })?;
            }
        }
        Ok(self.compare(&routes))
    }

    fn compare(&self, routes: &[Route]) -> Found {
        let missing = |route: &Route| {
            let entry = match self.neighbors.get(&(route.device, route.gateway)) {
                None => Entry::Neighbor,
                Some(mac) if !self.forwarding.contains(&(route.device, mac.clone())) => {
                    Entry::Forwarding
                }
                Some(_) => return None,
            };
            Some(Missing {
                entry,
                device: self.devices.get(&route.device)?.clone(),
                network: route.network,
            })
        };
        Found {
            routes: routes.len() as u64,
            missing: routes.iter().filter_map(missing).collect(),
        }
    }
}

/// A route by way of a gateway; others lead to what is on the device itself.
fn route(message: &RouteMessage) -> Option<Route> {
    let (mut device, mut network, mut gateway) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Destination(address) => network = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            _ => {}
        }
    }
    let any: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let length = message.header.destination_prefix_length;
    Some(Route {
        device: device?,
        network: IpNet::new(network.unwrap_or(any), length).ok()?,
        gateway: gateway?,
    })
}

pub(crate) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// What is missing, in a sentence; `None` where nothing is.
pub(crate) fn sentence(missing: &BTreeSet<Missing>) -> Option<String> {
    let of = |entry| {
        let networks: Vec<&Missing> = missing.iter().filter(|one| one.entry == entry).collect();
        let named: Vec<String> = networks
            .iter()
            .take(MOST_NAMED)
            .map(|one| one.network.to_string())
            .collect();
        let more = match networks.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = match entry {
            Entry::Neighbor => "neighbour",
            Entry::Forwarding => "forwarding",
        };
        let first = networks.first()?;
        Some(format!(
            "{} has no {what} entry for the route to {}{more}",
            first.device,
            named.join(", ")
        ))
    };
    let parts: Vec<String> = [Entry::Neighbor, Entry::Forwarding]
        .into_iter()
        .filter_map(of)
        .collect();
    (!parts.is_empty()).then(|| {
        format!(
            "{}: the pods there cannot be reached from this node; restart Flannel on this node, which \
             writes them anew",
            parts.join(", and ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VTEP: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn routes(count: u8) -> Vec<Route> {
        let route = |n| Route {
            device: 7,
            network: format!("10.244.{n}.0/24").parse().unwrap(),
            gateway: Ipv4Addr::new(10, 244, n, 0).into(),
        };
        (1..=count).map(route).collect()
    }

    fn complete(routes: &[Route]) -> Entries {
        let mut entries = Entries::default();
        entries.devices.insert(7, "flannel.1".to_owned());
        for route in routes {
            entries.neighbors.insert((7, route.gateway), VTEP.to_vec());
        }
        entries.forwarding.insert((7, VTEP.to_vec()));
        entries
    }

    #[test]
    fn a_device_with_all_entries_lacks_nothing() {
        let routes = routes(5);
        let found = complete(&routes).compare(&routes);
        assert_eq!((found.routes, found.missing.len()), (5, 0));
        assert_eq!(sentence(&found.missing), None);
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let routes = routes(5);
        let mut entries = complete(&routes);
        entries.neighbors.remove(&(7, routes[2].gateway));
        let other = vec![2, 0, 0, 0, 0, 1];
        entries.neighbors.insert((7, routes[3].gateway), other);
        let sentence = sentence(&entries.compare(&routes).missing).unwrap();
        assert_eq!(
            sentence,
            "flannel.1 has no neighbour entry for the route to 10.244.3.0/24, and flannel.1 has no \
             forwarding entry for the route to 10.244.4.0/24: the pods there cannot be reached from \
             this node; restart Flannel on this node, which writes them anew"
        );
    }

    #[test]
    fn many_that_are_missing_are_counted() {
        let routes = routes(200);
        let mut entries = complete(&routes);
        entries.neighbors.clear();
        let found = entries.compare(&routes);
        let sentence = sentence(&found.missing).unwrap();
        assert!(
            sentence.contains("10.244.3.0/24 and 197 more"),
            "{sentence}"
        );
        assert!(sentence.len() < 400);
    }

    #[test]
    fn devices_of_the_vxlan_backend_are_told_by_their_names() {
        let dev = |name: &str| format!("Inter-| x\n face |bytes\n{name:>6}: 12 0\n");
        for (name, is) in [
            ("flannel.1", true),
            ("flannel.4096", true),
            ("flannel-v6.1", true),
            ("flannel.ipip", false),
            ("flannel.", false),
            ("flannel-wg", false),
            ("eth0", false),
        ] {
            assert_eq!(devices(&dev(name)).len(), usize::from(is), "{name}");
        }
    }
}
