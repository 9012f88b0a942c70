//! The most that a node's tables were seen to hold.

use nettune_crds::{NodeNetworkProfileStatus, TableUse};

/// The most entries that were seen, each rounded up to a power of two: nodes with different peaks are
/// still sized together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Peaks {
    /// Of the fuller neighbour table, entries that count against its limit.
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

/// No table holds more than the kernel counts in 32 bits.
fn rounded(table: &TableUse) -> Option<u64> {
    let peak = u32::try_from(table.peak_entries?).ok()?;
    Some(u64::from(peak).next_power_of_two())
}
