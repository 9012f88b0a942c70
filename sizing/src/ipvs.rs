//! IPVS.
use crate::{IpvsPolicy, NodeFacts, Sizes};

pub(crate) fn size(_: &IpvsPolicy, _: &NodeFacts, _: &mut Sizes) {}
