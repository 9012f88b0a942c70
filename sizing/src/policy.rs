//! A tuning in a form that cannot be invalid.

use crate::sysctl::key::SysctlKey;
use crate::sysctl::value::Value;

/// The highest value that the kernel accepts for a threshold (`proc_dointvec_minmax` up to
/// `INT_MAX`, net/core/neighbour.c).
const THRESHOLD_MAX: u32 = i32::MAX as u32;

/// A tuning, parsed: each block that is `None` is not managed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    pub neighbors: Option<NeighborPolicy>,
    pub conntrack: Option<ConntrackPolicy>,
    pub ipvs: Option<IpvsPolicy>,
    /// Other allow-listed sysctls, each `Exact`; sorted, no key twice, none that a block manages.
    sysctls: Vec<(SysctlKey, Value)>,
    pub factors: Factors,
}

/// Constants of the model that are judgment calls, not facts about the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Factors {
    /// Room for growth, in percent of the current number of nodes.
    pub growth_percent: u32,
    /// Room above the computed need, in percent.
    pub headroom_percent: u32,
    /// Pods of the same bridge that one pod talks to.
    pub bridge_fan_in: u32,
}

impl Default for Factors {
    fn default() -> Self {
        Self {
            growth_percent: 150,
            headroom_percent: 125,
            bridge_fan_in: 16,
        }
    }
}

/// The `neighbors` block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct NeighborPolicy {
    /// How pods of different nodes reach each other.
    pub pod_network: PodNetworkChoice,
    /// Size for at least this many nodes from the first day.
    pub size_for_nodes: Option<u32>,
    /// Fixed values instead of computed ones.
    pub thresholds: Option<Thresholds>,
}

/// The pod network that a tuning names, or `Auto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PodNetworkChoice {
    /// As the node's facts say.
    #[default]
    Auto,
    /// An overlay.
    Overlay,
    /// Routes on the nodes' network.
    Routed,
    /// Pod addresses on the nodes' layer-2 network.
    Flat,
}

/// gc_thresh1, 2 and 3, in entries: always in strict order and never above `INT_MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thresholds([u32; 3]);

impl Thresholds {
    /// Takes the three in order.
    ///
    /// # Errors
    /// When they are not strictly ascending (equal ones run the garbage collector for every
    /// allocation) or above 2147483647.
    pub fn new(gc_thresh1: u32, gc_thresh2: u32, gc_thresh3: u32) -> Result<Self, InvalidPolicy> {
        if gc_thresh3 > THRESHOLD_MAX {
            return Err(InvalidPolicy::ThresholdTooLarge { gc_thresh3 });
        }
        if gc_thresh1 < gc_thresh2 && gc_thresh2 < gc_thresh3 {
            Ok(Self([gc_thresh1, gc_thresh2, gc_thresh3]))
        } else {
            Err(InvalidPolicy::ThresholdOrder {
                gc_thresh1,
                gc_thresh2,
                gc_thresh3,
            })
        }
    }

    /// gc_thresh1, gc_thresh2 and gc_thresh3.
    #[must_use]
    pub fn values(self) -> [u32; 3] {
        self.0
    }
}

/// The `conntrack` block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConntrackPolicy {
    /// Entries for each pod that the node can run.
    pub connections_per_pod: u32,
    /// Bounds on the result.
    pub bounds: EntryBounds,
}

impl Default for ConntrackPolicy {
    fn default() -> Self {
        Self {
            connections_per_pod: 3072,
            bounds: EntryBounds::default(),
        }
    }
}

/// `minEntries` and `maxEntries`, never out of order and never 0 (0 is unlimited).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EntryBounds {
    min: Option<u32>,
    max: Option<u32>,
}

impl EntryBounds {
    /// Takes optional bounds; equal ones ask for exactly that size.
    ///
    /// # Errors
    /// When one is 0 or above 2147483647, or the least is above the most.
    pub fn new(min: Option<u32>, max: Option<u32>) -> Result<Self, InvalidPolicy> {
        for entries in [min, max].into_iter().flatten() {
            if entries == 0 || entries > THRESHOLD_MAX {
                return Err(InvalidPolicy::EntriesOutOfRange { entries });
            }
        }
        match (min, max) {
            (Some(min), Some(max)) if min > max => Err(InvalidPolicy::EntriesOrder { min, max }),
            _ => Ok(Self { min, max }),
        }
    }

