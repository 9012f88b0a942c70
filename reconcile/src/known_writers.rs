//! Who else writes which key, and what to set there: the usual suspects of a contest.

use nettune_sizing::SysctlKey;

/// One that writes the keys which begin with one of some prefixes.
struct KnownWriter {
    keys: &'static [&'static str],
    /// Who it is, and what to set in its own configuration.
    advice: &'static str,
}

/// Those of some keys, from the most to the least likely.
static OF_SOME_KEYS: [KnownWriter; 10] = [
    KnownWriter {
        keys: &[
            "net.netfilter.nf_conntrack_max",
            "net.netfilter.nf_conntrack_buckets",
        ],
        advice: "kube-proxy at each start (set conntrack.maxPerCore: 0 in its configuration, or \
                 --conntrack-max-per-core=0)",
    },
    // Switched off, the kernel's own 432000 s for established connections would fill the table.
    KnownWriter {
        keys: &[
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
        ],
        advice: "kube-proxy at each start (give conntrack.tcpEstablishedTimeout and \
                 conntrack.tcpCloseWaitTimeout in its configuration the tuning's values)",
    },
    KnownWriter {
        keys: &[
            "net.netfilter.nf_conntrack_max",
            "net.netfilter.nf_conntrack_tcp_timeout_",
        ],
        advice: "k3s and RKE2, whose agents contain kube-proxy (set the same with kube-proxy-arg)",
    },
    KnownWriter {
        keys: &["net.netfilter.nf_conntrack_max"],
        advice: "calicoctl node run, which sets 1000000 (run calico-node as a DaemonSet instead)",
    },
    KnownWriter {
        keys: &[
            "net.ipv4.vs.conn_reuse_mode",
            "net.ipv4.vs.conntrack",
            "net.ipv4.vs.expire_",
            "net.bridge.",
        ],
        advice: "kube-router at each start, which has no switch for it (give the tuning the value that \
                 kube-router sets, or leave the key out of it)",
    },
    KnownWriter {
        keys: &["net.ipv4.vs."],
        advice: "kube-proxy in IPVS mode at each start (give the tuning the value that it sets)",
    },
    KnownWriter {
        keys: &["net.bridge."],
        advice: "k3s, Docker and network plugins at their start (give the tuning the value that they set)",
    },
    KnownWriter {
        keys: &["net.ipv4.conf.", "net.ipv6.conf."],
        advice: "the network plugin, for the interfaces that it makes (leave their keys out of the tuning)",
    },
    KnownWriter {
        keys: &["net.ipv4.neigh.default.gc_", "net.ipv6.neigh.default.gc_"],
        advice: "OpenShift's Node Tuning Operator, by TuneD's profile openshift (make a Tuned object of \
                 higher priority that gives the key the tuning's value)",
    },
    KnownWriter {
        keys: &[
            "net.core.",
            "net.ipv4.neigh.",
            "net.ipv6.neigh.",
            "net.ipv4.tcp_",
            "net.ipv4.udp_",
            "net.ipv6.route.",
        ],
        advice: "bpftune (start it with -a for each tuner that it shall have, and not for this key's)",
    },
];

/// Those of any key.
const OF_ANY_KEY: [&str; 2] = [
    "TuneD (a profile of your own in /etc/tuned that includes the active one and gives the key the \
     tuning's value)",
    "systemd-sysctl and sysctl --system (look for the key in /etc/sysctl.d, /run/sysctl.d, \
     /usr/lib/sysctl.d and /etc/sysctl.conf, and take it out)",
];

/// A sentence with the usual suspects for a key, and what to set in each one's own configuration.
pub(crate) fn advice(key: &SysctlKey) -> String {
    let writes = |known: &&KnownWriter| {
        let mut starts = known.keys.iter();
        starts.any(|start| key.name().starts_with(start))
    };
    let of_this = OF_SOME_KEYS.iter().filter(writes);
    let named: Vec<&str> = of_this
        .map(|known| known.advice)
        .chain(OF_ANY_KEY)
        .collect();
    format!("Usual suspects: {}.", named.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> String {
        advice(&SysctlKey::parse(name).unwrap())
    }

    #[test]
    fn each_key_has_its_own_suspects_and_those_of_every_key() {
        for (name, suspects) in [
            (
                "net.netfilter.nf_conntrack_max",
                &["maxPerCore: 0", "k3s", "calicoctl"][..],
            ),
            (
                "net.netfilter.nf_conntrack_tcp_timeout_established",
                &["tcpEstablishedTimeout"],
            ),
            ("net.ipv4.vs.conn_reuse_mode", &["kube-router", "IPVS mode"]),
            (
                "net.ipv6.neigh.default.gc_thresh3",
                &["openshift", "bpftune"],
            ),
            ("net.core.somaxconn", &["bpftune"]),
            ("net.ipv4.ip_local_port_range", &[]),
        ] {
            let advice = of(name);
            for suspect in suspects.iter().chain(&["TuneD", "sysctl --system"]) {
                assert!(advice.contains(suspect), "{name}: {suspect} in {advice}");
            }
            // A message has room for 1024 characters, and the sentence before it takes some.
            assert!(advice.len() < 750, "{name}: {} characters", advice.len());
        }
        assert!(!of("net.core.somaxconn").contains("kube-proxy"));
    }
}
