//! How full the tables are, in bands that rarely change, for the status.

use std::time::Duration;

use nettune_crds::{TableUse, TablesUse};
use nettune_sizing::{Mono, keys};

use crate::pressure::neighbor_inspector::CountedEntries;
use nettune_reconcile::observed::{ObservedState, OverflowCounters};

/// Upper ends of the bands, in percent of the limit.
const BANDS: [i32; 6] = [10, 25, 50, 75, 90, 100];

/// A band rises at once, and falls after this long below it.
const DOWN_AFTER: Duration = Duration::from_secs(3600);

/// Smaller peaks are reported as this: no table is sized smaller than several times this.
const LEAST_PEAK: u64 = 1024;

/// Usage of all tables until now.
#[derive(Debug, Default)]
pub(crate) struct Utilization {
    answered: OverflowCounters,
    ipv4: TableUtilization,
    ipv6: TableUtilization,
    conntrack: TableUtilization,
}

/// Exact usage of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableUsage {
    /// Entries now, including those that do not count against the limit.
    pub entries: u64,
    /// Entries that count; `None` if unknown.
    pub counted: Option<u64>,
    /// The most `entries` seen since the agent started.
    pub peak: u64,
    pub limit: u64,
}

#[derive(Debug, Default)]
struct TableUtilization {
    usage: Option<TableUsage>,
    /// Whether the usage shown is of entries that count.
    counts: bool,
    most_used: u64,
    band: Band,
    peak: Band,
    limit: ReportedLimit,
}

/// A number that rises at once and falls after [`DOWN_AFTER`], to the maximum of that time.
#[derive(Debug, Default)]
struct Band {
    shown: u64,
    below: Option<(Mono, u64)>,
}

impl Band {
    fn observe(&mut self, number: u64, now: Mono) {
        if number >= self.shown {
            self.shown = number;
            self.below = None;
            return;
        }
        let (since, most) = self.below.unwrap_or((now, number));
        let most = most.max(number);
        self.below = Some((since, most));
        if now.since(since) >= DOWN_AFTER {
            self.shown = most;
            self.below = None;
        }
    }
}

/// The limit that is shown: the present one, but a process that keeps changing it must not cause as many
/// status writes.
#[derive(Debug)]
struct ReportedLimit {
    limit: u64,
    /// How often it may still change at once.
    left: u32,
    /// Since when the next change is earned.
    since: Mono,
}

/// As often as writes of another process are undone before they are left.
const MOST_CHANGES: u32 = 8;

/// How long it takes to earn one more change.
const CHANGE_EARNED_IN: Duration = Duration::from_secs(600);

impl Default for ReportedLimit {
    fn default() -> Self {
        Self {
            limit: 0,
            left: MOST_CHANGES,
            since: Mono::default(),
        }
    }
}

impl ReportedLimit {
    fn observe(&mut self, limit: u64, now: Mono) -> u64 {
        if limit == self.limit {
            return limit;
        }
        let earned = now.since(self.since).as_secs() / CHANGE_EARNED_IN.as_secs();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(MOST_CHANGES);
            self.left = self.left.saturating_add(earned).min(MOST_CHANGES);
            self.since = now;
        }
        if self.left > 0 {
            self.left -= 1;
            self.limit = limit;
        }
        self.limit
    }
}

