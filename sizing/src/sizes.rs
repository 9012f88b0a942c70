//! The result of sizing a node.

use crate::sysctl::desired_value::DesiredValue;
use crate::sysctl::key::SysctlKey;

/// The desired sysctls of a node, with warnings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Sorted by key, no key twice.
    pub sysctls: Vec<SizedSysctl>,
    /// Sizes that were limited by a cap, and dangerous values.
    pub warnings: Vec<Warning>,
}

impl Sizes {
    pub(crate) fn want(&mut self, key: &SysctlKey, wanted: DesiredValue, reason: String) {
        self.sysctls.push(SizedSysctl {
            key: key.clone(),
            wanted,
            reason,
        });
    }

    /// The desired value of a sysctl, if it is managed.
    #[must_use]
    pub fn get(&self, key: &SysctlKey) -> Option<&SizedSysctl> {
        let index = self.sysctls.binary_search_by(|sized| sized.key.cmp(key));
        self.sysctls.get(index.ok()?)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizedSysctl {
    pub key: SysctlKey,
    pub wanted: DesiredValue,
    /// How the value was computed.
    pub reason: String,
}

/// A sentence about the sizes of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning(pub String);
