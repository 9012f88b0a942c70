//! Restores original values: which ones, and to what.

use nettune_crds::KeyState;
use nettune_sizing::{SysctlKey, keys, kube_proxy_max};

use crate::effect::{Left, Persisted, Record};
use crate::memory::Memory;
use crate::observed::{Content, ObservedState, Seen};
use crate::outcome::{KeyOutcome, Plan};
use crate::plan::guards;
use crate::tables::conntrack;

/// Whether nothing is left to restore: the kernel holds the original, or another process has replaced
/// it.
pub(crate) fn is_over(
    key: &SysctlKey,
    record: &Record,
    observed: &ObservedState,
    memory: &Memory,
) -> bool {
    observed.content(key).is_some_and(|now| {
        let is_back =
            |original| *now == least_to_restore(key, original, observed) || now == original;
        record.original.as_ref().is_some_and(is_back) || !memory.owns(key, now)
    })
}

/// Keys that are forgotten when `intent` is saved although their original is not restored, because
/// another process has replaced it.
pub(crate) fn forgotten(plan: &Plan, memory: &Memory, intent: &Persisted) -> Vec<Left> {
    let forgotten = memory.persisted.records.keys();
    let forgotten = forgotten.filter(|key| !intent.records.contains_key(*key));
    let left = forgotten.filter_map(|key| match plan.get(key)? {
        KeyOutcome::Kept { message, .. } => Some(Left {
            key: key.name().into(),
            message: message.clone(),
        }),
        _ => None,
    });
    left.collect()
}

/// The value stays as it is.
pub(crate) fn left(message: impl Into<String>) -> KeyOutcome {
    KeyOutcome::kept(KeyState::NotApplicable, message)
}

/// The value stays as it is until something else happens.
fn left_until(waits_for: Option<String>, message: String) -> KeyOutcome {
    KeyOutcome::Kept {
        state: KeyState::NotApplicable,
        message,
        waits_for,
    }
}

/// Whether a key's original is restored now.
pub(crate) fn evaluate(
    key: &SysctlKey,
    record: &Record,
    observed: &ObservedState,
    memory: &Memory,
) -> KeyOutcome {
    let now = match observed.seen(key) {
        Seen::Content(now) => now,
        Seen::Missing => return left("left: it no longer exists"),
        Seen::Unreadable(_) | Seen::Garbled(_) => {
            return guards::unusable(key, observed).unwrap_or_else(|| left("left: cannot read it"));
        }
    };
    let Some(original) = &record.original else {
        return left(format!(
            "left at {now}: its original value is unknown because the agent's state was lost; the next \
             boot resets it"
        ));
    };
    if now == original {
        return KeyOutcome::Holds {
            note: "the original value".to_owned(),
        };
    }
    let to = least_to_restore(key, original, observed);
    if *now == to {
        return KeyOutcome::Holds {
            note: format!("the value that kube-proxy sets; the original, {original}, is lower"),
        };
    }
    if !memory.owns(key, now) {
        return left(format!("left at {now}: another process has set it since"));
    }
    if original.number() == Some(0) && *key == keys::NF_CONNTRACK_MAX {
        return left(format!(
            "left at {now}: it was unlimited before, and nettune never sets that"
        ));
    }
    if now.number() < to.number() && original.number() < now.number() {
        return left(format!(
            "left at {now}: its original, {original}, is lower than what kube-proxy sets"
        ));
    }
    match guards::too_full_to_lower(key, now, &to, observed) {
        Some(KeyOutcome::Kept {
            message, waits_for, ..
        }) => left_until(waits_for, format!("left at {now}: {message}")),
        _ => KeyOutcome::Change { to },
    }
}

/// The value to restore: the original, but for nf_conntrack_max at least what kube-proxy sets. It does
/// that once, at startup, and would not raise it again.
fn least_to_restore(key: &SysctlKey, original: &Content, observed: &ObservedState) -> Content {
    match original.number() {
        Some(number) if *key == keys::NF_CONNTRACK_MAX => {
            number.max(kube_proxy_max(observed.machine.cores)).into()
        }
        _ => original.clone(),
    }
}

/// Whether the buckets are restored now; `plan` already has the outcome of `nf_conntrack_max`.
pub(crate) fn evaluate_buckets(
    record: &Record,
    plan: &Plan,
    observed: &ObservedState,
    memory: &Memory,
) -> KeyOutcome {
    let key = &keys::NF_CONNTRACK_BUCKETS;
    let outcome = evaluate(key, record, observed, memory);
    let (KeyOutcome::Change { to }, Some(now)) = (&outcome, observed.number(key)) else {
        return outcome;
    };
    let buckets = to.number().unwrap_or(0);
    let kernel = observed.machine.kernel;
    if let Some(max) = conntrack::max_after(plan, observed)
        && !conntrack::are_enough(kernel, buckets, max)
        && buckets < now
    {
        return left_until(
            Some("a lower nf_conntrack_max".to_owned()),
            format!("left at {now}: {buckets} buckets are too few for {max} entries"),
        );
    }
    match conntrack::busy(observed) {
        Some(busy) => left_until(
            Some("a quiet moment".to_owned()),
            format!("left at {now}: {busy}"),
        ),
        None => outcome,
    }
}
