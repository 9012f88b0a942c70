//! Neighbour tables.
use crate::{ClusterFacts, Factors, NeighborPolicy, NodeFacts, Sizes};

pub(crate) fn size(
    _: &NeighborPolicy,
    _: &Factors,
    _: &ClusterFacts,
    _: &NodeFacts,
    _: &mut Sizes,
) {
}
