//! The outcome and the report of each key.

use std::collections::BTreeMap;
use std::sync::Arc;

use nettune_crds::KeyState;
use nettune_sizing::SysctlKey;

use crate::observed::Content;

/// The outcome of each key.
pub(crate) type Plan = BTreeMap<SysctlKey, KeyOutcome>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyOutcome {
    /// It is as desired; the note says what the value does not show.
    Holds {
        note: String,
    },
    Change {
        to: Content,
    },
    /// It is left as it is although it is not as desired.
    Kept {
        state: KeyState,
        message: String,
        /// What it waits for, for the summary.
        waits_for: Option<String>,
    },
}

impl KeyOutcome {
    pub(crate) fn holds() -> Self {
        Self::Holds {
            note: String::new(),
        }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::kept(KeyState::Failed, message)
    }

    pub(crate) fn kept(state: KeyState, message: impl Into<String>) -> Self {
        Self::Kept {
            state,
            message: message.into(),
            waits_for: None,
        }
    }
}

/// The state of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyReport {
    /// Its name; for an invalid entry, the name as given.
    pub name: Arc<str>,
    /// What the kernel held when it was last read; for a contested key, within the last ten minutes.
    pub observed: Option<Content>,
    /// Its content before the first write of this boot.
    pub original: Option<Content>,
    pub state: KeyState,
    /// Why it is in that state.
    pub message: String,
    /// What it waits for, in a few words.
    pub waits_for: Option<String>,
    /// Whether it is an entry that this agent cannot use.
    pub invalid: bool,
    /// Whether the profile no longer names it and its original is not restored: it does not count
    /// towards conditions.
    pub dropped: bool,
    /// How often another process changed it since the agent started.
    pub drift_count: u64,
}
