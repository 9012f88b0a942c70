//! Samples sysctls of nodes, to find values that were held only briefly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Cluster;

/// Shorter than an agent's own look.
const POLL: Duration = Duration::from_millis(10);

/// By node and sysctl.
type Seen = BTreeMap<(String, String), BTreeSet<String>>;

/// Samples sysctls until it is dropped.
#[derive(Debug)]
pub struct Sampler {
    seen: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Samples these sysctls of all nodes from now on.
    #[must_use]
    pub fn of(cluster: &Cluster, names: &[&str]) -> Self {
        let mut files: Vec<(String, String, PathBuf)> = Vec::new();
        for machine in &cluster.machines {
            let root = machine.directory.sysctl_root();
            for name in names {
                let path = root.join(name.replace('.', "/"));
                files.push((machine.spec.name.clone(), (*name).to_owned(), path));
            }
        }
        let (seen, ended) = (Arc::default(), Arc::default());
        let (noted, end) = (Arc::clone(&seen), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            while !AtomicBool::load(&end, Ordering::Relaxed) {
                note(&files, &noted);
                thread::sleep(POLL);
            }
        });
        let thread = Some(thread);
        Self {
            seen,
            ended,
            thread,
        }
    }

    /// All values of one sysctl of one node.
    pub fn of_node(&self, node: &str, name: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let held = seen.get(&(node.to_owned(), name.to_owned()));
        held.into_iter().flatten().cloned().collect()
    }

    /// All values other than these.
    pub fn other_than(&self, values: &[&str]) -> Vec<(String, String, String)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let all = seen.iter().flat_map(|((node, name), held)| {
            held.iter()
                .map(move |value| (node.clone(), name.clone(), value.clone()))
        });
        all.filter(|(_, _, value)| !values.contains(&value.as_str()))
            .collect()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

fn note(files: &[(String, String, PathBuf)], seen: &Mutex<Seen>) {
    for (node, name, path) in files {
        // A file is empty for an instant where it is written in two steps; the kernel's never are.
        let Some(text) = std::fs::read_to_string(path)
            .ok()
            .filter(|text| !text.is_empty())
        else {
            continue;
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let values = seen.entry((node.clone(), name.clone())).or_default();
        values.insert(text.trim_end().to_owned());
    }
}
