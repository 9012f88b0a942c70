//! The kernel's counters of its tables: how full they are, and what happened to them.

use crate::kernel::proc_file::ProcFile;
use crate::kernel::sysctl::Roots;
use nettune_reconcile::observed::Counts;

/// No CPU counts this often between two reads: a larger difference means that the counter was reset.
const MOST_BETWEEN_LOOKS: u64 = 1 << 28;

/// The tables' files, held open.
#[derive(Debug)]
pub struct Counters {
    arp_cache: Statistics<3>,
    ndisc_cache: Statistics<3>,
    conntrack: Statistics<5>,
    conntrack_count: ProcFile,
    buffer: Vec<u8>,
}

/// One reading of all counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    pub ipv4: NeighborCounters,
    pub ipv6: NeighborCounters,
    pub conntrack: ConntrackCounters,
}

/// Counters of one family's neighbor table. All but `entries` count from the agent's first read and
/// never decrease. `None` if the kernel does not show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NeighborCounters {
    /// Entries now, including those that do not count against the limit.
    pub entries: Option<u64>,
    /// Garbage collections that an insertion waited for.
    pub forced_gc_runs: Option<u64>,
    /// Insertions that found the table full.
    pub table_fulls: Option<u64>,
}

/// Counters of the conntrack table, of this network namespace; all but `count` as in
/// [`NeighborCounters`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConntrackCounters {
    pub count: Option<u64>,
    /// Connections that were not inserted.
    pub insert_failed: Option<u64>,
    /// Of these, those whose hash chain was too long; since kernel 5.15.
    pub chainlength: Option<u64>,
    /// Packets dropped because the table was full or an insertion lost a race.
    pub drop: Option<u64>,
    /// Connections evicted for new ones because the table was full.
    pub early_drop: Option<u64>,
    /// Insertions that lost a race and whose packet went on all the same: of UDP, as with the two lookups of one DNS
    /// query. Since kernel 5.10.
    pub clashes_resolved: Option<u64>,
}

impl Counters {
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let neighbors = ["entries", "forced_gc_runs", "table_fulls"];
        let conntrack = [
            "insert_failed",
            "chainlength",
            "drop",
            "early_drop",
            "clashres",
        ];
        let statistics = |name| ProcFile::new(roots.proc.join("net/stat").join(name));
        Self {
            arp_cache: Statistics::new(statistics("arp_cache"), neighbors),
            ndisc_cache: Statistics::new(statistics("ndisc_cache"), neighbors),
            conntrack: Statistics::new(statistics("nf_conntrack"), conntrack),
            conntrack_count: ProcFile::new(roots.sysctl.join("net/netfilter/nf_conntrack_count")),
            buffer: Vec::new(),
        }
    }

    /// Whether they are the kernel's, and not those of a directory that stands in for it.
    #[must_use]
    pub(crate) const fn are_of_kernel(&self) -> bool {
        self.arp_cache.file.is_of_kernel()
    }

    /// Reads all. Missing files (container nodes have no arp_cache) and invalid content give `None`.
    #[must_use]
    pub fn read(&mut self) -> Reading {
        let buffer = &mut self.buffer;
        let conntrack = self.conntrack.read(buffer);
        let [
            insert_failed,
            chainlength,
            drop,
            early_drop,
            clashes_resolved,
        ] = conntrack.counted;
        let count = self.conntrack_count.read(buffer);
        let count = count.and_then(|count| count.trim().parse().ok());
        Reading {
            ipv4: self.arp_cache.read(buffer).into(),
            ipv6: self.ndisc_cache.read(buffer).into(),
            conntrack: ConntrackCounters {
                count,
                insert_failed,
                chainlength,
                drop,
                early_drop,
                clashes_resolved,
            },
        }
    }
}

impl Reading {
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            neighbors_ipv4: self.ipv4.entries,
            neighbors_ipv6: self.ipv6.entries,
            conntrack: self.conntrack.count,
        }
    }
}

impl From<Columns<3>> for NeighborCounters {
    fn from(columns: Columns<3>) -> Self {
        let ([entries, _, _], [_, forced_gc_runs, table_fulls]) = (columns.first, columns.counted);
        Self {
            entries,
            forced_gc_runs,
            table_fulls,
        }
    }
}

