//! The writes that [`decide`](crate::decide()) asks for.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use nettune_crds::{NodeNetworkProfileSpec, NodeNetworkTuningStatus};

use crate::cluster::profile::{PlannedProfile, ProfiledNode};

/// One write. It carries the version that it was decided on, so the API server rejects it if the object has
/// changed. The next decision then uses the new content.
#[derive(Debug, Clone)]
pub enum Write {
    /// Creates the profile of a node that has none.
    CreateProfile {
        /// The node's and the profile's name.
        node: Arc<str>,
        /// The Node's uid: it owns the profile.
        node_uid: Arc<str>,
        spec: Arc<NodeNetworkProfileSpec>,
    },
    /// Replaces the spec of a profile.
    ReplaceProfile {
        /// The node's and the profile's name.
        node: Arc<str>,
        /// The Node's uid: it owns the profile.
        node_uid: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        spec: Arc<NodeNetworkProfileSpec>,
    },
    /// Asks for the original values of a node that no tuning selects any more: `spec.release` becomes true, and
    /// the rest of the spec stays.
    ReleaseProfile {
        /// The profile's name.
        node: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        /// The new `spec.canary`: whether the Node is Ready, so that it shows if the release does harm.
        canary: bool,
    },
    /// Deletes a profile that no tuning needs, or whose Node is gone.
    DeleteProfile {
        /// The profile's name.
        node: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
    },
    /// Updates the status of a tuning.
    TuningStatus {
        /// The tuning's name.
        tuning: Arc<str>,
        /// The tuning's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        /// The whole status.
        status: Box<NodeNetworkTuningStatus>,
        /// The Events to publish about this change.
        announcements: Vec<Announcement>,
    },
    /// Sets a profile's condition `Ready` to `Unknown`, because its agent is unresponsive. The rest of the
    /// status stays.
    AgentUnresponsive {
        /// The profile's name.
        node: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        /// The new `Ready`.
        ready: Box<Condition>,
    },
    /// Removes the startup taint of a Node.
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
    /// The object that is written.
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

/// The object of a write.
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

/// An Event about a tuning, published once when its status changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// `Warning` or `Normal`.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
}
