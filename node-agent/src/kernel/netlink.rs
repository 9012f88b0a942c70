//! Netlink queries for what /proc does not show: neighbors with their state, forwarding entries, and
//! routes of both families. They need no capability.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{
    Emitable, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    Parseable,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourHeader, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteHeader, RouteMessage};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// Why the kernel did not answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} by netlink")]
pub(crate) struct NetlinkError {
    attempt: &'static str,
    #[source]
    source: io::Error,
}

// include/uapi/linux/rtnetlink.h
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;

/// The kernel fills no more than this at a time (net/netlink/af_netlink.c, netlink_dump).
const BUFFER: usize = 32 * 1024;

/// The kernel normally answers at once.
const DEADLINE: Duration = Duration::from_secs(5);

/// Calls `each` with the header and the bytes of each neighbor of one family; for `Bridge`, of each
/// forwarding entry.
pub(crate) fn neighbors(
    family: AddressFamily,
    mut each: impl FnMut(&NeighbourHeader, &[u8]),
) -> Result<(), NetlinkError> {
    let request = NeighbourHeader {
        family,
        ..NeighbourHeader::default()
    };
    dump(RTM_GETNEIGH, &request, |entry| {
        if let Ok(header) = NeighbourHeader::parse(entry) {
            each(&header, entry);
        }
    })
    .map_err(|source| NetlinkError {
        attempt: "list neighbors",
        source,
    })
}

/// Parses one neighbor; `None` if that fails.
pub(crate) fn neighbor(entry: &[u8]) -> Option<NeighbourMessage> {
    NeighbourMessage::parse(entry).ok()
}

/// Calls `each` with the header and the bytes of each route of one family, in all tables.
pub(crate) fn routes(
    family: AddressFamily,
    mut each: impl FnMut(&RouteHeader, &[u8]),
) -> Result<(), NetlinkError> {
    let request = RouteHeader {
        address_family: family,
        ..RouteHeader::default()
    };
    dump(RTM_GETROUTE, &request, |entry| {
        if let Ok(header) = RouteHeader::parse(entry) {
            each(&header, entry);
        }
    })
    .map_err(|source| NetlinkError {
        attempt: "list routes",
        source,
    })
}

/// Parses one route; `None` if that fails.
pub(crate) fn route(entry: &[u8]) -> Option<RouteMessage> {
    RouteMessage::parse(entry).ok()
}

/// The IP address of a route's attribute.
pub(crate) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Requests all objects of a kind, and calls `each` with each one's bytes.
fn dump(kind: u16, request: &impl Emitable, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let socket = net::socket_with(
        net::AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is 0.
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(DEADLINE))?;
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    net::sendto(
        &socket,
        &message(kind, request),
        SendFlags::empty(),
        &kernel,
    )?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let (_, length) = net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
            match message.message_type() {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err(error(message.payload())),
                _ => each(message.payload()),
            }
            // Each message starts at a multiple of four.
            let next = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(next..).unwrap_or_default();
        }
    }
}

fn message(kind: u16, request: &impl Emitable) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    let length = header.buffer_len() + request.buffer_len();
    header.length = u32::try_from(length).unwrap_or(u32::MAX);
    header.message_type = kind;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = vec![0; length];
    let (head, body) = message.split_at_mut(header.buffer_len());
    header.emit(head);
    request.emit(body);
    message
}

/// The error that the kernel answered with: a negative errno.
fn error(payload: &[u8]) -> io::Error {
    let number = payload
        .first_chunk()
        .map(|bytes| i32::from_ne_bytes(*bytes));
    io::Error::from_raw_os_error(number.map_or(0, i32::wrapping_neg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists_routes_and_neighbors() {
        let mut local = 0;
        routes(AddressFamily::Inet, |header, entry| {
            assert_eq!(route(entry).unwrap().header, *header);
            // The loopback's own, which every network namespace has while lo is up.
            local += usize::from(header.destination_prefix_length == 8);
        })
        .unwrap();
        assert!(local > 0);
        for family in [
            AddressFamily::Inet,
            AddressFamily::Inet6,
            AddressFamily::Bridge,
        ] {
            neighbors(family, |header, entry| {
                assert_eq!(neighbor(entry).unwrap().header, *header);
            })
            .unwrap();
        }
    }

    #[test]
    fn rejected_request_is_an_error() {
        let request = RouteHeader {
            address_family: AddressFamily::Inet,
            ..RouteHeader::default()
        };
        // RTM_NEWROUTE as a dump: not supported, or not permitted.
        assert!(dump(24, &request, |_| {}).is_err());
    }
}
