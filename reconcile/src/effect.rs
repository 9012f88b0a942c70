//! The effects that `step` returns, and the part of its memory that is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nettune_sizing::{Mono, SysctlKey, Value};

use crate::desired::{Revision, Source};
use crate::observed::Content;
use crate::tables::limits::took;

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Save this to disk.
    Persist(Persisted),
    Set(SysctlKey, Value),
    /// Write an empty line: the original of a list that was not set.
    Clear(SysctlKey),
    /// Nothing, until the kernel shows something else, the profile changes, or this moment comes.
    Rest {
        /// When to step again at the latest.
        until: Mono,
    },
}

/// An original that was not restored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Left {
    pub key: Arc<str>,
    /// The value it was left at, and why.
    pub message: String,
}

/// What cannot be observed and is therefore saved. It belongs to one boot of one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Persisted {
    /// An earlier state of this boot was lost: the kernel may hold nettune's values, so originals are
    /// unknown until the next boot.
    pub originals_lost: bool,
    pub source: Option<Arc<Source>>,
    /// Every key that was written in this boot.
    pub records: BTreeMap<SysctlKey, Record>,
    /// Limits that the agent has raised because their table was full, and to what: a restart must not
    /// lower them.
    pub overflow_raises: BTreeMap<SysctlKey, u64>,
    /// Keys that [`Task::ApplyOnce`](crate::desired::Task::ApplyOnce) is done with.
    pub applied_once: Option<AppliedOnce>,
    /// The version of the profile whose release has ended.
    pub released: Option<Revision>,
}

/// The writes of one key in this boot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Its content before the first write; `None` if that was lost.
    pub original: Option<Content>,
    /// The value that nettune wrote before `written`.
    pub before: Option<Value>,
    /// What was written or is about to be: it is saved before the write.
    pub written: Value,
}

/// Keys that were applied for one version of the profile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppliedOnce {
    pub revision: Revision,
    pub keys: BTreeSet<SysctlKey>,
}

impl Record {
    /// Whether nettune wrote the observed value. Between a save and its write the kernel still holds the
    /// value before; once the new one was seen, the old one counts as another process's.
    pub(crate) fn owns(&self, key: &SysctlKey, observed: &Content, confirmed: bool) -> bool {
        let ours = |value: &Value| took(key, &value.clone().into(), observed);
        ours(&self.written) || (!confirmed && self.before.as_ref().is_some_and(ours))
    }
}
