//! A leader's write on its way to the API server.

use std::sync::Arc;

use nettune_crds::NodeNetworkProfileSpec;
use nettune_planner::Write;
use serde_json::{Value, json};

use crate::api::{NODES, TUNINGS, life};

/// What a write is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Object {
    Tuning(usize),
    Profile(usize),
}

/// A write on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Flight {
    pub(crate) object: Object,
    /// How much of what people do was done when it was decided.
    pub(crate) after: usize,
    /// The version that it was decided on; `None`: there was none.
    pub(crate) seen: Option<u32>,
    pub(crate) life: u8,
    pub(crate) change: Change,
}

/// What it changes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Change {
    Create {
        owner: u8,
        spec: Arc<NodeNetworkProfileSpec>,
    },
    Replace {
        owner: u8,
        spec: Arc<NodeNetworkProfileSpec>,
    },
    Release {
        canary: bool,
    },
    Delete,
    Silent(Value),
    Status(Value),
}

fn place(names: &[&str], name: &str) -> usize {
    let place = names.iter().position(|known| *known == name);
    place.unwrap_or(usize::MAX)
}

impl Flight {
    /// A write as the planner has decided it; `None` for those that no model has.
    pub(crate) fn of(write: Write, after: usize) -> Option<Self> {
        let profile = |node: &str, uid: &str, seen: &str, change| Self {
            object: Object::Profile(place(&NODES, node)),
            after,
            seen: seen.parse().ok(),
            life: life(uid),
            change,
        };
        Some(match write {
            Write::CreateProfile {
                node,
                node_uid,
                spec,
            } => {
                let owner = life(&node_uid);
                profile(&node, "", "", Change::Create { owner, spec })
            }
            Write::ReplaceProfile {
                node,
                node_uid,
                uid,
                seen,
                spec,
            } => {
                let owner = life(&node_uid);
                profile(&node, &uid, &seen, Change::Replace { owner, spec })
            }
            Write::ReleaseProfile {
                node,
                uid,
                seen,
                canary,
            } => profile(&node, &uid, &seen, Change::Release { canary }),
            Write::DeleteProfile { node, uid, seen } => profile(&node, &uid, &seen, Change::Delete),
            Write::AgentUnresponsive {
                node,
                uid,
                seen,
                ready,
            } => profile(&node, &uid, &seen, Change::Silent(json!(ready))),
            Write::TuningStatus {
                tuning,
                uid,
                seen,
                status,
                ..
            } => Self {
                object: Object::Tuning(place(&TUNINGS, &tuning)),
                after,
                seen: seen.parse().ok(),
                life: life(&uid),
                change: Change::Status(json!(status)),
            },
            Write::Untaint { .. } => return None,
        })
    }

    pub(crate) fn verb(&self) -> &'static str {
        match self.change {
            Change::Create { .. } => "create",
            Change::Replace { .. } => "replace",
            Change::Release { .. } => "release",
            Change::Delete => "delete",
            Change::Silent(_) => "call unresponsive",
            Change::Status(_) => "status",
        }
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, names, at) = match self {
            Self::Tuning(at) => ("tuning", &TUNINGS[..], at),
            Self::Profile(at) => ("profile", &NODES[..], at),
        };
        write!(f, "{what} {}", names.get(*at).unwrap_or(&"?"))
    }
}
