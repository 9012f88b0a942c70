//! The other sysctls of a tuning, and what should be said about some of their values.

use std::ops::RangeInclusive;

use crate::policy::Policy;
use crate::sizes::{Sizes, Warning};
use crate::sysctl::allow_list::Scope;
use crate::sysctl::desired_value::DesiredValue;
use crate::sysctl::key::SysctlKey;
use crate::sysctl::value::Value;

/// The service node ports that kube-apiserver hands out unless told otherwise
/// (`--service-node-port-range`).
const NODE_PORTS: RangeInclusive<u64> = 30_000..=32_767;

/// Established connections that are idle this long are common: the kernel forgets them after five
/// days, kube-proxy sets one, and TCP keepalive starts after two hours.
const SHORT_ESTABLISHED_SECONDS: u64 = 3600;

/// Per-namespace sysctls whose value in the host's namespace does its work there, for the pods'
/// traffic too: nothing needs to reach the pods.
const AT_WORK_IN_THE_HOST: [&str; 5] = [
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
            "set in the host's network namespace only, pods keep the kernel's default: {}",
            unreached.join(", ")
        )));
    }
}

fn does_not_reach_pods(key: &SysctlKey) -> bool {
    let at_work_here = AT_WORK_IN_THE_HOST
        .iter()
        .any(|part| key.name().contains(part));
    key.scope() == Scope::HostNamespace && !at_work_here
}

/// What a value that is allowed may do to a cluster.
fn danger(name: &str, value: &Value) -> Option<String> {
    let number = value.as_number();
    if name.ends_with(".rp_filter") && number == Some(1) {
        let danger = "strict reverse path filtering drops pods' traffic that comes back another \
                      way; 2 is loose";
        return Some(danger.to_owned());
    }
    if name.starts_with("net.bridge.bridge-nf-call-") && number == Some(0) {
        let danger = "pods on a bridge do not reach Services whose endpoint is on the same bridge";
        return Some(danger.to_owned());
    }
    match name {
        "net.ipv4.vs.conntrack" if number == Some(0) => Some(
            "kube-proxy's IPVS mode masquerades through conntrack; Services stop answering"
                .to_owned(),
        ),
        "net.netfilter.nf_conntrack_tcp_timeout_established"
            if number.is_some_and(|seconds| seconds < SHORT_ESTABLISHED_SECONDS) =>
        {
            Some("idle connections break when they are forgotten; an hour is the least".to_owned())
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
            "outgoing connections take NodePorts ({}-{}); begin above them, or reserve them in \
             net.ipv4.ip_local_reserved_ports",
            NODE_PORTS.start(),
            NODE_PORTS.end()
        )
    })
}
