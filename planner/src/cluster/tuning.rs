//! The parts of a tuning that decisions use.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use nettune_crds::{
    InvalidTuning, Mode, NodeLabels, NodeNetworkTuning, NodeNetworkTuningSpec,
    NodeNetworkTuningStatus, ReleasePolicy, Rollout,
};
use nettune_sizing::Policy;

/// A tuning in the [`ClusterState`](crate::ClusterState).
#[derive(Debug)]
pub struct PlannedTuning {
    pub(crate) uid: Arc<str>,
    pub(crate) generation: Option<i64>,
    pub(crate) resource_version: Arc<str>,
    pub(crate) created: Option<Timestamp>,
    pub(crate) content: TuningContent,
    pub(crate) status: NodeNetworkTuningStatus,
}

/// A tuning's content, or why it cannot be used.
#[derive(Debug)]
pub enum TuningContent {
    /// Valid.
    Usable(Box<UsableTuning>),
    /// Invalid or unreadable, for example accepted by an older schema: its nodes stay as they are.
    Unusable {
        error: String,
        /// Its node selector and priority, if these could be read.
        claim: Option<(NodeLabels, i32)>,
    },
}

/// A valid tuning.
#[derive(Debug)]
pub struct UsableTuning {
    pub(crate) policy: Policy,
    pub(crate) selector: NodeLabels,
    pub(crate) priority: i32,
    pub(crate) mode: Mode,
    pub(crate) release_policy: ReleasePolicy,
    pub(crate) rollout: Rollout,
}

impl PlannedTuning {
    /// From a tuning that could be read.
    #[must_use]
    pub fn new(tuning: &NodeNetworkTuning) -> Self {
        let content = match usable(&tuning.spec) {
            Ok(content) => TuningContent::Usable(Box::new(content)),
            Err(error) => TuningContent::Unusable {
                error: error.to_string(),
                claim: NodeLabels::try_from(&tuning.spec.node_selector)
                    .ok()
                    .map(|labels| (labels, tuning.spec.priority)),
            },
        };
        let status = tuning.status.clone().unwrap_or_default();
        Self::with(&tuning.metadata, content, status)
    }

    /// From a tuning whose spec could not be read.
    #[must_use]
    pub fn unreadable(meta: &ObjectMeta, status: NodeNetworkTuningStatus, error: &str) -> Self {
        let content = TuningContent::Unusable {
            error: format!("spec cannot be read: {error}"),
            claim: None,
        };
        Self::with(meta, content, status)
    }

    fn with(meta: &ObjectMeta, content: TuningContent, status: NodeNetworkTuningStatus) -> Self {
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            generation: meta.generation,
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            content,
            status,
        }
    }
}

fn usable(spec: &NodeNetworkTuningSpec) -> Result<UsableTuning, InvalidTuning> {
    Ok(UsableTuning {
        policy: Policy::try_from(spec)?,
        selector: NodeLabels::try_from(&spec.node_selector)?,
        priority: spec.priority,
        mode: spec.mode,
        release_policy: spec.release_policy,
        rollout: Rollout::try_from(spec)?,
    })
}
