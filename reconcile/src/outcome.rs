//! What becomes of each key, and where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use nettune_crds::KeyState;
use nettune_sizing::SysctlKey;

use crate::observed::Content;

/// What becomes of each key.
pub(crate) type Plan = BTreeMap<SysctlKey, KeyOutcome>;

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyOutcome {
    /// It is as wanted; the note says what is not plain from the value.
    Holds { note: String },
    /// It is to be written.
    Change { to: Content },
    /// It is left as it is, although it is not as wanted.
    Kept {
        state: KeyState,
        message: String,
        /// For the summary: what it waits for.
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

/// Where one key stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyReport {
    /// Its name; of an entry that is not taken, the name as it was given.
    pub name: Arc<str>,
    /// What the kernel held when it was last read; of a contested key, at most ten minutes ago.
    pub observed: Option<Content>,
    /// What it held before the first write of this boot.
    pub original: Option<Content>,
    /// Its state.
    pub state: KeyState,
    /// Why, where the state does not say it all.
    pub message: String,
    /// What it waits for, in a few words.
    pub waits_for: Option<String>,
    /// Whether it is an entry that this agent does not take.
    pub invalid: bool,
    /// Whether the profile does not name it any more and its original is not back: it counts for
    /// nothing but itself.
    pub dropped: bool,
    /// How often somebody else changed it since this agent was started.
    pub drift_count: u64,
}
