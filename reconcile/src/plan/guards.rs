//! What prevents reading or lowering a key: it is missing or unreadable, or its table is too full.

use nettune_crds::KeyState;
use nettune_sizing::{Scope, SysctlKey, keys};

use crate::errors;
use crate::observed::{Content, ObservedState, Seen};
use crate::outcome::KeyOutcome;

/// The outcome of a key that has no value to compare: not applicable, missing, or unreadable.
pub(crate) fn unusable(key: &SysctlKey, observed: &ObservedState) -> Option<KeyOutcome> {
    if !observed.initial_namespace && key.scope() == Scope::Node {
        return Some(KeyOutcome::kept(
            KeyState::NotApplicable,
            "the kernel has one value for the whole machine, set from the initial network namespace, and the \
             agent is not in it: the node is a container, or the agent's pod lacks hostNetwork",
        ));
    }
    match observed.seen(key) {
        Seen::Content(_) => None,
        Seen::Missing => {
            let (waits_for, what) = provider(key);
            Some(KeyOutcome::Kept {
                state: KeyState::Waiting,
                message: format!("{what}; the value is applied once it exists"),
                waits_for: Some(waits_for),
            })
        }
        Seen::Unreadable(errno) => Some(KeyOutcome::failed(errors::reading(*errno))),
        Seen::Garbled(what) => Some(KeyOutcome::failed(format!("its content is {what}"))),
    }
}

/// What a missing key waits for, and a sentence that says so. The agent never loads modules: whatever
/// loads them configures them.
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
        return (module.to_owned(), format!("module {module} is not loaded"));
    }
    let path = key.path();
    let mut parts = path.rsplit('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some(interface), Some("neigh" | "conf"))
            if interface != "default" && interface != "all" =>
        {
            let what = format!("interface {interface}");
            let message = format!("{what} does not exist");
            (what, message)
        }
        _ if name.starts_with("net.ipv6.") => {
            ("IPv6".to_owned(), "this kernel has no IPv6".to_owned())
        }
        _ => (
            "the kernel".to_owned(),
            "this kernel does not have this sysctl".to_owned(),
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
        // Without the count: it changes all the time, and the report must not.
        Some(_) => format!("the table holds more than half that many {what}"),
        None => format!("the number of {what} in the table is unknown"),
    };
    Some(KeyOutcome::Kept {
        state: KeyState::Waiting,
        message: format!("{to} is desired, but {why}"),
        waits_for: Some(format!("fewer {what}")),
    })
}

/// The entries of the table that a key limits; `None` if it limits none.
fn table_of(key: &SysctlKey, observed: &ObservedState) -> Option<(Option<u64>, &'static str)> {
    let counts = &observed.counts;
    if *key == keys::NF_CONNTRACK_MAX {
        return Some((counts.conntrack, "connections"));
    }
    let [ipv4, ipv6] = [counts.neighbors_ipv4, counts.neighbors_ipv6];
    let of = |two: &SysctlKey, three: &SysctlKey| key == two || key == three;
    if of(&keys::IPV4_GC_THRESH2, &keys::IPV4_GC_THRESH3) {
        return Some((ipv4, "IPv4 neighbors"));
    }
    if of(&keys::IPV6_GC_THRESH2, &keys::IPV6_GC_THRESH3) {
        return Some((ipv6, "IPv6 neighbors"));
    }
    None
}
