//! What the kernel shows at one moment.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nettune_sizing::{KernelVersion, SysctlKey, Value};
use rustix::io::Errno;

/// One look at the kernel: everything that [`crate::step::step`] is told about the node.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedState {
    /// Whether the agent is in the initial network namespace, where the tables' limits are.
    pub initial_namespace: bool,
    /// Every key that was looked at.
    pub keys: BTreeMap<SysctlKey, Seen>,
    /// How full the tables are.
    pub counts: Counts,
    /// What the tables have suffered from.
    pub overflows: OverflowCounters,
    /// What does not change while the kernel runs.
    pub machine: Machine,
    /// The time of day by this node's clock. It is told to people, and nothing waits for it.
    pub wall: Timestamp,
}

/// What a read of one sysctl brought.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Seen {
    /// It was read.
    Content(Content),
    /// There is no such file: a module that is not loaded, an interface that is gone.
    Missing,
    /// The file is there and cannot be read.
    Unreadable(Errno),
    /// What was read is no value: too long, or not text. The string says which.
    Garbled(String),
}

/// The text of a sysctl. A few are empty until somebody sets them (`ip_local_reserved_ports`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// Nothing but white space.
    Empty,
    /// A value.
    Value(Value),
}

/// Entries in the kernel's tables; `None` where they cannot be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// IPv4 neighbours.
    pub neighbors_ipv4: Option<u64>,
    /// IPv6 neighbours.
    pub neighbors_ipv6: Option<u64>,
    /// Tracked connections.
    pub conntrack: Option<u64>,
}

/// What the tables have suffered from since the agent was started. The counts only grow: each is
/// answered once, by comparing with the one that was answered last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct OverflowCounters {
    /// Insertions into the IPv4 neighbour table that found it full (`table_fulls`).
    pub neighbors_ipv4_overflows: u64,
    /// The same of IPv6.
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
    /// The version that behaviour depends on: the base of a distribution's kernel where it tells.
    pub kernel: Option<KernelVersion>,
}

impl ObservedState {
    /// What was seen of a key; one that was not looked at counts as missing.
    #[must_use]
    pub fn seen(&self, key: &SysctlKey) -> &Seen {
        self.keys.get(key).unwrap_or(&Seen::Missing)
    }

    /// A key's content, where it could be read.
    #[must_use]
    pub fn content(&self, key: &SysctlKey) -> Option<&Content> {
        match self.seen(key) {
            Seen::Content(content) => Some(content),
            _ => None,
        }
    }

    /// A key's number, where it has one.
    #[must_use]
    pub fn number(&self, key: &SysctlKey) -> Option<u64> {
        self.content(key)?.number()
    }
}

impl Content {
    /// The number, where it is one.
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
