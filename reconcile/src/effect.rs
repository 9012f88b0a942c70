//! What `step` asks for, and what of its memory is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nettune_sizing::{Mono, SysctlKey, Value};

use crate::desired::{Revision, Source};
use crate::observed::Content;
use crate::tables::limits::took;

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Save this, durably.
    Persist(Persisted),
    /// Write a value.
    Set(SysctlKey, Value),
    /// Write an empty line: the original of a list that nobody had set.
    Clear(SysctlKey),
    /// Nothing, until the kernel shows something else, the profile changes, or this moment comes.
    Rest {
        /// When to look again at the latest.
        until: Mono,
    },
}

/// An original that was not put back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Left {
    /// The key's name.
    pub key: Arc<str>,
    /// What it was left at, and why.
    pub message: String,
}

/// What cannot be observed, and therefore is on disk. It is of one boot of one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Persisted {
    /// An earlier state of this boot was lost: what the kernel holds may be nettune's own value, so
    /// that no original can be told until the next boot.
    pub originals_lost: bool,
    /// The last profile.
    pub source: Option<Arc<Source>>,
    /// Every key that was written in this boot.
    pub records: BTreeMap<SysctlKey, Record>,
    /// Limits that the agent itself has raised, because their table was full, and to what: a restart
    /// must not lower them.
    pub overflow_raises: BTreeMap<SysctlKey, u64>,
    /// Keys that [`Task::ApplyOnce`](crate::desired::Task::ApplyOnce) is done with.
    pub applied_once: Option<AppliedOnce>,
    /// The version of the profile whose release is over.
    pub released: Option<Revision>,
}

/// What was done to one key in this boot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// What it held before the first write; `None` where that was lost.
    pub original: Option<Content>,
    /// What it held that was nettune's before `written` was.
    pub before: Option<Value>,
    /// What was, or is about to be, written: it is saved before the write.
    pub written: Value,
}

/// Keys that were applied for one version of the profile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppliedOnce {
    /// The version.
    pub revision: Revision,
    /// The keys.
    pub keys: BTreeSet<SysctlKey>,
}

impl Record {
    /// Whether a live value is one that nettune wrote. Between a save and its write the kernel still
    /// holds the value before; once the new one was seen, the old one is somebody else's.
    pub(crate) fn owns(&self, key: &SysctlKey, observed: &Content, confirmed: bool) -> bool {
        let ours = |value: &Value| took(key, &value.clone().into(), observed);
        ours(&self.written) || (!confirmed && self.before.as_ref().is_some_and(ours))
    }
}
