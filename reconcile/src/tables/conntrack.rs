//! The hash table of conntrack: when it may be resized, and when it need not be.

use nettune_crds::KeyState;
use nettune_sizing::{DesiredValue, KernelVersion, keys};

use crate::observed::ObservedState;
use crate::outcome::{KeyOutcome, Plan};
use crate::tables::limits::is_rounded;

/// Below this many connections a resize, which stalls all tracked traffic for about 0.6 µs an entry,
/// is not noticeable: 40 ms.
const QUIET_BELOW: u64 = 65_536;

/// Entries per bucket that are fine on kernels whose chains may grow to 50 entries and more.
const BEARABLE: u64 = 8;

/// The outcome of `nf_conntrack_buckets`; `plan` already has that of `nf_conntrack_max`.
pub(crate) fn evaluate_buckets(
    wanted: &DesiredValue,
    plan: &Plan,
    observed: &ObservedState,
) -> KeyOutcome {
    let key = &keys::NF_CONNTRACK_BUCKETS;
    let Some(now) = observed.number(key) else {
        return KeyOutcome::failed("its content is not a number");
    };
    let max = max_after(plan, observed);
    let to = match wanted {
        DesiredValue::Exact(value) => value.as_number().unwrap_or(now),
        DesiredValue::AtLeast(bounds) => {
            let needed = bounds.floor().max(max.unwrap_or(0).min(bounds.ceiling()));
            // More are harmless: a bucket is 8 bytes, and a resize stalls traffic.
            if now >= needed {
                return KeyOutcome::holds();
            }
            if let Some(max) = max
                && !observed.overflows.chains_too_long
                && are_enough(observed.machine.kernel, now, max)
            {
                let note = format!("{now} buckets are enough for {max} entries on this kernel");
                return KeyOutcome::Holds { note };
            }
            needed
        }
    };
    if is_rounded(to, now) {
        return KeyOutcome::holds();
    }
    // A resize stalls all connections for a moment; chains that are too long refuse them.
    if let Some(busy) = busy(observed).filter(|_| !observed.overflows.chains_too_long) {
        return KeyOutcome::Kept {
            state: KeyState::Waiting,
            message: format!("{to} buckets will be set at a quiet moment: {busy}"),
            waits_for: Some("a quiet moment".to_owned()),
        };
    }
    KeyOutcome::Change { to: to.into() }
}

/// Why the table is not to be resized now; `None` at a quiet moment. How many connections there are
/// is left out: it changes all the time, and what is reported must not.
pub(crate) fn busy(observed: &ObservedState) -> Option<String> {
    match observed.counts.conntrack {
        Some(count) if count < QUIET_BELOW => None,
        Some(_) => Some(format!(
            "a resize stalls all connections, so it waits until fewer than {QUIET_BELOW} are tracked"
        )),
        None => Some("the number of tracked connections is unknown".to_owned()),
    }
}

/// The limit once the plan is done; `None` if it is unlimited or unknown.
pub(crate) fn max_after(plan: &Plan, observed: &ObservedState) -> Option<u64> {
    let key = &keys::NF_CONNTRACK_MAX;
    let max = match plan.get(key) {
        Some(KeyOutcome::Change { to }) => to.number(),
        _ => observed.number(key),
    };
    max.filter(|max| *max > 0)
}

/// Whether that many buckets are enough for that many entries on this kernel.
pub(crate) fn are_enough(kernel: Option<KernelVersion>, buckets: u64, max: u64) -> bool {
    let per_bucket = if kernel.is_some_and(has_long_chains) {
        BEARABLE
    } else {
        1
    };
    max <= buckets.saturating_mul(per_bucket)
}

/// Whether a chain may grow to 50–79 entries before an insertion fails. From 5.15 until the fix of
/// 6.3, which 5.15.103 has too, the limit was 8–31.
fn has_long_chains(kernel: KernelVersion) -> bool {
    let short = kernel.at_least(5, 15) && !kernel.at_least(6, 3);
    let fixed = kernel.series() == (5, 15) && kernel.patch() >= Some(103);
    !short || fixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_short_from_5_15_until_their_fix() {
        for (release, long) in [
            ("5.14.0", true),
            ("5.15.0-100-generic", false),
            ("5.15.102", false),
            ("5.15.103", true),
            ("6.1.0-18-amd64", false),
            ("6.2.16", false),
            ("6.3.1", true),
        ] {
            let kernel = KernelVersion::parse(release).unwrap();
            assert_eq!(has_long_chains(kernel), long, "{release}");
        }
    }

    #[test]
    fn unknown_kernel_needs_a_bucket_per_entry() {
        assert!(are_enough(None, 4, 4));
        assert!(!are_enough(None, 4, 5));
        assert!(are_enough(KernelVersion::parse("6.12.1").ok(), 4, 32));
        assert!(!are_enough(KernelVersion::parse("6.12.1").ok(), 4, 33));
    }
}
