//! A directory that stands in for a node's `/proc` and state directory, for agents that need no real kernel.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Files below `proc/sys` with what the kernel has in them by default.
const SYSCTLS: [(&str, &str); 14] = [
    ("net/ipv4/neigh/default/gc_thresh1", "128"),
    ("net/ipv4/neigh/default/gc_thresh2", "512"),
    ("net/ipv4/neigh/default/gc_thresh3", "1024"),
    ("net/ipv6/neigh/default/gc_thresh1", "128"),
    ("net/ipv6/neigh/default/gc_thresh2", "512"),
    ("net/ipv6/neigh/default/gc_thresh3", "1024"),
    ("net/netfilter/nf_conntrack_max", "262144"),
    ("net/netfilter/nf_conntrack_buckets", "262144"),
    ("net/netfilter/nf_conntrack_count", "0"),
    ("net/ipv4/vs/conn_reuse_mode", "1"),
    ("net/ipv4/vs/expire_nodest_conn", "0"),
    ("net/ipv4/vs/expire_quiescent_template", "0"),
    ("net/core/somaxconn", "4096"),
    ("kernel/osrelease", "6.1.0-directory-amd64"),
];

/// Headers and one CPU's row of 6.1, all counters zero.
const COUNTERS: [(&str, &str, usize); 3] = [
    ("arp_cache", NEIGHBOR_COLUMNS, 13),
    ("ndisc_cache", NEIGHBOR_COLUMNS, 13),
    (
        "nf_conntrack",
        "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop \
         icmp_error  expect_new expect_create expect_delete search_restart",
        17,
    ),
];
const NEIGHBOR_COLUMNS: &str = "entries  allocs   destroys hash_grows lookups  hits     res_failed rcv_probes_mcast \
     rcv_probes_ucast periodic_gc_runs forced_gc_runs unresolved_discards table_fulls";

/// A node in a temporary directory, which is removed on drop.
#[derive(Debug)]
pub struct FakeNode {
    dir: TempDir,
    boot_id: String,
}

/// A file of a fake node could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {}", path.display())]
pub struct FakeNodeError {
    pub attempt: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl FakeNode {
    /// A node with the kernel's defaults, conntrack and ip_vs loaded, 16 GiB of memory and this boot ID.
    pub fn new(boot_id: &str) -> Result<Self, FakeNodeError> {
        let node = Self::empty_in(&std::env::temp_dir(), boot_id)?;
        for (name, value) in SYSCTLS {
            node.put(&format!("sys/{name}"), format!("{value}\n"))?;
        }
        for (name, columns, count) in COUNTERS {
            node.put(
                &format!("net/stat/{name}"),
                format!("{columns}\n{}\n", vec!["00000000"; count].join(" ")),
            )?;
        }
        node.put(
            "meminfo",
            "MemTotal:       16384000 kB\nMemFree:         8192000 kB\n",
        )?;
        std::fs::create_dir_all(node.state_dir()).map_err(failed("create", &node.state_dir()))?;
        Ok(node)
    }

    /// A node below `parent` that has a boot ID and nothing else.
    pub fn empty_in(parent: &Path, boot_id: &str) -> Result<Self, FakeNodeError> {
        let dir = tempfile::Builder::new()
            .prefix("nettune-node-")
            .tempdir_in(parent)
            .map_err(failed("create a temporary directory in", parent))?;
        let node = Self {
            dir,
            boot_id: boot_id.to_owned(),
        };
        node.put("sys/kernel/random/boot_id", format!("{boot_id}\n"))?;
        Ok(node)
    }

    /// The directory that holds everything of this node.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Stands in for `/proc`.
    pub fn proc_root(&self) -> PathBuf {
        self.dir.path().join("proc")
    }

    /// Stands in for `/proc/sys`.
    pub fn sysctl_root(&self) -> PathBuf {
        self.proc_root().join("sys")
    }

    /// Stands in for `/var/lib/nettune`.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Equal to the boot ID in the Node object.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    pub fn kernel_release(&self) -> &'static str {
        SYSCTLS[SYSCTLS.len() - 1].1
    }

    /// The current value of each sysctl below `net`, by its dotted name.
    pub fn sysctls(&self) -> Result<BTreeMap<String, String>, FakeNodeError> {
        let names = SYSCTLS.iter().map(|(path, _)| path.replace('/', "."));
        names
            .filter(|name| name.starts_with("net."))
            .map(|name| Ok((name.clone(), self.sysctl(&name)?)))
            .collect()
    }

    /// The value of a sysctl, given its dotted name, without the newline.
    pub fn sysctl(&self, name: &str) -> Result<String, FakeNodeError> {
        let path = self.sysctl_path(name);
        let text = std::fs::read_to_string(&path).map_err(failed("read", &path))?;
        Ok(text.trim_end().to_owned())
    }

    /// Writes a sysctl as another program on the node would.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<(), FakeNodeError> {
        let path = self.sysctl_path(name);
        std::fs::write(&path, format!("{value}\n")).map_err(failed("write", &path))
    }

    /// Removes a sysctl, as unloading its module does.
    pub fn remove_sysctl(&self, name: &str) -> Result<(), FakeNodeError> {
        let path = self.sysctl_path(name);
        std::fs::remove_file(&path).map_err(failed("remove", &path))
    }

    /// Writes a file below [`proc_root`](Self::proc_root), for example `version_signature`.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), FakeNodeError> {
        let path = self.proc_root().join(name);
        if std::fs::write(&path, &content).is_ok() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(parent).map_err(failed("create", parent))?;
        std::fs::write(&path, content).map_err(failed("write", &path))
    }

    /// The file of a sysctl, given its dotted name.
    pub fn sysctl_path(&self, name: &str) -> PathBuf {
        self.sysctl_root().join(name.replace('.', "/"))
    }
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FakeNodeError + use<> {
    let path = path.to_path_buf();
    move |source| FakeNodeError {
        attempt,
        path,
        source,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed helper fails the test")]
mod tests {
    use super::*;

    #[test]
    fn sysctls_are_files_below_the_sysctl_root() {
        let node = FakeNode::new("0b5e6f3c-0000-4000-8000-000000000001").unwrap();
        assert_eq!(
            node.sysctl("net.ipv4.neigh.default.gc_thresh3").unwrap(),
            "1024"
        );
        node.set_sysctl("net.ipv4.neigh.default.gc_thresh3", "8192")
            .unwrap();
        let file = node.sysctl_root().join("net/ipv4/neigh/default/gc_thresh3");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "8192\n");
        node.remove_sysctl("net.ipv4.vs.conn_reuse_mode").unwrap();
        assert!(node.sysctl("net.ipv4.vs.conn_reuse_mode").is_err());
    }

    #[test]
    fn every_counter_has_a_value() {
        for (name, columns, count) in COUNTERS {
            assert_eq!(columns.split_whitespace().count(), count, "{name}");
        }
    }
}
