//! How full the tables are, in bands that are coarse enough for a status.

use std::time::Duration;

use nettune_crds::{TableUse, TablesUse};
use nettune_sizing::keys;

use crate::live::Live;
use crate::mono::Mono;

/// Upper ends of the bands, in per cent of the limit.
const BANDS: [i32; 6] = [10, 25, 50, 75, 90, 100];

/// A band goes up at once, and down after this long below it.
const DOWN_AFTER: Duration = Duration::from_secs(3600);

/// Use of both tables, as it was seen until now.
#[derive(Debug, Default)]
pub struct Tables {
    ipv4: Table,
    ipv6: Table,
    conntrack: Table,
}

/// Use of one table, with every digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Entries now.
    pub entries: u64,
    /// The most entries that were seen since the agent was started.
    pub peak: u64,
    /// The most that the table may hold.
    pub limit: u64,
}

#[derive(Debug, Default)]
struct Table {
    fill: Option<Fill>,
    band: i32,
    below_since: Option<Mono>,
}

impl Tables {
    /// Takes a look into account.
    pub fn observe(&mut self, live: &Live, now: Mono) {
        let counts = &live.counts;
        let neighbors = |entries: Option<u64>, key| entries.zip(live.number(key));
        self.ipv4.observe(
            neighbors(counts.neighbors_ipv4, &keys::IPV4_GC_THRESH3),
            now,
        );
        self.ipv6.observe(
            neighbors(counts.neighbors_ipv6, &keys::IPV6_GC_THRESH3),
            now,
        );
        let max = live.number(&keys::NF_CONNTRACK_MAX);
        self.conntrack.observe(counts.conntrack.zip(max), now);
    }

    /// What the profile's status says; `None` where no table can be seen.
    #[must_use]
    pub fn in_bands(&self) -> Option<TablesUse> {
        let both = [self.ipv4.in_bands(), self.ipv6.in_bands()];
        let neighbors = both.into_iter().flatten().reduce(|ipv4, ipv6| {
            let peak_percent = ipv4.peak_percent.max(ipv6.peak_percent);
            let fuller = if ipv6.use_percent > ipv4.use_percent {
                ipv6
            } else {
                ipv4
            };
            TableUse {
                peak_percent,
                ..fuller
            }
        });
        let conntrack = self.conntrack.in_bands();
        (neighbors.is_some() || conntrack.is_some()).then_some(TablesUse {
            neighbors,
            conntrack,
        })
    }

    /// Each table's name and use.
    pub fn fills(&self) -> impl Iterator<Item = (&'static str, Fill)> {
        let tables = [
            ("neighbors_ipv4", &self.ipv4),
            ("neighbors_ipv6", &self.ipv6),
            ("conntrack", &self.conntrack),
        ];
        let fill = |(name, table): (_, &Table)| table.fill.map(|fill| (name, fill));
        tables.into_iter().filter_map(fill)
    }
}

impl Table {
    fn observe(&mut self, seen: Option<(u64, u64)>, now: Mono) {
        // No limit: nothing to be a part of.
        let Some((entries, limit)) = seen.filter(|(_, limit)| *limit > 0) else {
            *self = Self::default();
            return;
        };
        let peak = self.fill.map_or(entries, |fill| fill.peak.max(entries));
        let same_limit = self.fill.is_some_and(|fill| fill.limit == limit);
        self.fill = Some(Fill {
            entries,
            peak,
            limit,
        });
        let band = band(entries, limit);
        if band >= self.band || !same_limit {
            self.band = band;
            self.below_since = None;
            return;
        }
        let since = *self.below_since.get_or_insert(now);
        if now.since(since) >= DOWN_AFTER {
            self.band = band;
            self.below_since = None;
        }
    }

    fn in_bands(&self) -> Option<TableUse> {
        let fill = self.fill?;
        let use_ = match self.band {
            100.. => format!(">=90% of {}", fill.limit),
            band => format!("<{band}% of {}", fill.limit),
        };
        Some(TableUse {
            use_,
            use_percent: self.band,
            peak_percent: band(fill.peak, fill.limit),
        })
    }
}

fn band(entries: u64, limit: u64) -> i32 {
    let is_below = |band: &&i32| {
        u128::from(entries) * 100 < u128::from(limit) * u128::from(band.unsigned_abs())
    };
    *BANDS.iter().find(is_below).unwrap_or(&100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_band_goes_up_at_once_and_down_after_an_hour() {
        let mut table = Table::default();
        let start = Mono::default();
        let shown = |table: &Table| table.in_bands().unwrap().use_percent;
        table.observe(Some((1, 100)), start);
        assert_eq!(shown(&table), 10);
        table.observe(Some((80, 100)), start);
        assert_eq!(shown(&table), 90);
        table.observe(Some((1, 100)), start.after(SECOND));
        assert_eq!(shown(&table), 90);
        table.observe(Some((1, 100)), start.after(DOWN_AFTER));
        assert_eq!(shown(&table), 90, "an hour since it fell is not over yet");
        table.observe(Some((1, 100)), start.after(DOWN_AFTER + SECOND));
        assert_eq!(shown(&table), 10);
        assert_eq!(table.in_bands().unwrap().peak_percent, 90);
    }

    #[test]
    fn a_band_that_rises_in_between_starts_the_hour_anew() {
        let mut table = Table::default();
        let start = Mono::default();
        table.observe(Some((80, 100)), start);
        table.observe(Some((1, 100)), start.after(SECOND));
        table.observe(Some((80, 100)), start.after(SECOND * 2));
        table.observe(Some((1, 100)), start.after(DOWN_AFTER));
        table.observe(Some((1, 100)), start.after(DOWN_AFTER + SECOND * 2));
        assert_eq!(table.in_bands().unwrap().use_percent, 90);
    }

    #[test]
    fn a_peak_is_of_entries_and_not_of_an_earlier_limit() {
        let mut table = Table::default();
        table.observe(Some((80, 100)), Mono::default());
        table.observe(Some((80, 1000)), Mono::default());
        let shown = table.in_bands().unwrap();
        assert_eq!((shown.use_percent, shown.peak_percent), (10, 10));
        assert_eq!(shown.use_, "<10% of 1000");
    }

    #[test]
    fn a_table_without_a_limit_has_no_use() {
        let mut table = Table::default();
        table.observe(Some((80, 0)), Mono::default());
        assert_eq!(table.in_bands(), None);
    }

    #[test]
    fn a_full_table_is_in_the_last_band() {
        assert_eq!(
            [9, 10, 24, 50, 89, 90, 100, 200].map(|n| band(n, 100)),
            [10, 25, 25, 75, 90, 100, 100, 100]
        );
    }
}
