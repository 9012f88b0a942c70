//! Checks that Flannel's VXLAN devices have all entries that their routes need.
//!
//! For each remote node Flannel adds three things (pkg/backend/vxlan): a route to its pod network
//! through that network's first address on the device, a PERMANENT neighbor that gives this address
//! the remote device's MAC, and a forwarding entry that gives this MAC the remote node's address. A
//! neighbor table that overflows rejects the second one, and Flannel does not retry: that node's pods
//! stay unreachable until Flannel restarts. DirectRouting uses the node's own device and is not checked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use nettune_sizing::Mono;
use rustix::net::{AddressFamily as SocketFamily, SocketType, netdevice, socket};

use crate::kernel::netlink::{self, NetlinkError};

/// A check that finds nothing missing doubles the time until the next one, from the first of these to
/// the second.
const INTERVALS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];

/// The time until the next check while something is missing: Flannel writes a route's entries one
/// after the other, so one check proves nothing.
const RECHECK: Duration = Duration::from_secs(5);

/// Routes that a message names; the rest is a number.
const MAX_NAMED: usize = 3;

/// What is known of Flannel's entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flannel {
    /// Its routes; `None` if the node has no VXLAN device of Flannel's.
    pub routes: Option<u64>,
    /// What two checks in a row found missing.
    pub missing: BTreeSet<Missing>,
    missing_once: BTreeSet<Missing>,
    interval: Duration,
    due: Mono,
}

/// What one check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    routes: u64,
    missing: BTreeSet<Missing>,
}

/// A remote node's pod network that is unreachable, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Which of its entries is missing.
    pub entry: Entry,
    device: String,
    network: IpNet,
}

/// One of the two entries that a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// The gateway's MAC.
    Neighbor,
    /// The node that has this MAC.
    Forwarding,
}

impl Flannel {
    pub(crate) fn is_due(&self, now: Mono) -> bool {
        now >= self.due
    }

    /// A check begins; it may fail.
    pub(crate) fn begin(&mut self, now: Mono) {
        self.due = now.after(INTERVALS[0]);
    }

    pub(crate) fn learn(&mut self, found: Found, now: Mono) {
        let [first, longest] = INTERVALS;
        if found.missing.is_empty() {
            self.interval = (self.interval * 2).clamp(first, longest);
            self.due = now.after(self.interval);
        } else {
            self.interval = Duration::ZERO;
            self.due = now.after(RECHECK);
        }
        self.routes = Some(found.routes);
        self.missing = &self.missing_once & &found.missing;
        self.missing_once = found.missing;
    }

    /// What is missing and what to do, in a sentence; `None` if nothing is.
    pub(crate) fn sentence(&self) -> Option<String> {
        let parts: Vec<String> = [Entry::Neighbor, Entry::Forwarding]
            .into_iter()
            .filter_map(|entry| self.missing_entries(entry))
            .collect();
        (!parts.is_empty()).then(|| {
            format!(
                "{}: pods there are unreachable from this node; restart Flannel on this node to write \
                 the entries again",
                parts.join(", and ")
            )
        })
    }

    fn missing_entries(&self, entry: Entry) -> Option<String> {
        let of_kind = || self.missing.iter().filter(|missing| missing.entry == entry);
        let device = &of_kind().next()?.device;
        let networks = of_kind().map(|missing| missing.network.to_string());
        let named: Vec<String> = networks.take(MAX_NAMED).collect();
        let more = match of_kind().count().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (named, kind) = (named.join(", "), entry.name());
        Some(format!(
            "{device} has no {kind} entry for the route to {named}{more}"
        ))
    }
}

impl Entry {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Neighbor => "neighbor",
            Self::Forwarding => "forwarding",
        }
    }
}

