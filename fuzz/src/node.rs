//! The one fake node of the fuzzing process, in memory where possible.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nettune_agent::kernel::sysctl::Roots;
use nettune_test_support::FakeNode;

pub(crate) struct Node(FakeNode);

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
            let node = Self(FakeNode::empty_in(&parent, "boot").expect("a directory"));
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
            sysctl: self.0.sysctl_root(),
            proc: self.0.proc_root(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.proc_root().join(name)
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        self.0.put(name, bytes).expect("a file");
    }
}
