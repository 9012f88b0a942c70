//! What the kernel shows at one moment.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nettune_sizing::{KernelVersion, SysctlKey, Value};
use rustix::io::Errno;

/// Everything that [`crate::step::step`] knows about the node.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedState {
    /// Whether the agent is in the initial network namespace, where the tables' limits are.
    pub initial_namespace: bool,
    /// Every key that was read.
    pub keys: BTreeMap<SysctlKey, Seen>,
    pub counts: Counts,
    pub overflows: OverflowCounters,
    pub machine: Machine,
    /// The time of day by this node's clock. It is only shown in messages.
    pub wall: Timestamp,
}

/// The result of reading one sysctl.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Seen {
    Content(Content),
    /// There is no such file: the module is not loaded, or the interface does not exist.
    Missing,
    /// The file exists but cannot be read.
    Unreadable(Errno),
    /// Not a value: too long, or not text. The string says which.
    Garbled(String),
}

/// The text of a sysctl. A few are empty until they are set (`ip_local_reserved_ports`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// Only white space.
    Empty,
    Value(Value),
}

/// Entries in the kernel's tables; `None` if unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    pub neighbors_ipv4: Option<u64>,
    pub neighbors_ipv6: Option<u64>,
    pub conntrack: Option<u64>,
}

/// Overflows since the agent was started. The counts only grow: each is answered once, by comparing
/// with the count that was answered last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct OverflowCounters {
    /// Insertions into the IPv4 neighbor table that found it full (`table_fulls`).
    pub neighbors_ipv4_overflows: u64,
    /// The same for IPv6.
    pub neighbors_ipv6_overflows: u64,
    /// Seconds in which the conntrack table was full.
    pub conntrack_full: u64,
    /// Whether insertions into the conntrack table fail now because hash chains are too long.
    pub chains_too_long: bool,
}

/// The machine under the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Logical processors.
    pub cores: u32,
    /// The version that behavior depends on: the base of a distribution's kernel if known.
    pub kernel: Option<KernelVersion>,
}

impl ObservedState {
    /// The result of reading a key; one that was not read counts as missing.
    #[must_use]
    pub fn seen(&self, key: &SysctlKey) -> &Seen {
        self.keys.get(key).unwrap_or(&Seen::Missing)
    }

    #[must_use]
    pub fn content(&self, key: &SysctlKey) -> Option<&Content> {
        match self.seen(key) {
            Seen::Content(content) => Some(content),
            _ => None,
        }
    }

    #[must_use]
    pub fn number(&self, key: &SysctlKey) -> Option<u64> {
        self.content(key)?.number()
    }
}

impl Content {
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Empty => None,
            Self::Value(value) => value.as_number(),
        }
    }

    /// The text without its newline.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Empty => "",
            Self::Value(value) => value.as_str(),
        }
    }
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing"),
            Self::Value(value) => value.fmt(f),
        }
    }
}

impl From<Value> for Content {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl From<u64> for Content {
    fn from(number: u64) -> Self {
        Self::Value(number.into())
    }
}
