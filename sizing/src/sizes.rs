//! The result of sizing a node.

use crate::sysctl::desired_value::DesiredValue;
use crate::sysctl::key::SysctlKey;

/// What a node should hold, and what the administrator should know about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Sorted by key, no key twice.
    pub sysctls: Vec<SizedSysctl>,
    /// Where a cap cut a want, or a value is dangerous.
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

    /// What is wanted for one sysctl, if it is managed.
    #[must_use]
    pub fn get(&self, key: &SysctlKey) -> Option<&SizedSysctl> {
        let index = self.sysctls.binary_search_by(|sized| sized.key.cmp(key));
        self.sysctls.get(index.ok()?)
    }
}

/// One sysctl with its rule, and why in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizedSysctl {
    /// Which sysctl.
    pub key: SysctlKey,
    /// Rule and value.
    pub wanted: DesiredValue,
    /// The numbers that led to it, for a person on call.
    pub reason: String,
}

/// A sentence for the administrator, about one node's sizes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning(pub String);
