//! How full the kernel's tables are, from its counters.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::live::Counts;
use crate::procfs::Roots;

/// The most that is read of any file: a row of 120 bytes for each of 512 processors.
const MOST_BYTES: u64 = 64 * 1024;

/// The files that tell how full the tables are.
#[derive(Debug)]
pub struct Counters {
    arp_cache: PathBuf,
    ndisc_cache: PathBuf,
    conntrack_count: PathBuf,
}

impl Counters {
    /// The counters below these roots.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self {
            arp_cache: roots.proc.join("net/stat/arp_cache"),
            ndisc_cache: roots.proc.join("net/stat/ndisc_cache"),
            conntrack_count: roots.sysctl.join("net/netfilter/nf_conntrack_count"),
        }
    }

    /// Reads them. What is not there (nodes that are containers have no arp_cache) or is not what it
    /// should be is `None`.
    #[must_use]
    pub fn read(&self) -> Counts {
        let entries = |path| read_bounded(path).ok().as_deref().and_then(entries);
        let count = read_bounded(&self.conntrack_count).ok();
        Counts {
            neighbors_ipv4: entries(&self.arp_cache),
            neighbors_ipv6: entries(&self.ndisc_cache),
            conntrack: count.and_then(|count| count.trim().parse().ok()),
        }
    }
}

/// Reads a file of the kernel, at most [`MOST_BYTES`] of it. The size that it claims says nothing:
/// it is 0 below /proc.
pub(crate) fn read_bounded(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    // A row that was cut off is left out by those who read rows.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The column `entries` of a table's statistics: one row for each processor, in hexadecimal, its
/// columns named by the header. The table's size is the same on every row, and includes entries that
/// garbage collection does not count.
fn entries(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let column = lines
        .next()?
        .split_ascii_whitespace()
        .position(|name| name == "entries")?;
    lines.find_map(|row| {
        let cell = row.split_ascii_whitespace().nth(column)?;
        u64::from_str_radix(cell, 16).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_the_name_of_their_column() {
        let text =
            "allocs entries  table_fulls\n00000001 000000ff 00000000\n00000003 000000ff 00000000\n";
        assert_eq!(entries(text), Some(255));
    }

    #[test]
    fn garbage_is_no_count() {
        for text in [
            "",
            "\n",
            "entries",
            "entries\n",
            "entries\nzz\n",
            "allocs\n00000001\n",
            "a entries\n1\n",
        ] {
            assert_eq!(entries(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_bad_row_does_not_hide_the_next_one() {
        assert_eq!(entries("entries x\n?? 0\n00000010 0\n"), Some(16));
    }

    #[test]
    fn no_more_than_the_bound_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read_bounded(&path).unwrap().len() as u64, MOST_BYTES);
        assert!(read_bounded(&dir.path().join("none")).is_err());
    }
}
