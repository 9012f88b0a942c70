//! The hash table under nf_conntrack_max: when it may be resized, and when it need not be.

use nettune_crds::KeyState;
use nettune_sizing::{DesiredValue, KernelVersion, SysctlKey, keys};

use crate::evaluate::{Plan, Verdict};
use crate::observed::{Content, ObservedState};

/// The kernel rounds buckets up to what fills a page: of 4 KiB, or of 16 or 64 KiB on some arm64 and
/// ppc64le kernels, with 8 bytes a bucket (nf_ct_alloc_hashtable).
const BUCKETS_PER_PAGE: [u64; 3] = [512, 2048, 8192];

/// Below this many connections a resize, which stalls all tracked traffic for about 0.6 µs an entry,
/// is not felt: 40 ms.
const QUIET_BELOW: u64 = 65_536;

/// Entries for each bucket that kernels bear whose chains may grow to 50 entries and more.
const BEARABLE: u64 = 8;

/// What is done about `nf_conntrack_buckets`. `plan` already holds what becomes of
/// `nf_conntrack_max`.
pub(crate) fn judge_buckets(wanted: &DesiredValue, plan: &Plan, live: &ObservedState) -> Verdict {
    let key = &keys::NF_CONNTRACK_BUCKETS;
    let Some(now) = live.number(key) else {
        return Verdict::failed("what it holds is no number");
    };
    let max = max_after(plan, live);
    let to = match wanted {
        DesiredValue::Exact(value) => value.as_number().unwrap_or(now),
        DesiredValue::AtLeast(bounds) => {
            let needed = bounds.floor().max(max.unwrap_or(0).min(bounds.ceiling()));
            // More than that harms nothing: a bucket is 8 bytes, and a resize stalls traffic.
            if now >= needed {
                return Verdict::holds();
            }
            // Where chains fail now, what they should bear is beside the point.
            if let Some(max) = max
                && !live.distress.chains_too_long
                && bears(live.machine.kernel, now, max)
            {
                let note = format!("{now} buckets bear {max} entries on this kernel");
                return Verdict::Holds { note };
            }
            needed
        }
    };
    if is_rounded(to, now) {
        return Verdict::holds();
    }
    // A resize stalls all connections for a moment; chains that are too long refuse them.
    if let Some(busy) = busy(live).filter(|_| !live.distress.chains_too_long) {
        return Verdict::Kept {
            state: KeyState::Waiting,
            message: format!("{to} are set at a quiet moment: {busy}"),
            waits_for: Some("a quiet moment".to_owned()),
        };
    }
    Verdict::Change { to: to.into() }
}

/// Whether a number of buckets is what the kernel makes of another one.
pub(crate) fn is_rounded(wanted: u64, found: u64) -> bool {
    let on_pages = |buckets: u64| wanted.div_ceil(buckets).saturating_mul(buckets);
    found == wanted
        || BUCKETS_PER_PAGE
            .into_iter()
            .any(|page| found == on_pages(page))
}

/// Whether what was written is what is there now, by what the kernel makes of it.
pub(crate) fn took(key: &SysctlKey, wrote: &Content, found: &Content) -> bool {
    wrote == found
        || (*key == keys::NF_CONNTRACK_BUCKETS
            && wrote
                .number()
                .zip(found.number())
                .is_some_and(|(wrote, found)| is_rounded(wrote, found)))
}

/// Why the table is not to be resized now; `None` at a quiet moment. How many connections there are
/// is left out: it changes all the time, and what is reported must not.
pub(crate) fn busy(live: &ObservedState) -> Option<String> {
    match live.counts.conntrack {
        Some(count) if count < QUIET_BELOW => None,
        Some(_) => Some(format!(
            "a resize stalls all connections, and is done while fewer than {QUIET_BELOW} are tracked"
        )),
        None => Some("how many connections are tracked cannot be told".to_owned()),
    }
}

/// The limit that the buckets have to bear when the plan is done; `None` where it is unlimited or
/// not known.
pub(crate) fn max_after(plan: &Plan, live: &ObservedState) -> Option<u64> {
    let key = &keys::NF_CONNTRACK_MAX;
    let max = match plan.get(key) {
        Some(Verdict::Change { to }) => to.number(),
        _ => live.number(key),
    };
    max.filter(|max| *max > 0)
}

/// Whether that many buckets bear that many entries on this kernel.
pub(crate) fn bears(kernel: Option<KernelVersion>, buckets: u64, max: u64) -> bool {
    let per_bucket = if kernel.is_some_and(has_long_chains) {
        BEARABLE
    } else {
        1
    };
    max <= buckets.saturating_mul(per_bucket)
}

/// Whether a chain may grow to 50–79 entries before an insertion fails. From 5.15 until the fix of
/// 6.3, which 5.15.103 took too, the limit was 8–31.
fn has_long_chains(kernel: KernelVersion) -> bool {
    let short = kernel.at_least(5, 15) && !kernel.at_least(6, 3);
    let fixed = kernel.series() == (5, 15) && kernel.patch() >= Some(103);
    !short || fixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_rounded_as_the_kernel_does() {
        for (wanted, found) in [(1, 512), (512, 512), (1000, 1024)] {
            assert!(is_rounded(wanted, found));
            assert!(!is_rounded(wanted, found + 512));
        }
    }

    #[test]
    fn buckets_are_those_that_were_wanted_on_kernels_with_larger_pages_too() {
        let key = &keys::NF_CONNTRACK_BUCKETS;
        // 4, 16 and 64 KiB.
        for (found, is) in [
            (100_352, true),
            (106_496, true),
            (100_000, true),
            (131_072, false),
            (99_840, false),
        ] {
            assert_eq!(took(key, &100_000.into(), &found.into()), is, "{found}");
            assert_eq!(is_rounded(100_000, found), is, "{found}");
        }
    }

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
    fn an_unknown_kernel_bears_no_more_entries_than_buckets() {
        assert!(bears(None, 4, 4));
        assert!(!bears(None, 4, 5));
        assert!(bears(KernelVersion::parse("6.12.1").ok(), 4, 32));
        assert!(!bears(KernelVersion::parse("6.12.1").ok(), 4, 33));
    }
}
