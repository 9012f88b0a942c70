//! What forbids to read or lower a key: it is not there, not readable, or its table is too full.

use nettune_crds::KeyState;
use nettune_sizing::{Scope, SysctlKey, keys};

use crate::errors;
use crate::observed::{Content, ObservedState, Seen};
use crate::outcome::KeyOutcome;

/// A key that cannot be judged by its value: not of this kind of node, not there, not readable.
pub(crate) fn unusable(key: &SysctlKey, observed: &ObservedState) -> Option<KeyOutcome> {
    if !observed.initial_namespace && key.scope() == Scope::Node {
        return Some(KeyOutcome::kept(
            KeyState::NotApplicable,
            "this is not the initial network namespace, from which the kernel's one value for the whole \
             machine is set: the node is a container, or the agent's pod lacks hostNetwork",
        ));
    }
    match observed.seen(key) {
        Seen::Content(_) => None,
        Seen::Missing => {
            let (waits_for, what) = provider(key);
            Some(KeyOutcome::Kept {
                state: KeyState::Waiting,
                message: format!("{what}; it is applied as soon as it is there"),
                waits_for: Some(waits_for),
            })
        }
        Seen::Unreadable(errno) => Some(KeyOutcome::failed(errors::reading(*errno))),
        Seen::Garbled(what) => Some(KeyOutcome::failed(format!("what it holds is {what}"))),
    }
}

/// What brings a key that is not there, and a sentence that says so. Modules are never loaded by the
/// agent: what loads them configures them.
fn provider(key: &SysctlKey) -> (String, String) {
    let name = key.name();
    let module = [
        ("net.ipv4.vs.", "ip_vs"),
        ("net.netfilter.", "nf_conntrack"),
        ("net.bridge.", "br_netfilter"),
    ]
    .into_iter()
    .find_map(|(prefix, module)| name.starts_with(prefix).then_some(module));
    if let Some(module) = module {
        return (
            module.to_owned(),
            format!("the module {module} is not loaded"),
        );
    }
    let path = key.path();
    let mut parts = path.rsplit('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some(interface), Some("neigh" | "conf"))
            if interface != "default" && interface != "all" =>
        {
            let what = format!("the interface {interface}");
            let message = format!("{what} is not there");
            (what, message)
        }
        _ if name.starts_with("net.ipv6.") => {
            ("IPv6".to_owned(), "this kernel has no IPv6".to_owned())
        }
        _ => (
            "the kernel".to_owned(),
            "this kernel does not have it".to_owned(),
        ),
    }
}

/// A limit is never lowered below twice what its table holds.
pub(crate) fn too_full_to_lower(
    key: &SysctlKey,
    now: &Content,
    to: &Content,
    observed: &ObservedState,
) -> Option<KeyOutcome> {
    let (entries, what) = table_of(key, observed)?;
    let (now, to) = (now.number()?, to.number()?);
    let unlimited = *key == keys::NF_CONNTRACK_MAX && now == 0;
    if to >= now && !unlimited {
        return None;
    }
    let why = match entries {
        Some(entries) if to >= entries.saturating_mul(2) => return None,
        // Not how many: that changes all the time, and what is reported must not.
        Some(_) => format!("the table holds more than half as many {what}"),
        None => format!("how many {what} the table holds cannot be told"),
    };
    Some(KeyOutcome::Kept {
        state: KeyState::Waiting,
        message: format!("{to} is wanted, but {why}"),
        waits_for: Some(format!("fewer {what}")),
    })
}

/// How many entries the table holds that a key limits; `None` where it is no such limit.
fn table_of(key: &SysctlKey, observed: &ObservedState) -> Option<(Option<u64>, &'static str)> {
    let counts = &observed.counts;
    if *key == keys::NF_CONNTRACK_MAX {
        return Some((counts.conntrack, "connections"));
    }
    let [ipv4, ipv6] = [counts.neighbors_ipv4, counts.neighbors_ipv6];
    let of = |two: &SysctlKey, three: &SysctlKey| key == two || key == three;
    if of(&keys::IPV4_GC_THRESH2, &keys::IPV4_GC_THRESH3) {
        return Some((ipv4, "IPv4 neighbours"));
    }
    if of(&keys::IPV6_GC_THRESH2, &keys::IPV6_GC_THRESH3) {
        return Some((ipv6, "IPv6 neighbours"));
    }
    None
}