/// Names of Flannel's VXLAN devices in the text of `/proc/net/dev`: `flannel.VNI`, and
/// `flannel-v6.VNI` for IPv6. Other backends use other names (`flannel.ipip`, `flannel-wg`).
pub(crate) fn devices(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names
        .map(|(name, _)| name.trim())
        .filter(|name| {
            let vni = name
                .strip_prefix("flannel.")
                .or_else(|| name.strip_prefix("flannel-v6."));
            vni.is_some_and(|vni| vni.parse::<u32>().is_ok())
        })
        .map(str::to_owned)
        .collect()
}

/// Compares the routes over these devices with the kernel's entries.
pub(crate) fn check(names: &[String]) -> Result<Found, NetlinkError> {
    let devices = indexes(names);
    let mut entries = Entries::default();
    let mut routes = Vec::new();
    let mut take = |header: &NeighbourHeader, entry: &[u8]| {
        if devices.contains_key(&header.ifindex)
            && let Some(message) = netlink::neighbor(entry)
        {
            entries.take(&message);
        }
    };
    netlink::neighbors(AddressFamily::Bridge, &mut take)?;
    for (family, prefix) in [
        (AddressFamily::Inet, "flannel."),
        (AddressFamily::Inet6, "flannel-v6."),
    ] {
        if !names.iter().any(|name| name.starts_with(prefix)) {
            continue;
        }
        netlink::neighbors(family, &mut take)?;
        netlink::routes(family, |_, entry| {
            routes.extend(netlink::route(entry).as_ref().and_then(Route::read));
        })?;
    }
    Ok(entries.compare(&routes, &devices))
}

/// Names by index of the devices that exist.
fn indexes(names: &[String]) -> BTreeMap<u32, String> {
    let Ok(any) = socket(SocketFamily::INET, SocketType::DGRAM, None) else {
        return BTreeMap::new();
    };
    let index = |name: &String| Some((netdevice::name_to_index(&any, name).ok()?, name.clone()));
    names.iter().filter_map(index).collect()
}

/// A route through a gateway.
#[derive(Debug, Clone)]
struct Route {
    device: u32,
    network: IpNet,
    gateway: IpAddr,
}

impl Route {
    fn read(message: &RouteMessage) -> Option<Self> {
        let (mut device, mut network, mut gateway) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => device = Some(*index),
                RouteAttribute::Destination(address) => network = netlink::ip(address),
                RouteAttribute::Gateway(address) => gateway = netlink::ip(address),
                _ => {}
            }
        }
        let length = message.header.destination_prefix_length;
        Some(Self {
            device: device?,
            network: IpNet::new(network?, length).ok()?,
            gateway: gateway?,
        })
    }
}

#[derive(Debug, Default)]
struct Entries {
    neighbors: HashMap<(u32, IpAddr), Vec<u8>>,
    forwarding: HashSet<(u32, Vec<u8>)>,
}

