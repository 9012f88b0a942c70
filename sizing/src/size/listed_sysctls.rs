//! `spec.sysctls` of a tuning, with warnings about dangerous values.

use std::ops::RangeInclusive;

use crate::policy::Policy;
use crate::sizes::{Sizes, Warning};
use crate::sysctl::allow_list::Scope;
use crate::sysctl::desired_value::DesiredValue;
use crate::sysctl::key::SysctlKey;
use crate::sysctl::value::Value;

/// NodePorts that kube-apiserver allocates by default (`--service-node-port-range`).
const NODE_PORTS: RangeInclusive<u64> = 30_000..=32_767;

/// Established connections are often idle for this long: the kernel's timeout is 5 days, kube-proxy
/// sets 1 day, and TCP keepalive starts after 2 hours.
const SHORT_ESTABLISHED_SECONDS: u64 = 3600;

/// Per-namespace sysctls that affect pod traffic where it passes the host namespace.
const EFFECTIVE_IN_HOST: [&str; 5] = [
    "net.bridge.",
    "net.ipv4.conf.",
    "net.ipv4.vs.",
    "net.netfilter.",
    ".neigh.",
];

pub(crate) fn size(policy: &Policy, sizes: &mut Sizes) {
    for (key, value) in policy.sysctls() {
        if let Some(danger) = danger(key.name(), value) {
            sizes
                .warnings
                .push(Warning(format!("{key} = {value}: {danger}")));
        }
        sizes.want(
            key,
            DesiredValue::Exact(value.clone()),
            "set by the tuning".to_owned(),
        );
    }
    let unreached: Vec<&str> = policy
        .sysctls()
        .iter()
        .map(|(key, _)| key)
        .filter(|key| does_not_reach_pods(key))
        .map(SysctlKey::name)
        .collect();
    if !unreached.is_empty() {
        sizes.warnings.push(Warning(format!(
            "set only in the host network namespace; pods keep the kernel default: {}",
            unreached.join(", ")
        )));
    }
}

fn does_not_reach_pods(key: &SysctlKey) -> bool {
    let effective_in_host = EFFECTIVE_IN_HOST
        .iter()
        .any(|part| key.name().contains(part));
    key.scope() == Scope::HostNamespace && !effective_in_host
}

/// The damage that an allowed value may do.
fn danger(name: &str, value: &Value) -> Option<String> {
    let number = value.as_number();
    if name.ends_with(".rp_filter") && number == Some(1) {
        let danger = "strict reverse path filtering drops pod traffic that returns on another path; \
                      use 2 (loose)";
        return Some(danger.to_owned());
    }
    if name.starts_with("net.bridge.bridge-nf-call-") && number == Some(0) {
        let danger = "pods on a bridge cannot reach Services with an endpoint on the same bridge";
        return Some(danger.to_owned());
    }
    match name {
        "net.ipv4.vs.conntrack" if number == Some(0) => Some(
            "kube-proxy in IPVS mode masquerades through conntrack; Services stop working"
                .to_owned(),
        ),
        "net.netfilter.nf_conntrack_tcp_timeout_established"
            if number.is_some_and(|seconds| seconds < SHORT_ESTABLISHED_SECONDS) =>
        {
            Some("idle connections break when their entries expire; use at least 3600".to_owned())
        }
        "net.ipv4.ip_local_port_range" => overlap(value),
        _ => None,
    }
}

fn overlap(value: &Value) -> Option<String> {
    let (first, last) = value.as_str().split_once(' ')?;
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    (first <= *NODE_PORTS.end() && last >= *NODE_PORTS.start()).then(|| {
        format!(
            "outgoing connections use NodePorts ({}-{}); start above them, or reserve them in \
             net.ipv4.ip_local_reserved_ports",
            NODE_PORTS.start(),
            NODE_PORTS.end()
        )
    })
}
