//! What [`decide`](crate::decide()) wants written: the vocabulary between it and the API server.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use nettune_crds::{NodeNetworkProfileSpec, NodeNetworkTuningStatus};

use crate::cluster::profile::{PlannedProfile, ProfiledNode};

/// One write. Each names what it was decided on, so that the API server refuses it when that has
/// changed; then the next decision comes from the new content.
#[derive(Debug, Clone)]
pub enum Write {
    /// A node has no profile yet.
    CreateProfile {
        /// The node's and the profile's name.
        node: Arc<str>,
        /// The Node's uid: it owns the profile.
        node_uid: Arc<str>,
        /// What the profile shall say.
        spec: Arc<NodeNetworkProfileSpec>,
    },
    /// A profile says something else than it shall.
    ReplaceProfile {
        /// The node's and the profile's name.
        node: Arc<str>,
        /// The Node's uid: it owns the profile.
        node_uid: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        /// What the profile shall say.
        spec: Arc<NodeNetworkProfileSpec>,
    },
    /// The originals of a node that no tuning has any more shall go back: `spec.release` becomes true,
    /// all else stays.
    ReleaseProfile {
        /// The profile's name.
        node: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        /// What `spec.canary` shall be: whether the Node is Ready and so shows what becomes of it.
        canary: bool,
    },
    /// A profile whose node no tuning has, or whose Node is gone.
    DeleteProfile {
        /// The profile's name.
        node: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
    },
    /// A tuning's status differs from what it shall say.
    TuningStatus {
        /// The tuning's name.
        tuning: Arc<str>,
        /// The tuning's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        /// The whole status.
        status: Box<NodeNetworkTuningStatus>,
        /// What this change is worth telling as Events.
        announcements: Vec<Announcement>,
    },
    /// A node's agent has been unresponsive for too long: its profile's condition `Ready` is not known any
    /// more. All else in the status stays.
    AgentUnresponsive {
        /// The profile's name.
        node: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        /// What `Ready` shall be.
        ready: Box<Condition>,
    },
    /// The startup taint goes.
    Untaint {
        /// The Node's name.
        node: Arc<str>,
        /// The Node's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        /// The taints that stay.
        taints: Vec<Taint>,
    },
}

impl Write {
    /// What it is about.
    #[must_use]
    pub fn object(&self) -> Object {
        match self {
            Self::CreateProfile { node, .. }
            | Self::ReplaceProfile { node, .. }
            | Self::ReleaseProfile { node, .. }
            | Self::DeleteProfile { node, .. }
            | Self::AgentUnresponsive { node, .. } => Object::Profile(Arc::clone(node)),
            Self::Untaint { node, .. } => Object::Node(Arc::clone(node)),
            Self::TuningStatus { tuning, .. } => Object::Tuning(Arc::clone(tuning)),
        }
    }

    pub(crate) fn replace(
        ProfiledNode {
            name,
            node,
            profile,
        }: ProfiledNode<'_>,
        spec: Arc<NodeNetworkProfileSpec>,
    ) -> Self {
        Self::ReplaceProfile {
            node: Arc::clone(name),
            node_uid: Arc::clone(&node.uid),
            uid: Arc::clone(&profile.uid),
            seen: Arc::clone(&profile.resource_version),
            spec,
        }
    }

    pub(crate) fn release(
        ProfiledNode { name, profile, .. }: ProfiledNode<'_>,
        canary: bool,
    ) -> Self {
        Self::ReleaseProfile {
            node: Arc::clone(name),
            uid: Arc::clone(&profile.uid),
            seen: Arc::clone(&profile.resource_version),
            canary,
        }
    }

    pub(crate) fn delete(name: &Arc<str>, profile: &PlannedProfile) -> Self {
        Self::DeleteProfile {
            node: Arc::clone(name),
            uid: Arc::clone(&profile.uid),
            seen: Arc::clone(&profile.resource_version),
        }
    }
}

/// What a write is about, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Object {
    /// The profile of the node of this name.
    Profile(Arc<str>),
    /// A tuning.
    Tuning(Arc<str>),
    /// A Node.
    Node(Arc<str>),
}

impl Object {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Profile(name) | Self::Tuning(name) | Self::Node(name) => name,
        }
    }
}

/// An Event about a tuning, told once: when its status changes so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Whether somebody should look (`Warning`) or just know (`Normal`).
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
}
