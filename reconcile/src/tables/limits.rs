//! Which limits the kernel takes, and how it rounds them.

use std::collections::BTreeMap;

use nettune_sizing::{DesiredValue, SysctlKey, keys};

use crate::observed::Content;

/// The kernel's maximum for a threshold or nf_conntrack_max.
pub(crate) const HIGHEST: u64 = i32::MAX as u64;

/// The kernel rounds buckets up to what fills a page: of 4 KiB, or of 16 or 64 KiB on some arm64 and
/// ppc64le kernels, with 8 bytes a bucket (nf_ct_alloc_hashtable).
const BUCKETS_PER_PAGE: [u64; 3] = [512, 2048, 8192];

/// The thresholds of one table, from the lowest to the highest.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) keys: [&'static SysctlKey; 3],
}

/// Both neighbor tables; they are independent.
pub(crate) static FAMILIES: [Family; 2] = [
    Family {
        keys: [
            &keys::IPV4_GC_THRESH1,
            &keys::IPV4_GC_THRESH2,
            &keys::IPV4_GC_THRESH3,
        ],
    },
    Family {
        keys: [
            &keys::IPV6_GC_THRESH1,
            &keys::IPV6_GC_THRESH2,
            &keys::IPV6_GC_THRESH3,
        ],
    },
];

impl Family {
    /// Whether a profile manages any of it.
    pub(crate) fn is_managed(&self, desired: &BTreeMap<SysctlKey, DesiredValue>) -> bool {
        self.keys.iter().any(|key| desired.contains_key(*key))
    }
}

/// Whether a threshold has the highest value that leaves room for those above it: it was set to the
/// kernel's maximum, and `thresholds::settle` lowered it just enough to keep the order.
pub(crate) fn is_trimmed(key: &SysctlKey, number: u64) -> bool {
    highest_of(key).is_some_and(|highest| highest < HIGHEST && number == highest)
}

/// The maximum of a threshold that leaves room for those above it; `None` for other keys.
pub(crate) fn highest_of(key: &SysctlKey) -> Option<u64> {
    let place = |family: &Family| (0..).zip(family.keys).find(|(_, own)| *own == key);
    let (place, _) = FAMILIES.iter().find_map(place)?;
    Some(HIGHEST - 2 + place)
}

/// The last part of a key's name.
pub(crate) fn leaf(key: &SysctlKey) -> &str {
    key.name().rsplit('.').next().unwrap_or_default()
}

/// Whether the kernel rounds one number of buckets to another.
pub(crate) fn is_rounded(wanted: u64, found: u64) -> bool {
    let on_pages = |buckets: u64| wanted.div_ceil(buckets).saturating_mul(buckets);
    found == wanted
        || BUCKETS_PER_PAGE
            .into_iter()
            .any(|page| found == on_pages(page))
}

/// Whether the kernel shows what was written, after its rounding.
pub(crate) fn took(key: &SysctlKey, wrote: &Content, found: &Content) -> bool {
    wrote == found
        || (*key == keys::NF_CONNTRACK_BUCKETS
            && wrote
                .number()
                .zip(found.number())
                .is_some_and(|(wrote, found)| is_rounded(wrote, found)))
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
    fn larger_pages_round_buckets_further() {
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
}