impl Utilization {
    /// Takes one observation. `counted` is of IPv4 and IPv6 neighbors.
    pub(crate) fn observe(
        &mut self,
        live: &ObservedState,
        counted: [CountedEntries; 2],
        now: Mono,
    ) {
        let counts = &live.counts;
        let last = std::mem::replace(&mut self.answered, live.overflows);
        let overflowed = [
            live.overflows.neighbors_ipv4_overflows > last.neighbors_ipv4_overflows,
            live.overflows.neighbors_ipv6_overflows > last.neighbors_ipv6_overflows,
        ];
        let look = |entries: Option<u64>, counted: CountedEntries, key| {
            let (entries, limit) = entries.zip(live.number(key))?;
            Some(Sample {
                entries,
                counted,
                limit,
            })
        };
        let [ipv4, ipv6] = [
            (counts.neighbors_ipv4, &keys::IPV4_GC_THRESH3),
            (counts.neighbors_ipv6, &keys::IPV6_GC_THRESH3),
        ];
        let neighbors = |(entries, limit), counted, overflowed: bool| {
            look(entries, counted, limit).map(|look| {
                if overflowed {
                    // The kernel has counted as many as the limit, whatever the last dump says.
                    Sample {
                        counted: CountedEntries::Known(look.limit),
                        ..look
                    }
                } else {
                    look
                }
            })
        };
        let [counted_ipv4, counted_ipv6] = counted;
        let [overflowed_ipv4, overflowed_ipv6] = overflowed;
        self.ipv4
            .observe(neighbors(ipv4, counted_ipv4, overflowed_ipv4), now);
        self.ipv6
            .observe(neighbors(ipv6, counted_ipv6, overflowed_ipv6), now);
        let connections = counts.conntrack;
        let counted = connections.map_or(CountedEntries::Unknown, CountedEntries::Known);
        let max = &keys::NF_CONNTRACK_MAX;
        self.conntrack.observe(look(connections, counted, max), now);
    }

    /// The usage for the profile's status; `None` if no table is visible.
    #[must_use]
    pub(crate) fn in_bands(&self) -> Option<TablesUse> {
        let both = [self.ipv4.in_bands(), self.ipv6.in_bands()];
        let neighbors = both.into_iter().flatten().reduce(|ipv4, ipv6| {
            let peak_usage_percent = ipv4.peak_usage_percent.max(ipv6.peak_usage_percent);
            let peak_entries = ipv4.peak_entries.max(ipv6.peak_entries);
            let fuller = if ipv6.usage_percent > ipv4.usage_percent {
                ipv6
            } else {
                ipv4
            };
            TableUse {
                peak_usage_percent,
                peak_entries,
                ..fuller
            }
        });
        let conntrack = self.conntrack.in_bands();
        (neighbors.is_some() || conntrack.is_some()).then_some(TablesUse {
            neighbors,
            conntrack,
        })
    }

    /// Each table's name and usage.
    pub(crate) fn usages(&self) -> impl Iterator<Item = (&'static str, TableUsage)> {
        let tables = [
            ("neighbors_ipv4", &self.ipv4),
            ("neighbors_ipv6", &self.ipv6),
            ("conntrack", &self.conntrack),
        ];
        let usage = |(name, table): (_, &TableUtilization)| table.usage.map(|usage| (name, usage));
        tables.into_iter().filter_map(usage)
    }
}

/// One observation of a table.
#[derive(Debug, Clone, Copy)]
struct Sample {
    entries: u64,
    counted: CountedEntries,
    limit: u64,
}

impl TableUtilization {
    fn observe(&mut self, look: Option<Sample>, now: Mono) {
        // Without a limit there is no usage.
        let Some(look) = look.filter(|look| look.limit > 0) else {
            *self = Self::default();
            return;
        };
        let Sample { entries, limit, .. } = look;
        let last = self.usage;
        let counted = match look.counted {
            CountedEntries::Known(counted) => Some(counted),
            CountedEntries::Stale | CountedEntries::Unknown => None,
        };
        self.usage = Some(TableUsage {
            entries,
            counted,
            peak: last.map_or(entries, |last| last.peak.max(entries)),
            limit,
        });
        // A change of the limit, or of the kind of entries counted, is not a fall.
        let counts_now = counted.is_some() && !self.counts;
        let was_shown = self.limit.limit;
        let limit = self.limit.observe(limit, now);
        if was_shown != limit || counts_now {
            self.band = Band::default();
        }
        if counts_now {
            self.counts = true;
            self.most_used = 0;
        }
        let used = match look.counted {
            CountedEntries::Known(counted) => counted,
            CountedEntries::Unknown => entries,
            // The usage shown stays until the count is known again.
            CountedEntries::Stale if self.band.shown > 0 => return,
            CountedEntries::Stale => entries,
        };
        self.most_used = self.most_used.max(used);
        self.band.observe(band(used, limit), now);
        // If it is unknown how many count, all entries are the upper bound.
        if counted.is_some() || entries <= LEAST_PEAK {
            let most = used.clamp(LEAST_PEAK, 1 << 62);
            self.peak.observe(most.next_power_of_two(), now);
        }
    }

