//! Software that is known to write the same sysctls, and how to configure it.

use nettune_sizing::SysctlKey;

/// Software that writes keys with one of some prefixes.
struct KnownWriter {
    keys: &'static [&'static str],
    /// What it is, and what to set in its own configuration.
    advice: &'static str,
}

/// Writers of some keys, most likely first.
static OF_SOME_KEYS: [KnownWriter; 10] = [
    KnownWriter {
        keys: &[
            "net.netfilter.nf_conntrack_max",
            "net.netfilter.nf_conntrack_buckets",
        ],
        advice: "kube-proxy at each start (set conntrack.maxPerCore: 0 in its configuration, or \
                 --conntrack-max-per-core=0)",
    },
    // If they were turned off, the kernel's default of 432000 s for established connections would fill the table.
    KnownWriter {
        keys: &[
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
        ],
        advice: "kube-proxy at each start (set conntrack.tcpEstablishedTimeout and \
                 conntrack.tcpCloseWaitTimeout in its configuration to the tuning's values)",
    },
    KnownWriter {
        keys: &[
            "net.netfilter.nf_conntrack_max",
            "net.netfilter.nf_conntrack_tcp_timeout_",
        ],
        advice: "k3s and RKE2, whose agents include kube-proxy (set the same with kube-proxy-arg)",
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
        advice: "kube-router at each start, which has no option for it (set the value that kube-router sets in \
                 the tuning, or omit the key)",
    },
    KnownWriter {
        keys: &["net.ipv4.vs."],
        advice: "kube-proxy in IPVS mode at each start (set the same value in the tuning)",
    },
    KnownWriter {
        keys: &["net.bridge."],
        advice: "k3s, Docker and network plugins at startup (set the same value in the tuning)",
    },
    KnownWriter {
        keys: &["net.ipv4.conf.", "net.ipv6.conf."],
        advice: "the network plugin, for interfaces that it creates (omit their keys from the tuning)",
    },
    KnownWriter {
        keys: &["net.ipv4.neigh.default.gc_", "net.ipv6.neigh.default.gc_"],
        advice: "OpenShift's Node Tuning Operator, with TuneD's profile openshift (create a Tuned object with \
                 a higher priority that sets the key to the tuning's value)",
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
        advice: "bpftune (start it with -a for each tuner to enable, except this key's)",
    },
];

/// Writers of any key.
const OF_ANY_KEY: [&str; 2] = [
    "TuneD (create a profile in /etc/tuned that includes the active one and sets the key to the \
     tuning's value)",
    "systemd-sysctl and sysctl --system (remove the key from /etc/sysctl.d, /run/sysctl.d, \
     /usr/lib/sysctl.d and /etc/sysctl.conf)",
];

/// A sentence that names the likely writers of a key, and what to set in their configuration.
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
    format!("Likely writers: {}.", named.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> String {
        advice(&SysctlKey::parse(name).unwrap())
    }

    #[test]
    fn advice_names_writers_of_the_key_and_of_any_key() {
        for (name, writers) in [
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
            for writer in writers.iter().chain(&["TuneD", "sysctl --system"]) {
                assert!(advice.contains(writer), "{name}: {writer} in {advice}");
            }
            // A message has room for 1024 characters, and the sentence before it takes some.
            assert!(advice.len() < 750, "{name}: {} characters", advice.len());
        }
        assert!(!of("net.core.somaxconn").contains("kube-proxy"));
    }
}
