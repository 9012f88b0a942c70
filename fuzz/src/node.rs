//! A node that is a directory in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nettune_agent::kernel::sysctl::Roots;
use tempfile::TempDir;

/// The one node of this process.
pub(crate) struct Node(TempDir);

impl Node {
    pub(crate) fn get() -> &'static Self {
        static NODE: OnceLock<Node> = OnceLock::new();
        NODE.get_or_init(|| {
            let memory = Path::new("/dev/shm");
            let parent = if memory.is_dir() {
                memory.to_owned()
            } else {
                std::env::temp_dir()
            };
            let node = Self(tempfile::tempdir_in(parent).expect("a directory"));
            node.put("sys/kernel/random/boot_id", b"boot\n");
            node.put("sys/kernel/osrelease", b"6.1.0\n");
            for family in ["ipv4", "ipv6"] {
                for (n, value) in [(1, "128"), (2, "512"), (3, "1024")] {
                    let name = format!("sys/net/{family}/neigh/default/gc_thresh{n}");
                    node.put(&name, value.as_bytes());
                }
            }
            node.put("sys/net/netfilter/nf_conntrack_max", b"65536");
            node.put("sys/net/netfilter/nf_conntrack_buckets", b"65536");
            node.put("sys/net/netfilter/nf_conntrack_count", b"10");
            node
        })
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots {
            sysctl: self.0.path().join("sys"),
            proc: self.0.path().to_owned(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        if fs::write(&path, bytes).is_err() {
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, bytes).expect("a file");
        }
    }
}
