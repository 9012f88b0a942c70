//! The sysctls that the blocks of a tuning manage, by name.

use crate::sysctl::allow_list::{Listed, listed};
use crate::sysctl::key::SysctlKey;

macro_rules! keys {
    ($($(#[$doc:meta])* $key:ident = $name:literal;)*) => {$(
        $(#[$doc])*
        pub static $key: SysctlKey = {
            const LISTED: &Listed = listed($name);
            SysctlKey::of(LISTED)
        };
    )*};
}

keys! {
    /// Below this many IPv4 entries the kernel collects none.
    IPV4_GC_THRESH1 = "net.ipv4.neigh.default.gc_thresh1";
    /// Above this many IPv4 entries the kernel collects at each insertion, once in 5 s.
    IPV4_GC_THRESH2 = "net.ipv4.neigh.default.gc_thresh2";
    /// The most IPv4 entries.
    IPV4_GC_THRESH3 = "net.ipv4.neigh.default.gc_thresh3";
    /// Below this many IPv6 entries the kernel collects none.
    IPV6_GC_THRESH1 = "net.ipv6.neigh.default.gc_thresh1";
    /// Above this many IPv6 entries the kernel collects at each insertion, once in 5 s.
    IPV6_GC_THRESH2 = "net.ipv6.neigh.default.gc_thresh2";
    /// The most IPv6 entries.
    IPV6_GC_THRESH3 = "net.ipv6.neigh.default.gc_thresh3";
    /// The most tracked connections.
    NF_CONNTRACK_MAX = "net.netfilter.nf_conntrack_max";
    /// Size of the hash table of tracked connections.
    NF_CONNTRACK_BUCKETS = "net.netfilter.nf_conntrack_buckets";
    /// What IPVS does with a connection that reuses a port.
    VS_CONN_REUSE_MODE = "net.ipv4.vs.conn_reuse_mode";
    /// Whether IPVS forgets a connection whose destination is gone.
    VS_EXPIRE_NODEST_CONN = "net.ipv4.vs.expire_nodest_conn";
    /// Whether IPVS forgets a persistence template whose destination is drained.
    VS_EXPIRE_QUIESCENT_TEMPLATE = "net.ipv4.vs.expire_quiescent_template";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysctl::allow_list::allow_list;

    #[test]
    fn every_key_of_a_block_has_a_name_here() {
        let here = [
            &IPV4_GC_THRESH1,
            &IPV4_GC_THRESH2,
            &IPV4_GC_THRESH3,
            &VS_CONN_REUSE_MODE,
            &VS_EXPIRE_NODEST_CONN,
            &VS_EXPIRE_QUIESCENT_TEMPLATE,
            &IPV6_GC_THRESH1,
            &IPV6_GC_THRESH2,
            &IPV6_GC_THRESH3,
            &NF_CONNTRACK_BUCKETS,
            &NF_CONNTRACK_MAX,
        ];
        let managed = allow_list().iter().filter(|listed| listed.block.is_some());
        let managed: Vec<&str> = managed.map(|listed| listed.name).collect();
        assert_eq!(here.map(SysctlKey::name).to_vec(), managed);
    }
}
