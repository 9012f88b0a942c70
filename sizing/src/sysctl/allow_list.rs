//! The sysctls that nettune may write, compiled in.
//!
//! A key is here because it is a size, a time or a limit of the network stack that a cluster
//! administrator tunes. Routing and security switches (forwarding, accept_redirects, …) and
//! everything outside `net.` are absent on purpose. Where two names move one value
//! (`base_reachable_time` and its `_ms`, `unres_qlen` and `unres_qlen_bytes`,
//! `net.nf_conntrack_max`), just one of them is here, or they would drift against each other.

/// One sysctl of the allow-list.
#[derive(Debug)]
pub struct Listed {
    /// Its dotted name.
    pub name: &'static str,
    /// How far its value reaches.
    pub scope: Scope,
    /// The block of a tuning that manages it, if one does.
    pub block: Option<Block>,
}

/// How far a sysctl's value reaches when it is set in the host's network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole node.
    Node,
    /// The host's namespace; a namespace that is made later starts with a copy.
    PodsInherit,
    /// The host's namespace alone: pods keep the kernel's default.
    HostNamespace,
}

/// A block of a tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Block {
    /// `neighbors`.
    Neighbors,
    /// `conntrack`.
    Conntrack,
    /// `ipvs`.
    Ipvs,
}

impl Block {
    /// The name of the block's field in a tuning's spec.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Neighbors => "neighbors",
            Self::Conntrack => "conntrack",
            Self::Ipvs => "ipvs",
        }
    }
}

/// Sysctls that exist once for each network interface: `PREFIX.INTERFACE.LEAF`.
#[derive(Debug)]
pub struct InterfaceFamily {
    /// What comes before the interface's name.
    pub prefix: &'static str,
    /// What may come after it.
    pub leaves: &'static [&'static str],
}

impl InterfaceFamily {
    /// The interface in a name of this family. `default` and `all` are no interfaces: what may be
    /// set there is listed by its full name.
    pub(crate) fn interface_in<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_prefix(self.prefix)?.strip_prefix('.')?;
        let (interface, leaf) = rest.rsplit_once('.')?;
        let is_one = !interface.is_empty() && !matches!(interface, "default" | "all");
        (is_one && self.leaves.contains(&leaf)).then_some(interface)
    }
}

/// What can be set per interface of a neighbor table. A change of `neigh.default` reaches only
/// devices made later, hence these. gc_interval is read by nothing in the kernel and left out.
const NEIGHBOR_LEAVES: &[&str] = &[
    "app_solicit",
    "base_reachable_time_ms",
    "delay_first_probe_time",
    "gc_stale_time",
    "mcast_solicit",
    "retrans_time_ms",
    "ucast_solicit",
    "unres_qlen_bytes",
];

/// The families of sysctls that exist for each interface.
pub const INTERFACE_FAMILIES: &[InterfaceFamily] = &[
    InterfaceFamily {
        prefix: "net.ipv4.neigh",
        leaves: NEIGHBOR_LEAVES,
    },
    InterfaceFamily {
        prefix: "net.ipv6.neigh",
        leaves: NEIGHBOR_LEAVES,
    },
    InterfaceFamily {
        prefix: "net.ipv4.conf",
        leaves: &["rp_filter"],
    },
];

/// Every sysctl that is allowed by its full name, sorted by name.
#[must_use]
pub fn allow_list() -> &'static [Listed] {
    LIST
}

/// The entry of a name that is certainly there; evaluated when this crate is compiled, where a name
/// that is not on the list is an index out of bounds, and so an error.
pub(crate) const fn listed(name: &str) -> &'static Listed {
    let mut index = 0;
    while !same(LIST[index].name.as_bytes(), name.as_bytes()) {
        index += 1;
    }
    &LIST[index]
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

pub(crate) fn find(name: &str) -> Option<&'static Listed> {
    let index = LIST.binary_search_by(|listed| listed.name.cmp(name)).ok()?;
    LIST.get(index)
}

const fn node(name: &'static str) -> Listed {
    Listed {
        name,
        scope: Scope::Node,
        block: None,
    }
}

const fn inherited(name: &'static str) -> Listed {
    Listed {
        name,
        scope: Scope::PodsInherit,
        block: None,
    }
}

const fn host(name: &'static str) -> Listed {
    Listed {
        name,
        scope: Scope::HostNamespace,
        block: None,
    }
}

const fn managed(block: Block, scope: Scope, name: &'static str) -> Listed {
    Listed {
        name,
        scope,
        block: Some(block),
    }
}

