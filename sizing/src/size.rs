//! [`size`]: the one function of this crate.

pub(crate) mod conntrack;
mod ipvs;
mod listed_sysctls;
mod neighbors;
mod units;

use crate::facts::{ClusterFacts, NodeFacts};
use crate::policy::Policy;
use crate::sizes::Sizes;

/// Sizes one node's tables. Deterministic, and does not panic on any input.
#[must_use]
pub fn size(policy: &Policy, cluster: &ClusterFacts, node: &NodeFacts) -> Sizes {
    let mut sizes = Sizes::default();
    if let Some(block) = &policy.neighbors {
        neighbors::size(block, &policy.factors, cluster, node, &mut sizes);
    }
    if let Some(block) = &policy.conntrack {
        conntrack::size(block, node, &mut sizes);
    }
    if let Some(block) = &policy.ipvs {
        ipvs::size(block, node, &mut sizes);
    }
    listed_sysctls::size(policy, &mut sizes);
    sizes.sysctls.sort_by(|a, b| a.key.cmp(&b.key));
    sizes
}