    fn in_bands(&self) -> Option<TableUse> {
        self.usage?;
        let limit = self.limit.limit;
        let usage = match self.band.shown {
            100.. => format!(">=90% of {limit}"),
            band => format!("<{band}% of {limit}"),
        };
        let percent = |band: u64| i32::try_from(band).unwrap_or(100);
        Some(TableUse {
            usage,
            usage_percent: percent(self.band.shown),
            peak_usage_percent: percent(band(self.most_used, limit)),
            peak_entries: Some(self.peak.shown)
                .filter(|peak| *peak > 0)
                .and_then(|peak| i64::try_from(peak).ok()),
        })
    }
}

fn band(entries: u64, limit: u64) -> u64 {
    let is_below = |band: &&i32| {
        u128::from(entries) * 100 < u128::from(limit) * u128::from(band.unsigned_abs())
    };
    let band = BANDS.iter().find(is_below).unwrap_or(&100);
    u64::from(band.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn look(entries: u64, limit: u64) -> Option<Sample> {
        Some(Sample {
            entries,
            counted: CountedEntries::Unknown,
            limit,
        })
    }

    fn counted(entries: u64, counted: u64, limit: u64) -> Option<Sample> {
        Some(Sample {
            entries,
            counted: CountedEntries::Known(counted),
            limit,
        })
    }

    #[test]
    fn band_rises_at_once_and_falls_after_an_hour() {
        let mut table = TableUtilization::default();
        let start = Mono::default();
        let shown = |table: &TableUtilization| table.in_bands().unwrap().usage_percent;
        table.observe(look(1, 100), start);
        assert_eq!(shown(&table), 10);
        table.observe(look(80, 100), start);
        assert_eq!(shown(&table), 90);
        table.observe(look(1, 100), start.after(SECOND));
        assert_eq!(shown(&table), 90);
        table.observe(look(1, 100), start.after(DOWN_AFTER));
        assert_eq!(shown(&table), 90, "less than an hour since it fell");
        table.observe(look(1, 100), start.after(DOWN_AFTER + SECOND));
        assert_eq!(shown(&table), 10);
        assert_eq!(table.in_bands().unwrap().peak_usage_percent, 90);
    }

    #[test]
    fn band_falls_to_the_maximum_of_that_hour() {
        let mut table = TableUtilization::default();
        let start = Mono::default();
        table.observe(look(80, 100), start);
        table.observe(look(1, 100), start.after(SECOND));
        table.observe(look(40, 100), start.after(SECOND * 2));
        table.observe(look(1, 100), start.after(DOWN_AFTER + SECOND));
        assert_eq!(table.in_bands().unwrap().usage_percent, 50);
    }

    #[test]
    fn rise_in_between_restarts_the_hour() {
        let mut table = TableUtilization::default();
        let start = Mono::default();
        table.observe(look(80, 100), start);
        table.observe(look(1, 100), start.after(SECOND));
        table.observe(look(80, 100), start.after(SECOND * 2));
        table.observe(look(1, 100), start.after(DOWN_AFTER));
        table.observe(look(1, 100), start.after(DOWN_AFTER + SECOND * 2));
        assert_eq!(table.in_bands().unwrap().usage_percent, 90);
    }

    #[test]
    fn peak_does_not_depend_on_an_earlier_limit() {
        let mut table = TableUtilization::default();
        table.observe(look(80, 100), Mono::default());
        table.observe(look(80, 1000), Mono::default());
        let shown = table.in_bands().unwrap();
        assert_eq!((shown.usage_percent, shown.peak_usage_percent), (10, 10));
        assert_eq!(shown.usage, "<10% of 1000");
    }

    #[test]
    fn uncounted_entries_do_not_count_as_usage_or_peak() {
        let mut table = TableUtilization::default();
        table.observe(look(7400, 8192), Mono::default());
        let shown = table.in_bands().unwrap();
        assert_eq!((shown.usage_percent, shown.peak_entries), (100, None));
        table.observe(counted(7400, 900, 8192), Mono::default());
        let shown = table.in_bands().unwrap();
        let of_counted = (
            shown.usage_percent,
            shown.peak_usage_percent,
            shown.peak_entries,
        );
        assert_eq!(of_counted, (25, 25, Some(1024)));
    }

    #[test]
    fn usage_stays_while_the_count_is_stale() {
        let mut table = TableUtilization::default();
        let start = Mono::default();
        table.observe(counted(7400, 900, 8192), start);
        let shown = table.in_bands();
        let stale = Sample {
            entries: 8100,
            counted: CountedEntries::Stale,
            limit: 8192,
        };
        table.observe(Some(stale), start.after(SECOND));
        assert_eq!(table.in_bands(), shown);
        table.observe(counted(8100, 8000, 8192), start.after(SECOND));
        assert_eq!(table.in_bands().unwrap().usage_percent, 100);
    }

    #[test]
    fn peaks_are_powers_of_two_and_fall_after_an_hour() {
        let mut table = TableUtilization::default();
        let start = Mono::default();
        let peak = |table: &TableUtilization| table.in_bands().unwrap().peak_entries;
        let observe = |table: &mut TableUtilization, entries, at| {
            table.observe(counted(entries, entries, 1 << 20), at);
        };
        observe(&mut table, 3, start);
        assert_eq!(peak(&table), Some(1024));
        observe(&mut table, 5000, start);
        assert_eq!(peak(&table), Some(8192));
        observe(&mut table, 8192, start);
        assert_eq!(peak(&table), Some(8192));
        observe(&mut table, 3, start.after(SECOND));
        observe(&mut table, 3, start.after(DOWN_AFTER));
        assert_eq!(peak(&table), Some(8192));
        observe(&mut table, 3, start.after(DOWN_AFTER + SECOND));
        assert_eq!(peak(&table), Some(1024));
    }

    #[test]
    fn table_without_a_limit_has_no_usage() {
        let mut table = TableUtilization::default();
        table.observe(look(80, 0), Mono::default());
        assert_eq!(table.in_bands(), None);
    }

    #[test]
    fn limit_that_keeps_changing_does_not_keep_changing_the_usage() {
        let mut table = TableUtilization::default();
        let start = Mono::default();
        let mut shown = Vec::new();
        for second in 0..3600 {
            let limit = 100_000 + 1000 * u64::from(second % 7);
            table.observe(look(80_000, limit), start.after(SECOND * second));
            assert_eq!(table.usage.unwrap().limit, limit, "metrics have the limit");
            shown.push(table.in_bands().unwrap());
        }
        let first = &shown[0];
        assert_eq!((first.usage_percent, &*first.usage), (90, "<90% of 100000"));
        shown.dedup();
        assert!(shown.len() <= 16, "{} changes in an hour", shown.len());
        // Once it stops changing, the present limit is shown.
        table.observe(look(1, 50_000), start.after(3 * DOWN_AFTER));
        assert!(table.in_bands().unwrap().usage.ends_with("of 50000"));
    }

    #[test]
    fn full_table_is_in_the_last_band() {
        assert_eq!(
            [9, 10, 24, 50, 89, 90, 100, 200].map(|n| band(n, 100)),
            [10, 25, 25, 75, 90, 100, 100, 100]
        );
    }
}
