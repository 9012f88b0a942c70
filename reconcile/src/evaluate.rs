//! What becomes of one key: by its rule, what the kernel holds, and how full its table is.

use std::collections::BTreeMap;

use nettune_crds::KeyState;
use nettune_sizing::{DesiredValue, Mono, Scope, SysctlKey, keys};

use crate::desired::DesiredState;
use crate::errors;
use crate::memory::Memory;
use crate::observed::{Content, ObservedState, Seen};
use crate::ordering;
use crate::restore;
use crate::tables::conntrack;
use crate::tables::thresholds;

/// What becomes of each key.
pub(crate) type Plan = BTreeMap<SysctlKey, Verdict>;

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is as wanted; the note says what is not plain from the value.
    Holds { note: String },
    /// It is to be written.
    Change { to: Content },
    /// It is left as it is, although it is not as wanted.
    Kept {
        state: KeyState,
        message: String,
        /// For the summary: what it waits for.
        waits_for: Option<String>,
    },
}

impl Verdict {
    pub(crate) fn holds() -> Self {
        Self::Holds {
            note: String::new(),
        }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::kept(KeyState::Failed, message)
    }

    pub(crate) fn kept(state: KeyState, message: impl Into<String>) -> Self {
        Self::Kept {
            state,
            message: message.into(),
            waits_for: None,
        }
    }
}

/// What is to be done to reach a goal, before mode and failures are taken into account.
pub(crate) fn plan(goal: &DesiredState, live: &ObservedState, memory: &Memory, now: Mono) -> Plan {
    let mut plan = Plan::new();
    let left_for_now = |key, wanted, verdict| match (memory.rival(key), verdict) {
        (Some(rival), Verdict::Change { .. }) if rival.waits(now) => rival.verdict(key, wanted),
        (_, verdict) => verdict,
    };
    for (key, wanted) in &goal.wanted {
        if *key != keys::NF_CONNTRACK_BUCKETS {
            let verdict = judge(key, wanted, live, memory);
            plan.insert(key.clone(), left_for_now(key, Some(wanted), verdict));
        }
    }
    restore::add(&mut plan, live, memory, |key| goal.gives_back(key));
    // After nf_conntrack_max, whose value it has to bear.
    let buckets = &keys::NF_CONNTRACK_BUCKETS;
    if let Some(wanted) = goal.wanted.get(buckets) {
        let verdict = unusable(buckets, live)
            .unwrap_or_else(|| conntrack::judge_buckets(wanted, &plan, live));
        plan.insert(
            buckets.clone(),
            left_for_now(buckets, Some(wanted), verdict),
        );
    }
    thresholds::settle(&mut plan, goal, live, memory, now);
    plan
}

fn judge(key: &SysctlKey, wanted: &DesiredValue, live: &ObservedState, memory: &Memory) -> Verdict {
    if let Some(verdict) = unusable(key, live) {
        return verdict;
    }
    let Some(now) = live.content(key) else {
        return Verdict::failed("it was not read");
    };
    let to = match wanted {
        DesiredValue::Exact(value) => Content::from(value.clone()),
        DesiredValue::AtLeast(bounds) => match now.number() {
            Some(number) if number >= bounds.floor() || chosen_zero(key, number) => {
                if number == bounds.floor() {
                    return Verdict::holds();
                }
                if !memory.owns(key, now) || ordering::is_trimmed(key, number) {
                    let floor = bounds.floor();
                    let note = match number {
                        0 => {
                            format!("0 was chosen by somebody else and is left ({floor} is wanted)")
                        }
                        _ => format!("left above the {floor} that is wanted"),
                    };
                    return Verdict::Holds { note };
                }
                bounds.floor().into()
            }
            _ => bounds.floor().into(),
        },
    };
    if *now == to {
        return Verdict::holds();
    }
    too_full_to_lower(key, now, &to, live).unwrap_or(Verdict::Change { to })
}

/// A zero that no smaller number beats: gc_thresh1 = 0 collects early and was chosen by somebody,
/// nf_conntrack_max = 0 is no limit at all.
fn chosen_zero(key: &SysctlKey, number: u64) -> bool {
    number == 0
        && (*key == keys::NF_CONNTRACK_MAX
            || *key == keys::IPV4_GC_THRESH1
            || *key == keys::IPV6_GC_THRESH1)
}

/// A key that cannot be judged by its value: not of this kind of node, not there, not readable.
pub(crate) fn unusable(key: &SysctlKey, live: &ObservedState) -> Option<Verdict> {
    if !live.initial_namespace && key.scope() == Scope::Node {
        return Some(Verdict::kept(
            KeyState::NotApplicable,
            "this is not the initial network namespace, from which the kernel's one value for the whole \
             machine is set: the node is a container, or the agent's pod lacks hostNetwork",
        ));
    }
    match live.seen(key) {
        Seen::Content(_) => None,
        Seen::Missing => {
            let (waits_for, what) = provider(key);
            Some(Verdict::Kept {
                state: KeyState::Waiting,
                message: format!("{what}; it is applied as soon as it is there"),
                waits_for: Some(waits_for),
            })
        }
        Seen::Unreadable(errno) => Some(Verdict::failed(errors::reading(*errno))),
        Seen::Garbled(what) => Some(Verdict::failed(format!("what it holds is {what}"))),
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
    live: &ObservedState,
) -> Option<Verdict> {
    let (entries, what) = table_of(key, live)?;
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
    Some(Verdict::Kept {
        state: KeyState::Waiting,
        message: format!("{to} is wanted, but {why}"),
        waits_for: Some(format!("fewer {what}")),
    })
}

/// How many entries the table holds that a key limits; `None` where it is no such limit.
fn table_of(key: &SysctlKey, live: &ObservedState) -> Option<(Option<u64>, &'static str)> {
    let counts = &live.counts;
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