    /// The least, where one was given.
    #[must_use]
    pub fn min(self) -> Option<u32> {
        self.min
    }

    /// The most, where one was given.
    #[must_use]
    pub fn max(self) -> Option<u32> {
        self.max
    }
}

/// The `ipvs` block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct IpvsPolicy {
    /// What happens to a connection that reuses a port.
    pub conn_reuse_mode: ConnReuseMode,
}

/// net.ipv4.vs.conn_reuse_mode, or the choice of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ConnReuseMode {
    /// By kernel version.
    #[default]
    Auto,
    /// 0.
    Disabled,
    /// 1.
    Enabled,
    /// Leave it.
    Unmanaged,
}

impl Policy {
    /// Takes other sysctls than those that a block manages.
    ///
    /// # Errors
    /// When a key comes twice, or belongs to a block (whether or not that block is there: a block
    /// that is added later must not find the key taken).
    pub fn with_sysctls(
        mut self,
        mut sysctls: Vec<(SysctlKey, Value)>,
    ) -> Result<Self, InvalidPolicy> {
        sysctls.sort_by(|a, b| a.0.cmp(&b.0));
        for pair in sysctls.windows(2) {
            if let [(one, _), (other, _)] = pair
                && one == other
            {
                return Err(InvalidPolicy::SysctlTwice { key: one.clone() });
            }
        }
        if let Some((key, block)) = sysctls
            .iter()
            .find_map(|(key, _)| key.block().map(|block| (key.clone(), block)))
        {
            return Err(InvalidPolicy::SysctlOfBlock {
                key,
                block: block.name(),
            });
        }
        self.sysctls = sysctls;
        Ok(self)
    }

    /// The other sysctls, sorted by name.
    #[must_use]
    pub fn sysctls(&self) -> &[(SysctlKey, Value)] {
        &self.sysctls
    }
}

/// Why a policy is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    #[error(
        "thresholds must be in ascending order: gcThresh1 ({gc_thresh1}) < gcThresh2 ({gc_thresh2}) < gcThresh3 ({gc_thresh3})"
    )]
    ThresholdOrder {
        gc_thresh1: u32,
        gc_thresh2: u32,
        gc_thresh3: u32,
    },
    #[error("gcThresh3 is {gc_thresh3}; the kernel accepts at most {THRESHOLD_MAX}")]
    ThresholdTooLarge { gc_thresh3: u32 },
    #[error(
        "conntrack entries must be from 1 to {THRESHOLD_MAX}, not {entries} (0 would mean unlimited)"
    )]
    EntriesOutOfRange { entries: u32 },
    #[error("minEntries ({min}) is greater than maxEntries ({max})")]
    EntriesOrder { min: u32, max: u32 },
    #[error("sysctl {key} is listed twice; remove one entry")]
    SysctlTwice { key: SysctlKey },
    #[error("sysctl {key} is managed by `spec.{block}`; set it there")]
    SysctlOfBlock { key: SysctlKey, block: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_thresholds_are_refused() {
        assert!(Thresholds::new(1, 2, 2).is_err());
        assert!(Thresholds::new(1, 1, 2).is_err());
        assert!(Thresholds::new(0, 1, 2).is_ok());
    }

    #[test]
    fn zero_entries_would_be_unlimited_and_are_refused() {
        assert!(EntryBounds::new(Some(0), None).is_err());
        assert!(EntryBounds::new(Some(2), Some(1)).is_err());
        assert!(EntryBounds::new(Some(2), Some(2)).is_ok());
    }

    #[test]
    fn a_sysctl_of_a_block_is_refused_even_without_that_block() {
        let key = SysctlKey::parse("net.netfilter.nf_conntrack_max").unwrap();
        let value = Value::parse("1").unwrap();
        let refused = Policy::default().with_sysctls(vec![(key, value)]);
        assert!(matches!(
            refused,
            Err(InvalidPolicy::SysctlOfBlock {
                block: "conntrack",
                ..
            })
        ));
    }

    #[test]
    fn a_sysctl_twice_is_refused() {
        let entry = || {
            (
                SysctlKey::parse("net.core.somaxconn").unwrap(),
                Value::parse("1").unwrap(),
            )
        };
        let refused = Policy::default().with_sysctls(vec![entry(), entry()]);
        assert!(matches!(refused, Err(InvalidPolicy::SysctlTwice { .. })));
    }
}
