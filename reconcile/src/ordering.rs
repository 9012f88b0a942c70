//! The order of the neighbour tables' thresholds, kept at every instant.
//!
//! The kernel does not check it. With gc_thresh2 above gc_thresh3 the first insertion past
//! gc_thresh3 fails, with both equal every insertion collects garbage (net/core/neighbour.c).

use std::collections::BTreeMap;

use nettune_sizing::{SysctlKey, keys};

use crate::desired::DesiredState;
use crate::evaluate::{Plan, Verdict};
use crate::observed::{Content, ObservedState, Seen};

/// The most that the kernel takes for a threshold or for nf_conntrack_max.
pub(crate) const HIGHEST: u64 = i32::MAX as u64;

/// The thresholds of one table, from the lowest to the highest.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) keys: [&'static SysctlKey; 3],
}

/// Both tables; they know nothing of each other.
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
    /// Whether a goal manages any of it.
    pub(crate) fn is_managed(&self, goal: &DesiredState) -> bool {
        self.keys.iter().any(|key| goal.wanted.contains_key(*key))
    }
}

/// Whether a threshold is at the highest place that leaves room for those above it: somebody set it
/// to the kernel's highest number, and [`crate::tables::thresholds::settle`] took just so much off as the order needs.
pub(crate) fn is_trimmed(key: &SysctlKey, number: u64) -> bool {
    highest_of(key).is_some_and(|highest| highest < HIGHEST && number == highest)
}

/// The most that a threshold may be, so that those above it have room; `None` for other keys.
pub(crate) fn highest_of(key: &SysctlKey) -> Option<u64> {
    let place = |family: &Family| (0..).zip(family.keys).find(|(_, own)| *own == key);
    let (place, _) = FAMILIES.iter().find_map(place)?;
    Some(HIGHEST - 2 + place)
}

/// The last part of a key's name.
pub(crate) fn leaf(key: &SysctlKey) -> &str {
    key.name().rsplit('.').next().unwrap_or_default()
}

/// The next write of a plan that breaks no rule of order; `None` where none is left.
///
/// Thresholds are raised from the top and then lowered from the bottom. Buckets go before
/// nf_conntrack_max is raised and after it is lowered.
pub(crate) fn next_write(plan: &Plan, live: &ObservedState) -> Option<(SysctlKey, Content)> {
    let changes: BTreeMap<&SysctlKey, &Content> = plan
        .iter()
        .filter_map(|(key, verdict)| match verdict {
            Verdict::Change { to } => Some((key, to)),
            _ => None,
        })
        .collect();
    let pick = |key: &SysctlKey| changes.get(key).map(|to| (key.clone(), (*to).clone()));
    FAMILIES
        .iter()
        .find_map(|family| next_of_family(family, &changes, live))
        .or_else(|| {
            let buckets = pick(&keys::NF_CONNTRACK_BUCKETS);
            let raised = buckets.filter(|(key, to)| to.number() > live.number(key));
            raised.or_else(|| pick(&keys::NF_CONNTRACK_MAX))
        })
        .or_else(|| {
            let in_no_order =
                |key: &&SysctlKey| !FAMILIES.iter().any(|family| family.keys.contains(key));
            changes.keys().copied().find(in_no_order).and_then(pick)
        })
}

fn next_of_family(
    family: &Family,
    changes: &BTreeMap<&SysctlKey, &Content>,
    live: &ObservedState,
) -> Option<(SysctlKey, Content)> {
    let raises = [(2, true), (1, true), (0, true)];
    let lowers = [(0, false), (1, false), (2, false)];
    raises.into_iter().chain(lowers).find_map(|(place, raise)| {
        let key = *family.keys.get(place)?;
        let to = *changes.get(key)?;
        let is_raise = to.number() > live.number(key);
        let fits = is_raise == raise && keeps_order(family, place, to.number()?, live);
        fits.then(|| (key.clone(), to.clone()))
    })
}

/// Whether setting one threshold leaves every two neighbours that are in order now in order. One that
/// is not there has no place in it; beside one that cannot be read nothing is moved.
fn keeps_order(family: &Family, place: usize, to: u64, live: &ObservedState) -> bool {
    let there = (0..)
        .zip(family.keys)
        .filter_map(|(at, key)| match live.seen(key) {
            Seen::Missing => None,
            Seen::Content(content) => Some((at, content.number())),
            Seen::Unreadable(_) | Seen::Garbled(_) => Some((at, None)),
        });
    let there: Vec<(usize, Option<u64>)> = there.collect();
    let mut pairs = there.iter().zip(there.iter().skip(1));
    pairs.all(|(&(low, low_now), &(high, high_now))| {
        if low != place && high != place {
            return true;
        }
        let (Some(low_now), Some(high_now)) = (low_now, high_now) else {
            return false;
        };
        let low_then = if low == place { to } else { low_now };
        let high_then = if high == place { to } else { high_now };
        low_now >= high_now || low_then < high_then
    })
}