impl Entries {
    fn take(&mut self, message: &NeighbourMessage) {
        let (mut mac, mut destination) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = Some(bytes.clone()),
                NeighbourAttribute::Destination(address) => destination = Some(address),
                _ => {}
            }
        }
        let (Some(mac), Some(destination)) = (mac, destination) else {
            return;
        };
        let device = message.header.ifindex;
        let address: IpAddr = match (message.header.family, destination) {
            (AddressFamily::Bridge, _) => {
                self.forwarding.insert((device, mac));
                return;
            }
            (_, NeighbourAddress::Inet(address)) => (*address).into(),
            (_, NeighbourAddress::Inet6(address)) => (*address).into(),
            _ => return,
        };
        if !matches!(
            message.header.state,
            NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
        ) {
            self.neighbors.insert((device, address), mac);
        }
    }

    fn compare(&self, routes: &[Route], devices: &BTreeMap<u32, String>) -> Found {
        let mut found = Found::default();
        for route in routes {
            let Some(device) = devices.get(&route.device) else {
                continue;
            };
            found.routes += 1;
            let entry = match self.neighbors.get(&(route.device, route.gateway)) {
                None => Entry::Neighbor,
                Some(mac) if !self.forwarding.contains(&(route.device, mac.clone())) => {
                    Entry::Forwarding
                }
                Some(_) => continue,
            };
            found.missing.insert(Missing {
                entry,
                device: device.clone(),
                network: route.network,
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
        for route in routes {
            entries.neighbors.insert((7, route.gateway), VTEP.to_vec());
        }
        entries.forwarding.insert((7, VTEP.to_vec()));
        entries
    }

    fn compare(entries: &Entries, routes: &[Route]) -> Found {
        entries.compare(routes, &BTreeMap::from([(7, "flannel.1".to_owned())]))
    }

    /// The state after two checks that found the same.
    fn known(found: &Found) -> Flannel {
        let mut flannel = Flannel::default();
        flannel.learn(found.clone(), Mono::default());
        flannel.learn(found.clone(), Mono::default());
        flannel
    }

    #[test]
    fn device_with_all_entries_has_nothing_missing() {
        let routes = routes(5);
        let found = compare(&complete(&routes), &routes);
        assert_eq!((found.routes, found.missing.len()), (5, 0));
        assert_eq!(known(&found).sentence(), None);
    }

    #[test]
    fn message_names_missing_entries_and_the_fix() {
        let routes = routes(5);
        let mut entries = complete(&routes);
        entries.neighbors.remove(&(7, routes[2].gateway));
        let other = vec![2, 0, 0, 0, 0, 1];
        entries.neighbors.insert((7, routes[3].gateway), other);
        assert_eq!(
            known(&compare(&entries, &routes)).sentence().unwrap(),
            "flannel.1 has no neighbor entry for the route to 10.244.3.0/24, and flannel.1 has no \
             forwarding entry for the route to 10.244.4.0/24: pods there are unreachable from this \
             node; restart Flannel on this node to write the entries again"
        );
    }

    #[test]
    fn message_counts_many_missing_entries() {
        let routes = routes(200);
        let mut entries = complete(&routes);
        entries.neighbors.clear();
        let sentence = known(&compare(&entries, &routes)).sentence().unwrap();
        assert!(
            sentence.contains("10.244.3.0/24 and 197 more"),
            "{sentence}"
        );
        assert!(sentence.len() < 400);
    }

    fn missing(networks: &[&str]) -> Found {
        let missing = networks.iter().map(|network| Missing {
            entry: Entry::Neighbor,
            device: "flannel.1".to_owned(),
            network: network.parse().unwrap(),
        });
        Found {
            routes: 3,
            missing: missing.collect(),
        }
    }

    #[test]
    fn entry_is_missing_after_two_checks() {
        let (mut flannel, now) = (Flannel::default(), Mono::default());
        flannel.learn(missing(&["10.1.0.0/24", "10.2.0.0/24"]), now);
        assert_eq!((flannel.routes, flannel.missing.len()), (Some(3), 0));
        flannel.learn(missing(&["10.2.0.0/24", "10.3.0.0/24"]), now);
        assert_eq!(flannel.missing, missing(&["10.2.0.0/24"]).missing);
        flannel.learn(missing(&[]), now);
        assert!(flannel.missing.is_empty());
    }

    #[test]
    fn checks_back_off_while_nothing_is_missing() {
        let (mut flannel, now) = (Flannel::default(), Mono::default());
        let mut pause = |found: &[&str]| {
            flannel.learn(missing(found), now);
            flannel.due.since(now).as_secs()
        };
        assert_eq!([(); 4].map(|()| pause(&[])), [60, 120, 240, 300]);
        assert_eq!([(); 2].map(|()| pause(&["10.1.0.0/24"])), [5, 5]);
        assert_eq!([(); 2].map(|()| pause(&[])), [60, 120]);
    }

    #[test]
    fn only_names_of_the_vxlan_backend_match() {
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
