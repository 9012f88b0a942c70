//! The peaks of a node's tables.

use nettune_crds::{NodeNetworkProfileStatus, TableUse};

/// Peaks of entries, rounded up to a power of two so that nodes with different peaks still share a size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Peaks {
    /// Of the fuller neighbor table: entries that count against its limit.
    pub(crate) neighbors: Option<u64>,
    pub(crate) conntrack: Option<u64>,
}

impl Peaks {
    pub(crate) fn of(status: &NodeNetworkProfileStatus) -> Self {
        let Some(tables) = &status.tables else {
            return Self::default();
        };
        Self {
            neighbors: tables.neighbors.as_ref().and_then(rounded),
            conntrack: tables.conntrack.as_ref().and_then(rounded),
        }
    }
}

/// The kernel counts entries in 32 bits.
fn rounded(table: &TableUse) -> Option<u64> {
    let peak = u32::try_from(table.peak_entries?).ok()?;
    Some(u64::from(peak).next_power_of_two())
}