/// A file of `/proc/net/stat`: a header that names the columns, and one row for each processor, in
/// hexadecimal. Which columns there are differs between kernels.
#[derive(Debug)]
struct Statistics<const N: usize> {
    file: ProcFile,
    names: [&'static str; N],
    /// Each CPU's row at the last read.
    rows: Vec<[Option<u64>; N]>,
    counted: [u64; N],
}

/// The columns of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Columns<const N: usize> {
    /// The first row: a gauge is the same on every one.
    first: [Option<u64>; N],
    /// How much each column has grown since the first read, over all CPUs.
    counted: [Option<u64>; N],
}

impl<const N: usize> Statistics<N> {
    fn new(file: ProcFile, names: [&'static str; N]) -> Self {
        Self {
            file,
            names,
            rows: Vec::new(),
            counted: [0; N],
        }
    }

    fn read(&mut self, buffer: &mut Vec<u8>) -> Columns<N> {
        let text = self.file.read(buffer).unwrap_or_default();
        let rows = rows(&text, self.names);
        let mut columns = Columns {
            first: [None; N],
            counted: [None; N],
        };
        // New rows count from the next read on.
        for (row, last) in rows.iter().zip(&self.rows) {
            for ((counted, now), last) in self.counted.iter_mut().zip(row).zip(last) {
                let grown = last.zip(*now).map_or(0, |(last, now)| grown(last, now));
                *counted = counted.saturating_add(grown);
            }
        }
        for row in &rows {
            let cells = columns.first.iter_mut().zip(&mut columns.counted);
            for (((first, counted), now), total) in cells.zip(row).zip(self.counted) {
                *first = first.or(*now);
                *counted = now.map(|_| total).or(*counted);
            }
        }
        self.rows = rows;
        columns
    }
}

/// How much a counter has grown. Conntrack's have 32 bits and wrap; after its module is reloaded they
/// start at 0.
fn grown(last: u64, now: u64) -> u64 {
    let grown = if now >= last {
        now - last
    } else if last <= u64::from(u32::MAX) {
        now + (1 << 32) - last
    } else {
        return 0;
    };
    if grown <= MOST_BETWEEN_LOOKS {
        grown
    } else {
        0
    }
}

/// The named columns of each row. A row that was cut off is left out, a cell that is no number is
/// `None`.
fn rows<const N: usize>(text: &str, names: [&str; N]) -> Vec<[Option<u64>; N]> {
    let whole = text.rfind('\n').and_then(|end| text.get(..end));
    let mut lines = whole.unwrap_or_default().lines();
    let header = lines.next().unwrap_or_default();
    let position = |name| {
        let mut columns = header.split_ascii_whitespace();
        columns.position(|column| column == name)
    };
    let positions = names.map(position);
    let cells = |row: &str| {
        let mut found = [None; N];
        for (at, cell) in row.split_ascii_whitespace().enumerate() {
            for (found, position) in found.iter_mut().zip(positions) {
                if position == Some(at) {
                    *found = u64::from_str_radix(cell, 16).ok();
                }
            }
        }
        found
    };
    lines.map(cells).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        dir: tempfile::TempDir,
        counters: Counters,
    }

