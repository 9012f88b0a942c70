//! Neighbor tables: gc_thresh1, 2 and 3 of IPv4 and IPv6.

mod demand;

use crate::facts::{ClusterFacts, NodeFacts, PodNetwork};
use crate::policy::{Factors, NeighborPolicy, Thresholds};
use crate::size::units::Bytes;
use crate::sizes::{Sizes, Warning};
use crate::sysctl::desired_value::DesiredValue;
use crate::sysctl::key::SysctlKey;
use crate::sysctl::keys;
use demand::Demand;

/// Minimum for gc_thresh2. The kernel's default gc_thresh3 of 1024 overflows with 110 pods
/// on one bridge and no traffic between nodes; a table costs nothing until it is used.
const LEAST_THRESH2: u64 = 4096;

/// Minimum for gc_thresh3, whatever the memory: 4.1 MiB when full.
const LEAST_THRESH3: u64 = 8192;

/// Memory of an entry: 512 bytes for the slab of `struct neighbour` and its key (neigh_alloc), and
/// 16 for its share of the hash table (neigh_hash_grow).
const ENTRY_BYTES: u64 = 528;

/// Neighbor entries may use one hundredth of the memory.
const MEMORY_SHARE: u64 = 100;

/// Maximum for gc_thresh3 if the memory is unknown: 528 MiB when full, and twice what 150,000 pods,
/// the most that Kubernetes supports, need on one flat network.
const MOST_WITHOUT_MEMORY: u64 = 1 << 20;

/// The highest power of two that the kernel accepts (INT_MAX, neigh_sysctl_template in net/core/neighbour.c).
const MOST: u64 = 1 << 30;

const GC_THRESH: [(&SysctlKey, &SysctlKey); 3] = [
    (&keys::IPV4_GC_THRESH1, &keys::IPV6_GC_THRESH1),
    (&keys::IPV4_GC_THRESH2, &keys::IPV6_GC_THRESH2),
    (&keys::IPV4_GC_THRESH3, &keys::IPV6_GC_THRESH3),
];

pub(crate) fn size(
    policy: &NeighborPolicy,
    factors: &Factors,
    cluster: &ClusterFacts,
    node: &NodeFacts,
    sizes: &mut Sizes,
) {
    let demand = Demand::of(policy, factors, cluster, node);
    let wanted = match policy.thresholds {
        Some(fixed) => as_fixed(fixed, &demand, sizes),
        None => as_computed(policy, node, &demand, sizes),
    };
    for ((ipv4, ipv6), (wanted, reason)) in GC_THRESH.into_iter().zip(wanted) {
        if node.ipv6 {
            sizes.want(ipv6, wanted.clone(), reason.clone());
        }
        sizes.want(ipv4, wanted, reason);
    }
}

fn as_fixed(fixed: Thresholds, demand: &Demand, sizes: &mut Sizes) -> [(DesiredValue, String); 3] {
    let [_, _, thresh3] = fixed.values();
    if u64::from(thresh3) < demand.need {
        sizes.warnings.push(Warning(format!(
            "the tuning sets gc_thresh3 to {thresh3}, below the {} entries that this node may \
             need ({})",
            demand.need, demand.basis
        )));
    }
    fixed.values().map(|value| {
        let reason = "set by the tuning (neighbors.thresholds)";
        (DesiredValue::exactly(value.into()), reason.to_owned())
    })
}

fn as_computed(
    policy: &NeighborPolicy,
    node: &NodeFacts,
    demand: &Demand,
    sizes: &mut Sizes,
) -> [(DesiredValue, String); 3] {
    let cap = memory_cap(node.memory);
    let uncapped = demand.thresh2.max(LEAST_THRESH2);
    let thresh3 = uncapped.saturating_mul(2).min(cap);
    let thresh2 = thresh3 / 2;
    if thresh2 < demand.need {
        sizes
            .warnings
            .push(too_little_memory(demand, thresh3, node));
    }

    let Demand { basis, rule, .. } = demand;
    let limit = if thresh2 < uncapped {
        format!(", limited: {} allows no more", memory_share(node))
    } else if demand.thresh2 < LEAST_THRESH2 {
        format!(", minimum {LEAST_THRESH2}")
    } else {
        String::new()
    };
    [
        thresh1(policy, node, thresh2, cap),
        (
            DesiredValue::at_least(thresh2, cap / 2),
            format!("{basis}; {rule}{limit}"),
        ),
        (
            DesiredValue::at_least(thresh3, cap),
            format!(
                "{basis}; 2 × gc_thresh2, so that garbage collection has room before insertions fail"
            ),
        ),
    ]
}

fn thresh1(
    policy: &NeighborPolicy,
    node: &NodeFacts,
    thresh2: u64,
    cap: u64,
) -> (DesiredValue, String) {
    let reused = if demand::network(policy.pod_network, node.pod_network) == PodNetwork::Flat {
        "pod addresses on the network of the nodes"
    } else if node.cloud {
        "addresses of a cloud provider"
    } else {
        let reason = "a quarter of gc_thresh2; below this, the kernel does not collect entries";
        return (
            DesiredValue::at_least(thresh2 / 4, cap / 8),
            reason.to_owned(),
        );
    };
    let reason = format!("{reused} are reused quickly, so stale entries must be collected");
    (DesiredValue::exactly(0), reason)
}

/// Maximum for gc_thresh3: a power of two.
fn memory_cap(memory: u64) -> u64 {
    if memory == 0 {
        return MOST_WITHOUT_MEMORY;
    }
    let entries = memory / MEMORY_SHARE / ENTRY_BYTES;
    let power = entries.checked_ilog2().map_or(1, |log| 1 << log);
    power.clamp(LEAST_THRESH3, MOST)
}

fn memory_share(node: &NodeFacts) -> String {
    match node.memory {
        0 => "unknown memory".to_owned(),
        memory => format!("1% of {} memory", Bytes(memory)),
    }
}

fn too_little_memory(demand: &Demand, thresh3: u64, node: &NodeFacts) -> Warning {
    Warning(format!(
        "gc_thresh2 is {}, below the {} entries that this node may need ({}): {} allows a \
         gc_thresh3 of at most {thresh3}",
        thresh3 / 2,
        demand.need,
        demand.basis,
        memory_share(node)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_cap_is_a_power_of_two_within_bounds() {
        assert_eq!(memory_cap(1), LEAST_THRESH3);
        assert_eq!(memory_cap(3 << 29), 16384);
        assert_eq!(memory_cap(8 << 30), 131_072);
        assert_eq!(memory_cap(u64::MAX), MOST);
        assert_eq!(memory_cap(0), MOST_WITHOUT_MEMORY);
    }
}
