//! Agents that run over a directory that stands in for a node's /proc.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use nettune_agent::agent::{Agent, AgentConfig, ProfileUpdate};
use nettune_agent::kernel::facts::Identity;
use nettune_agent::kernel::sysctl::Roots;
use nettune_agent::metrics::Metrics;
use nettune_agent::state::store::StateDir;
use nettune_agent::status::NodeReport;
use nettune_crds::{NodeNetworkProfileStatus, SysctlStatus};
use nettune_reconcile::desired::{Revision, Source};
use nettune_test_support::FakeNode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) const THRESH3: &str = "net.ipv4.neigh.default.gc_thresh3";
pub(crate) const MAX: &str = "net.netfilter.nf_conntrack_max";
pub(crate) const SOMAXCONN: &str = "net.core.somaxconn";

pub(crate) struct Node {
    pub(crate) dir: FakeNode,
    pub(crate) boot_id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) reports: watch::Receiver<Option<Arc<NodeReport>>>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let node = Self {
            dir: FakeNode::empty_in(&std::env::temp_dir(), "boot-1").unwrap(),
            boot_id: "boot-1",
            name: "n1",
            reports: watch::channel(None).1,
        };
        for (name, value) in [
            ("net.ipv4.neigh.default.gc_thresh1", "128"),
            ("net.ipv4.neigh.default.gc_thresh2", "512"),
            (THRESH3, "1024"),
            (MAX, "65536"),
            ("net.netfilter.nf_conntrack_buckets", "65536"),
            ("net.netfilter.nf_conntrack_count", "0"),
            (SOMAXCONN, "128"),
            ("kernel.osrelease", "6.1.0-18-amd64"),
        ] {
            node.put(&node.path(name), &format!("{value}\n"));
        }
        node.dir
            .put("net/stat/arp_cache", "entries x\n00000000 0\n")
            .unwrap();
        node
    }

    pub(crate) fn put(&self, path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.sysctl_path(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.state_dir().join("state.json")
    }

    pub(crate) fn set(&self, name: &str, value: &str) {
        self.put(&self.path(name), &format!("{value}\n"));
    }

    pub(crate) fn get(&self, name: &str) -> String {
        self.dir.sysctl(name).unwrap().trim().to_owned()
    }

    /// Replaces a key's file with a symbolic link.
    pub(crate) fn link(&self, name: &str, target: &str) {
        fs::remove_file(self.path(name)).unwrap();
        symlink(target, self.path(name)).unwrap();
    }

    /// Starts a new agent process.
    pub(crate) fn start(&mut self) -> Agent {
        self.put(&self.path("kernel.random.boot_id"), self.boot_id);
        let roots = Roots {
            sysctl: self.dir.sysctl_root(),
            proc: self.dir.proc_root(),
        };
        let (found, reports) = watch::channel(None);
        self.reports = reports;
        Agent::new(AgentConfig {
            node: self.name.to_owned(),
            identity: Arc::new(Identity::read(&roots).unwrap()),
            roots,
            state: StateDir::new(&self.dir.state_dir(), self.name, self.boot_id),
            metrics: Metrics::register(&mut Registry::default()),
            reports: found,
        })
    }

    pub(crate) fn status(&self) -> NodeNetworkProfileStatus {
        let reports = self.reports.borrow().clone().unwrap();
        reports.status(&NodeNetworkProfileStatus::default(), Timestamp::UNIX_EPOCH)
    }

    pub(crate) fn key(&self, name: &str) -> SysctlStatus {
        let keys = self.status().sysctls;
        keys.into_iter().find(|key| key.name == name).unwrap()
    }
}

pub(crate) fn update(
    generation: i64,
    fields: &Value,
    sysctls: &[(&str, &str, &str)],
) -> ProfileUpdate {
    let sysctls = sysctls
        .iter()
        .map(|(name, rule, value)| json!({"name": name, "rule": rule, "value": value}));
    let mut spec = json!({"tuning": "default", "sysctls": sysctls.collect::<Vec<_>>()});
    spec.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let uid = "uid".to_owned();
    ProfileUpdate::Profile(Arc::new(Source {
        revision: Revision { uid, generation },
        spec,
    }))
}

pub(crate) fn usual() -> ProfileUpdate {
    let sysctls = [
        (THRESH3, "AtLeast", "8192"),
        (MAX, "AtLeast", "131072"),
        (SOMAXCONN, "Exact", "4096"),
    ];
    update(1, &json!({}), &sysctls)
}