    impl Host {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("net/stat")).unwrap();
            let counters = Counters::new(&Roots {
                sysctl: dir.path().join("sys"),
                proc: dir.path().to_owned(),
            });
            Self { dir, counters }
        }

        fn shows(&mut self, name: &str, text: impl AsRef<[u8]>) -> Reading {
            let path = self.dir.path().join("net/stat").join(name);
            std::fs::write(path, text).unwrap();
            self.counters.read()
        }

        fn conntrack(&mut self, text: &str) -> ConntrackCounters {
            let header = "entries  insert_failed drop early_drop chainlength\n";
            self.shows("nf_conntrack", format!("{header}{text}"))
                .conntrack
        }
    }

    #[test]
    fn columns_are_found_by_their_name() {
        let text = "allocs entries  table_fulls forced_gc_runs\n\
                    00000001 000000ff 00000000 00000002\n00000003 000000ff 00000001 00000000\n";
        let mut host = Host::new();
        let first = host.shows("arp_cache", text).ipv4;
        let none = (Some(255), Some(0), Some(0));
        let seen = |seen: NeighborCounters| (seen.entries, seen.forced_gc_runs, seen.table_fulls);
        assert_eq!(seen(first), none, "what was before the first look");
        let later = text.replace("00000001 00000000\n", "00000004 00000001\n");
        let second = host.shows("arp_cache", later).ipv4;
        assert_eq!(seen(second), (Some(255), Some(1), Some(3)));
    }

    #[test]
    fn garbage_is_no_count_and_does_no_harm() {
        let mut host = Host::new();
        for text in [
            "",
            "\n",
            "\0\0\0",
            "entries",
            "entries\n",
            "entries\nzz\n",
            "entries\n-1\n",
            "entries\nfffffffffffffffff\n",
            "entries\n10",
            "allocs\n00000001\n",
            "a entries\n1\n",
            &"entries ".repeat(100_000),
        ] {
            let reading = host.shows("arp_cache", text);
            assert_eq!(reading, Reading::default(), "{text:?}");
        }
    }

    #[test]
    fn a_bad_row_does_not_hide_the_next_one() {
        let mut host = Host::new();
        let reading = host.shows("ndisc_cache", "entries x\n?? 0\n00000010 0\n");
        assert_eq!(reading.ipv6.entries, Some(16));
    }

    #[test]
    fn a_counter_of_32_bits_wraps() {
        let mut host = Host::new();
        host.conntrack("1 fffffffe 0 0 0\n");
        assert_eq!(host.conntrack("1 2 0 0 0\n").insert_failed, Some(4));
    }

    #[test]
    fn reloaded_module_starts_at_zero() {
        let mut host = Host::new();
        host.conntrack("1 c0000000 5 0 0\n1 100000000 0 0 0\n");
        let reloaded = host.conntrack("1 3 0 0 0\n1 1 0 0 0\n");
        assert_eq!((reloaded.insert_failed, reloaded.drop), (Some(0), Some(0)));
        assert_eq!(
            host.conntrack("1 4 0 0 0\n1 3 0 0 0\n").insert_failed,
            Some(3)
        );
    }

    #[test]
    fn what_is_gone_for_a_while_counts_on_from_where_it_was() {
        let mut host = Host::new();
        host.conntrack("1 0 0 0 0\n");
        assert_eq!(host.conntrack("1 5 0 0 0\n").insert_failed, Some(5));
        std::fs::remove_file(host.dir.path().join("net/stat/nf_conntrack")).unwrap();
        assert_eq!(host.counters.read(), Reading::default());
        assert_eq!(host.conntrack("1 900 0 0 0\n").insert_failed, Some(5));
        assert_eq!(host.conntrack("1 901 0 0 0\n").insert_failed, Some(6));
    }

    #[test]
    fn processors_come_and_go_without_a_jump() {
        let mut host = Host::new();
        host.conntrack("1 5 0 0 0\n");
        assert_eq!(
            host.conntrack("1 5 0 0 0\n1 7000 0 0 0\n").insert_failed,
            Some(0)
        );
        assert_eq!(host.conntrack("1 6 0 0 0\n").insert_failed, Some(1));
        assert_eq!(
            host.conntrack("1 6 0 0 0\n1 7001 0 0 0\n").insert_failed,
            Some(1)
        );
    }

    #[test]
    fn a_column_that_this_kernel_lacks_is_told_from_one_that_is_zero() {
        let mut host = Host::new();
        let text = "entries drop insert_failed early_drop\n1 0 0 0\n";
        let seen = host.shows("nf_conntrack", text).conntrack;
        assert_eq!((seen.chainlength, seen.drop), (None, Some(0)));
        let mut host = Host::new();
        let short_row = host
            .shows("nf_conntrack", "insert_failed drop\n1\n")
            .conntrack;
        assert_eq!((short_row.insert_failed, short_row.drop), (Some(0), None));
    }

    #[test]
    fn as_many_processors_as_fit_are_counted() {
        let mut host = Host::new();
        let rows = |cell: &str| format!("1 {cell} 0 0 0\n").repeat(20_000);
        host.conntrack(&rows("00000000"));
        let grown = host.conntrack(&rows("00000001")).insert_failed.unwrap();
        assert!((10_000..20_000).contains(&grown), "{grown}");
    }
}
