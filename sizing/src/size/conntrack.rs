//! Connection tracking: how many connections, and the hash table that finds them.

use std::fmt::Write as _;

use crate::facts::NodeFacts;
use crate::policy::ConntrackPolicy;
use crate::size::units::{Bytes, Count};
use crate::sizes::{Sizes, Warning};
use crate::sysctl::desired_value::DesiredValue;
use crate::sysctl::keys;

/// Minimum where the memory allows it: kube-proxy's `--conntrack-min`.
const KUBE_PROXY_MIN: u64 = 131_072;

/// Minimum on any node: 3.2 MiB when full. The kernel goes down to 1024 (nf_conntrack_init_start),
/// which a few pods fill.
const MEMORY_SHARE_MIN: u64 = 8192;

/// Maximum without `conntrack.maxEntries`: 411 MiB when full. The cap of kube-proxy since 1.36.
const MOST: u64 = 1_048_576;

/// kube-proxy's `--conntrack-max-per-core`.
const KUBE_PROXY_PER_CORE: u64 = 32_768;

/// Memory of an entry: 256 bytes of `struct nf_conn`, 128 of its extensions, and 8 of its bucket.
const ENTRY_BYTES: u64 = 392;

/// Share of the memory that entries may use.
const MEMORY_PERCENT: u64 = 3;

pub(crate) fn size(policy: &ConntrackPolicy, node: &NodeFacts, sizes: &mut Sizes) {
    let (min, max) = (policy.bounds.min(), policy.bounds.max());
    let cap = memory_cap(node.memory);
    let most = max.map_or(MOST, u64::from);
    let want = Want::of(policy, node);
    let affordable = want.entries.min(cap).min(most);
    let entries = affordable.max(min.map_or(0, u64::from));
    let ceiling = cap.min(most);

    let buckets = "1 bucket per entry of nf_conntrack_max; with longer chains, insertions fail on some \
                   kernels (5.15 to 6.2)";
    sizes.want(
        &keys::NF_CONNTRACK_BUCKETS,
        DesiredValue::at_least(entries, ceiling),
        buckets.to_owned(),
    );
    if entries > cap {
        sizes.warnings.push(Warning(format!(
            "conntrack.minEntries requests {entries} entries ({} when full), but 3% of {} memory allows {cap}",
            Bytes(entries.saturating_mul(ENTRY_BYTES)),
            Bytes(node.memory),
        )));
    }
    if min.is_some() && min == max {
        let reason = "set by the tuning (conntrack.minEntries equals maxEntries)";
        let wanted = DesiredValue::exactly(entries);
        sizes.want(&keys::NF_CONNTRACK_MAX, wanted, reason.to_owned());
        return;
    }
    let mut reason = want.reason;
    if entries < want.entries {
        let cut = cut(node, cap, max.map(u64::from));
        sizes.warnings.push(Warning(format!(
            "nf_conntrack_max is {entries}, below the {} that this node needs ({reason}): {cut}",
            want.entries
        )));
        let _ = write!(reason, "; limited: {cut}");
    }
    if entries > affordable {
        reason += "; raised to conntrack.minEntries";
    }
    let wanted = DesiredValue::at_least(entries, ceiling);
    sizes.want(&keys::NF_CONNTRACK_MAX, wanted, reason);
}

/// What limits the node to less than it needs.
fn cut(node: &NodeFacts, cap: u64, max: Option<u64>) -> String {
    let most = max.unwrap_or(MOST);
    if cap < most {
        format!("3% of {} memory allows {cap}", Bytes(node.memory))
    } else if max.is_some() {
        format!("conntrack.maxEntries is {most}")
    } else {
        format!("the maximum without conntrack.maxEntries is {most}")
    }
}

/// What a node would get without limits of memory and bounds.
struct Want {
    entries: u64,
    reason: String,
}

impl Want {
    fn of(policy: &ConntrackPolicy, node: &NodeFacts) -> Self {
        let (pods, per_pod) = (node.pods, policy.connections_per_pod);
        let for_pods = u64::from(per_pod) * u64::from(pods);
        let kube_proxy = kube_proxy_max(node.cores);
        let seen = node.conntrack_peak.unwrap_or(0);

        let largest = for_pods.max(kube_proxy).max(seen.saturating_mul(2));
        let entries = largest.min(1 << 62).next_power_of_two();
        let mut reason = format!(
            "{} × {per_pod} = {for_pods}; kube-proxy sets {kube_proxy} for {}",
            Count(pods, "pod"),
            Count(node.cores, "core")
        );
        if seen > 0 {
            let _ = write!(reason, "; 2 × observed peak {seen}");
        }
        let _ = write!(reason, "; next power of two: {entries}");
        Self { entries, reason }
    }
}

/// The nf_conntrack_max that kube-proxy sets at startup with its default flags, in entries.
#[must_use]
pub fn kube_proxy_max(cores: u32) -> u64 {
    (KUBE_PROXY_PER_CORE * u64::from(cores)).clamp(KUBE_PROXY_MIN, MOST)
}

/// What the memory allows: a power of two. No cap if the memory is unknown.
fn memory_cap(memory: u64) -> u64 {
    if memory == 0 {
        return u64::MAX;
    }
    let entries = memory / 100 * MEMORY_PERCENT / ENTRY_BYTES;
    let power: u64 = entries.checked_ilog2().map_or(1, |log| 1 << log);
    power.max(MEMORY_SHARE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_cap_is_a_power_of_two_with_a_minimum() {
        assert_eq!(memory_cap(1), MEMORY_SHARE_MIN);
        assert_eq!(memory_cap(3 << 29), 65536);
        assert_eq!(memory_cap(16 << 30), 1 << 20);
    }
}
