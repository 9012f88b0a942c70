//! The invariants of an agent's writes and of statuses.

use std::time::Duration;

use nettune_crds::ReleasePolicy;
use nettune_reconcile::desired::{DesiredState, Task};
use nettune_reconcile::effect::Persisted;
use nettune_reconcile::observed::Content;
use nettune_sizing::{DesiredValue, SysctlKey, keys};
use serde_json::Value;

use crate::agent::CORES;
use crate::api::Profile;
use crate::host::Kernel;

/// What an agent waits for: the end of a burst, the end of a conflict, the next report,
/// and the hour for which it leaves a key alone.
pub(crate) const WAITS: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3600),
];

const IPV4: [&SysctlKey; 3] = [
    &keys::IPV4_GC_THRESH1,
    &keys::IPV4_GC_THRESH2,
    &keys::IPV4_GC_THRESH3,
];

/// The rule that an agent's write breaks.
pub(crate) fn of_write(
    goal: &DesiredState,
    key: &SysctlKey,
    before: &Kernel,
    after: &Kernel,
    disk: &Persisted,
) -> Option<&'static str> {
    let number = |kernel: &Kernel, key: &SysctlKey| kernel.keys.get(key)?.content.number();
    let in_order = |kernel: &Kernel| {
        let values = IPV4.map(|key| number(kernel, key));
        values.is_sorted_by(|low, high| low.is_none() || high.is_none() || low < high)
    };
    if in_order(before) && !in_order(after) {
        return Some("gc_thresh1 < gc_thresh2 < gc_thresh3 at every instant");
    }
    let (was, is) = (number(before, key), number(after, key));
    if *key == keys::NF_CONNTRACK_MAX && is == Some(0) {
        return Some("nf_conntrack_max is never 0");
    }
    let count = match key {
        key if *key == keys::NF_CONNTRACK_MAX => after.counts.conntrack,
        key if IPV4.iter().skip(1).any(|limit| *limit == key) => after.counts.neighbors_ipv4,
        _ => None,
    };
    let is_lowered = is < was || (*key == keys::NF_CONNTRACK_MAX && was == Some(0));
    if is_lowered && count.is_some_and(|count| is < Some(2 * count)) {
        return Some("no limit is lowered below twice what its table holds");
    }
    let held = before.keys.get(key)?;
    if is_lowered
        && matches!(goal.values.get(key), Some(DesiredValue::AtLeast(_)))
        && !held.is_ours()
    {
        return Some("under AtLeast only what nettune wrote is lowered");
    }
    let original = held.original.as_ref().unwrap_or(&held.content);
    let record = disk.records.get(key);
    if record.and_then(|record| record.original.as_ref()) != Some(original) {
        return Some("the true original is on disk before the first write");
    }
    let goes_back = goal.task == Task::Release
        || (goal.release_policy == ReleasePolicy::Restore && !goal.values.contains_key(key));
    let is_of_table = IPV4.contains(&key);
    if goes_back && !is_of_table {
        let after = &after.keys.get(key)?.content;
        if !held.is_ours() {
            return Some("only nettune's own value is replaced by the original");
        }
        if *after != least(key, original) {
            return Some("what goes back is the true original");
        }
    } else if goal.task == Task::Leave || goal.task == Task::Observe {
        return Some("without a profile, and under Observe, nothing is written");
    }
    None
}

/// The original, but nf_conntrack_max not below what kube-proxy would set.
pub(crate) fn least(key: &SysctlKey, original: &Content) -> Content {
    match original.number() {
        Some(number) if *key == keys::NF_CONNTRACK_MAX => {
            number.max(131_072.max(u64::from(CORES) * 32_768)).into()
        }
        _ => original.clone(),
    }
}

/// A status about the current spec is true: an `Applied` key was seen to hold the
/// desired value.
pub(crate) fn tells_the_truth(profile: &Profile) -> bool {
    if profile.status["observedGeneration"] != profile.generation || profile.spec.release {
        return true;
    }
    let reported: &[Value] = profile.status["sysctls"]
        .as_array()
        .map_or(&[], Vec::as_slice);
    profile.spec.sysctls.iter().all(|wanted| {
        let said = reported.iter().find(|said| said["name"] == wanted.name);
        said.is_some_and(|said| {
            said["state"] != "Applied"
                || wanted.rule == nettune_crds::Rule::AtLeast
                || said["observed"] == wanted.value
        })
    })
}