const LIST: &[Listed] = &[
    host("net.bridge.bridge-nf-call-arptables"),
    host("net.bridge.bridge-nf-call-ip6tables"),
    host("net.bridge.bridge-nf-call-iptables"),
    node("net.core.default_qdisc"),
    node("net.core.netdev_budget"),
    node("net.core.netdev_budget_usecs"),
    node("net.core.netdev_max_backlog"),
    node("net.core.optmem_max"),
    node("net.core.rmem_default"),
    node("net.core.rmem_max"),
    node("net.core.rps_sock_flow_entries"),
    host("net.core.somaxconn"),
    node("net.core.wmem_default"),
    node("net.core.wmem_max"),
    host("net.ipv4.conf.all.rp_filter"),
    host("net.ipv4.conf.default.rp_filter"),
    host("net.ipv4.ip_local_port_range"),
    host("net.ipv4.ip_local_reserved_ports"),
    inherited("net.ipv4.neigh.default.app_solicit"),
    inherited("net.ipv4.neigh.default.base_reachable_time_ms"),
    inherited("net.ipv4.neigh.default.delay_first_probe_time"),
    inherited("net.ipv4.neigh.default.gc_stale_time"),
    managed(
        Block::Neighbors,
        Scope::Node,
        "net.ipv4.neigh.default.gc_thresh1",
    ),
    managed(
        Block::Neighbors,
        Scope::Node,
        "net.ipv4.neigh.default.gc_thresh2",
    ),
    managed(
        Block::Neighbors,
        Scope::Node,
        "net.ipv4.neigh.default.gc_thresh3",
    ),
    inherited("net.ipv4.neigh.default.mcast_solicit"),
    inherited("net.ipv4.neigh.default.retrans_time_ms"),
    inherited("net.ipv4.neigh.default.ucast_solicit"),
    inherited("net.ipv4.neigh.default.unres_qlen_bytes"),
    host("net.ipv4.tcp_base_mss"),
    host("net.ipv4.tcp_challenge_ack_limit"),
    host("net.ipv4.tcp_fin_timeout"),
    host("net.ipv4.tcp_invalid_ratelimit"),
    host("net.ipv4.tcp_keepalive_intvl"),
    host("net.ipv4.tcp_keepalive_probes"),
    host("net.ipv4.tcp_keepalive_time"),
    host("net.ipv4.tcp_limit_output_bytes"),
    node("net.ipv4.tcp_max_orphans"),
    host("net.ipv4.tcp_max_syn_backlog"),
    host("net.ipv4.tcp_max_tw_buckets"),
    node("net.ipv4.tcp_mem"),
    host("net.ipv4.tcp_min_snd_mss"),
    host("net.ipv4.tcp_notsent_lowat"),
    host("net.ipv4.tcp_orphan_retries"),
    host("net.ipv4.tcp_retries1"),
    host("net.ipv4.tcp_retries2"),
    inherited("net.ipv4.tcp_rmem"),
    host("net.ipv4.tcp_syn_retries"),
    host("net.ipv4.tcp_synack_retries"),
    host("net.ipv4.tcp_tw_reuse"),
    inherited("net.ipv4.tcp_wmem"),
    node("net.ipv4.udp_mem"),
    host("net.ipv4.udp_rmem_min"),
    host("net.ipv4.udp_wmem_min"),
    host("net.ipv4.vs.am_droprate"),
    host("net.ipv4.vs.amemthresh"),
    host("net.ipv4.vs.backup_only"),
    host("net.ipv4.vs.cache_bypass"),
    managed(
        Block::Ipvs,
        Scope::HostNamespace,
        "net.ipv4.vs.conn_reuse_mode",
    ),
    host("net.ipv4.vs.conntrack"),
    host("net.ipv4.vs.drop_entry"),
    host("net.ipv4.vs.drop_packet"),
    managed(
        Block::Ipvs,
        Scope::HostNamespace,
        "net.ipv4.vs.expire_nodest_conn",
    ),
    managed(
        Block::Ipvs,
        Scope::HostNamespace,
        "net.ipv4.vs.expire_quiescent_template",
    ),
    host("net.ipv4.vs.ignore_tunneled"),
    host("net.ipv4.vs.nat_icmp_send"),
    host("net.ipv4.vs.pmtu_disc"),
    host("net.ipv4.vs.run_estimation"),
    host("net.ipv4.vs.schedule_icmp"),
    host("net.ipv4.vs.secure_tcp"),
    host("net.ipv4.vs.sloppy_sctp"),
    host("net.ipv4.vs.sloppy_tcp"),
    host("net.ipv4.vs.snat_reroute"),
    host("net.ipv4.vs.sync_persist_mode"),
    host("net.ipv4.vs.sync_ports"),
    host("net.ipv4.vs.sync_qlen_max"),
    host("net.ipv4.vs.sync_refresh_period"),
    host("net.ipv4.vs.sync_retries"),
    host("net.ipv4.vs.sync_sock_size"),
    host("net.ipv4.vs.sync_threshold"),
    host("net.ipv4.vs.sync_version"),
    host("net.ipv4.xfrm4_gc_thresh"),
    inherited("net.ipv6.neigh.default.app_solicit"),
    inherited("net.ipv6.neigh.default.base_reachable_time_ms"),
    inherited("net.ipv6.neigh.default.delay_first_probe_time"),
    inherited("net.ipv6.neigh.default.gc_stale_time"),
    managed(
        Block::Neighbors,
        Scope::Node,
        "net.ipv6.neigh.default.gc_thresh1",
    ),
    managed(
        Block::Neighbors,
        Scope::Node,
        "net.ipv6.neigh.default.gc_thresh2",
    ),
    managed(
        Block::Neighbors,
        Scope::Node,
        "net.ipv6.neigh.default.gc_thresh3",
    ),
    inherited("net.ipv6.neigh.default.mcast_solicit"),
    inherited("net.ipv6.neigh.default.retrans_time_ms"),
    inherited("net.ipv6.neigh.default.ucast_solicit"),
    inherited("net.ipv6.neigh.default.unres_qlen_bytes"),
    host("net.ipv6.route.gc_thresh"),
    host("net.ipv6.route.max_size"),
    host("net.ipv6.xfrm6_gc_thresh"),
    host("net.netfilter.nf_conntrack_acct"),
    managed(
        Block::Conntrack,
        Scope::Node,
        "net.netfilter.nf_conntrack_buckets",
    ),
    host("net.netfilter.nf_conntrack_dccp_timeout_closereq"),
    host("net.netfilter.nf_conntrack_dccp_timeout_closing"),
    host("net.netfilter.nf_conntrack_dccp_timeout_open"),
    host("net.netfilter.nf_conntrack_dccp_timeout_partopen"),
    host("net.netfilter.nf_conntrack_dccp_timeout_request"),
    host("net.netfilter.nf_conntrack_dccp_timeout_respond"),
    host("net.netfilter.nf_conntrack_dccp_timeout_timewait"),
    host("net.netfilter.nf_conntrack_generic_timeout"),
    host("net.netfilter.nf_conntrack_gre_timeout"),
    host("net.netfilter.nf_conntrack_gre_timeout_stream"),
    host("net.netfilter.nf_conntrack_icmp_timeout"),
    host("net.netfilter.nf_conntrack_icmpv6_timeout"),
    managed(
        Block::Conntrack,
        Scope::Node,
        "net.netfilter.nf_conntrack_max",
    ),
    host("net.netfilter.nf_conntrack_sctp_timeout_closed"),
    host("net.netfilter.nf_conntrack_sctp_timeout_cookie_echoed"),
    host("net.netfilter.nf_conntrack_sctp_timeout_cookie_wait"),
    host("net.netfilter.nf_conntrack_sctp_timeout_established"),
    host("net.netfilter.nf_conntrack_sctp_timeout_heartbeat_sent"),
    host("net.netfilter.nf_conntrack_sctp_timeout_shutdown_ack_sent"),
    host("net.netfilter.nf_conntrack_sctp_timeout_shutdown_recd"),
    host("net.netfilter.nf_conntrack_sctp_timeout_shutdown_sent"),
    host("net.netfilter.nf_conntrack_tcp_be_liberal"),
    host("net.netfilter.nf_conntrack_tcp_loose"),
    host("net.netfilter.nf_conntrack_tcp_max_retrans"),
    host("net.netfilter.nf_conntrack_tcp_timeout_close"),
    host("net.netfilter.nf_conntrack_tcp_timeout_close_wait"),
    host("net.netfilter.nf_conntrack_tcp_timeout_established"),
    host("net.netfilter.nf_conntrack_tcp_timeout_fin_wait"),
    host("net.netfilter.nf_conntrack_tcp_timeout_last_ack"),
    host("net.netfilter.nf_conntrack_tcp_timeout_max_retrans"),
    host("net.netfilter.nf_conntrack_tcp_timeout_syn_recv"),
    host("net.netfilter.nf_conntrack_tcp_timeout_syn_sent"),
    host("net.netfilter.nf_conntrack_tcp_timeout_time_wait"),
    host("net.netfilter.nf_conntrack_tcp_timeout_unacknowledged"),
    host("net.netfilter.nf_conntrack_udp_timeout"),
    host("net.netfilter.nf_conntrack_udp_timeout_stream"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_names_nothing_twice() {
        assert!(LIST.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn nothing_outside_net_is_on_the_list() {
        assert!(LIST.iter().all(|listed| listed.name.starts_with("net.")));
    }

    #[test]
    fn names_that_move_the_same_value_are_not_both_here() {
        for absent in [
            "net.ipv4.neigh.default.base_reachable_time",
            "net.ipv4.neigh.default.unres_qlen",
            "net.nf_conntrack_max",
        ] {
            assert!(find(absent).is_none(), "{absent}");
        }
    }
}
