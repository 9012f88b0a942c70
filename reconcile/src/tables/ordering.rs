//! The order of writes, so that a neighbor table's thresholds are in order at every instant.
//!
//! The kernel does not check it. With gc_thresh2 above gc_thresh3 the first insertion past
//! gc_thresh3 fails, with both equal every insertion collects garbage (net/core/neighbour.c).

use std::collections::BTreeMap;

use nettune_sizing::{SysctlKey, keys};

use crate::observed::{Content, ObservedState, Seen};
use crate::outcome::{KeyOutcome, Plan};
use crate::tables::limits::{FAMILIES, Family};

/// The next write of a plan that breaks no order; `None` if none is left.
///
/// Thresholds are raised from the top and then lowered from the bottom. Buckets go before
/// nf_conntrack_max is raised and after it is lowered.
pub(crate) fn next_write(plan: &Plan, observed: &ObservedState) -> Option<(SysctlKey, Content)> {
    let changes: BTreeMap<&SysctlKey, &Content> = plan
        .iter()
        .filter_map(|(key, outcome)| match outcome {
            KeyOutcome::Change { to } => Some((key, to)),
            _ => None,
        })
        .collect();
    let pick = |key: &SysctlKey| changes.get(key).map(|to| (key.clone(), (*to).clone()));
    FAMILIES
        .iter()
        .find_map(|family| next_of_family(family, &changes, observed))
        .or_else(|| {
            let buckets = pick(&keys::NF_CONNTRACK_BUCKETS);
            let raised = buckets.filter(|(key, to)| to.number() > observed.number(key));
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
    observed: &ObservedState,
) -> Option<(SysctlKey, Content)> {
    let raises = [(2, true), (1, true), (0, true)];
    let lowers = [(0, false), (1, false), (2, false)];
    raises.into_iter().chain(lowers).find_map(|(place, raise)| {
        let key = *family.keys.get(place)?;
        let to = *changes.get(key)?;
        let is_raise = to.number() > observed.number(key);
        let fits = is_raise == raise && keeps_order(family, place, to.number()?, observed);
        fits.then(|| (key.clone(), to.clone()))
    })
}

/// Whether setting one threshold keeps every adjacent pair that is in order now in order. Missing
/// thresholds are skipped; next to one that cannot be read nothing is changed.
fn keeps_order(family: &Family, place: usize, to: u64, observed: &ObservedState) -> bool {
    let there = (0..)
        .zip(family.keys)
        .filter_map(|(at, key)| match observed.seen(key) {
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
