//! One write: the request, and its result.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use nettune_planner::{Announcement, Object, PlannedProfile, PlannedTuning, Write};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::apply::body;
use crate::watch;

/// After this long without an answer a write counts as failed.
const DEADLINE: Duration = Duration::from_secs(10);

const FIELD_MANAGER: &str = "nettune-operator";

/// A write that has ended.
pub(crate) struct Done {
    pub(crate) object: Object,
    /// The uid of the object; empty for a new one.
    pub(crate) uid: Arc<str>,
    /// The label of the metrics.
    pub(crate) verb: &'static str,
    pub(crate) took: Duration,
    pub(crate) result: Result<Answer, WriteError>,
    /// Events to publish if it succeeded.
    pub(crate) announcements: Vec<Announcement>,
}

impl Done {
    pub(crate) fn result_label(&self) -> &'static str {
        match &self.result {
            Ok(_) => "ok",
            Err(error) if error.is_conflict() => "conflict",
            Err(error) if error.is_throttled() => "throttled",
            Err(_) => "failed",
        }
    }
}

pub(crate) enum Answer {
    Profile(Box<PlannedProfile>),
    Deleted,
    Tuning(Box<PlannedTuning>),
    /// The watch brings the Node.
    Node,
}

impl Answer {
    fn profile(object: &DynamicObject) -> Self {
        Self::Profile(Box::new(watch::profile(object)))
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl WriteError {
    /// The API server's status code; 0 where there was no answer.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Api(kube::Error::Api(status)) => status.code,
            _ => 0,
        }
    }

    /// The object has changed, or exists or is gone already: the watch brings its current state.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.code(), 404 | 409)
    }

    /// The API server asked for a pause, whatever the object.
    pub(crate) fn is_throttled(&self) -> bool {
        let Self::Api(kube::Error::Api(status)) = self else {
            return false;
        };
        let has_pause = || {
            let details = status.details.as_ref();
            details.is_some_and(|details| details.retry_after_seconds > 0)
        };
        matches!(status.code, 429 | 503) || status.code == 504 && has_pause()
    }

    /// The API server rejected this write for another reason than a conflict or throttling. Without a
    /// connection nothing was rejected.
    pub(crate) fn is_rejection(&self) -> bool {
        match self {
            Self::Deadline => true,
            Self::Api(_) => !self.is_unreachable() && !self.is_conflict() && !self.is_throttled(),
        }
    }

    /// There is no usable connection to the API server.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Api(_)) && self.code() == 0
    }
}

/// Sends a write and waits for its answer until the deadline.
pub(crate) async fn perform(client: Client, mut write: Write) -> Done {
    let object = write.object();
    let (verb, uid) = match &write {
        Write::CreateProfile { .. } => ("create", Arc::default()),
        Write::ReplaceProfile { uid, .. } => ("update", Arc::clone(uid)),
        Write::ReleaseProfile { uid, .. } => ("release", Arc::clone(uid)),
        Write::DeleteProfile { uid, .. } => ("delete", Arc::clone(uid)),
        Write::TuningStatus { uid, .. } => ("status", Arc::clone(uid)),
        Write::AgentUnresponsive { uid, .. } => ("mark_unresponsive", Arc::clone(uid)),
        Write::Untaint { uid, .. } => ("remove_taint", Arc::clone(uid)),
    };
    let announcements = match &mut write {
        Write::TuningStatus { announcements, .. } => std::mem::take(announcements),
        _ => Vec::new(),
    };
    let sent = Instant::now();
    let result = match timeout(DEADLINE, send(client, write)).await {
        Ok(result) => result.map_err(WriteError::from),
        Err(_) => Err(WriteError::Deadline),
    };
    Done {
        object,
        uid,
        verb,
        took: sent.elapsed(),
        result,
        announcements,
    }
}

async fn send(client: Client, write: Write) -> kube::Result<Answer> {
    let profiles = watch::profiles(&client);
    match write {
        Write::CreateProfile {
            node,
            node_uid,
            spec,
        } => {
            let body = body::new_profile(&node, &node_uid, &spec);
            let created = profiles.create(&post(), &body).await?;
            info!(node = &*node, tuning = spec.tuning, "profile created");
            Ok(Answer::profile(&created))
        }
        Write::ReplaceProfile {
            node,
            node_uid,
            uid,
            seen,
            spec,
        } => {
            let body = body::changed_profile(&node, &node_uid, &uid, &seen, &spec);
            let changed = profiles.patch(&node, &patch(), &Patch::Merge(body)).await?;
            info!(node = &*node, tuning = spec.tuning, "profile changed");
            Ok(Answer::profile(&changed))
        }
        Write::ReleaseProfile {
            node,
            uid,
            seen,
            canary,
        } => {
            let body = body::released_profile(&uid, &seen, canary);
            let changed = profiles.patch(&node, &patch(), &Patch::Merge(body)).await?;
            info!(node = &*node, "release requested");
            Ok(Answer::profile(&changed))
        }
        Write::DeleteProfile { node, uid, seen } => {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(uid.to_string()),
                    resource_version: Some(seen.to_string()),
                }),
                ..DeleteParams::default()
            };
            profiles.delete(&node, &params).await?;
            info!(node = &*node, "profile deleted");
            Ok(Answer::Deleted)
        }
        Write::TuningStatus {
            tuning,
            uid,
            seen,
            status,
            ..
        } => {
            let body = body::tuning_status(&tuning, &uid, &seen, &status);
            let tunings = watch::tunings(&client);
            let changed = tunings
                .replace_subresource("status", &tuning, &post(), &body)
                .await?;
            Ok(Answer::Tuning(Box::new(watch::tuning(&changed))))
        }
        Write::AgentUnresponsive {
            node,
            uid,
            seen,
            ready,
        } => {
            let body = body::unresponsive_agent(&node, &uid, &seen, &ready);
            let changed = profiles
                .patch_status(&node, &patch().force(), &Patch::Apply(body))
                .await?;
            warn!(
                node = &*node,
                reason = ready.message,
                "agent is unresponsive"
            );
            Ok(Answer::profile(&changed))
        }
        Write::Untaint {
            node,
            uid,
            seen,
            taints,
        } => {
            let body = body::taints(&uid, &seen, &taints);
            let nodes = Api::<Node>::all(client);
            nodes
                .patch_metadata(&node, &patch(), &Patch::Merge(body))
                .await?;
            info!(node = &*node, "startup taint removed");
            Ok(Answer::Node)
        }
    }
}

fn post() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn patch() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::core::response::StatusDetails;

    use super::*;

    fn rejected(code: u16, seconds: Option<u32>) -> WriteError {
        let mut status = Status::failure("no", "No").with_code(code);
        status.details = seconds.map(|seconds| StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: seconds,
        });
        WriteError::Api(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn each_error_is_one_of_conflict_throttled_rejected_unreachable() {
        let unreachable = kube::Error::LinesCodecMaxLineLengthExceeded;
        for (error, kind) in [
            (rejected(404, None), "conflict"),
            (rejected(409, None), "conflict"),
            (rejected(429, None), "throttled"),
            (rejected(429, Some(7)), "throttled"),
            (rejected(503, None), "throttled"),
            (rejected(504, Some(7)), "throttled"),
            (rejected(504, None), "rejected"),
            (rejected(403, None), "rejected"),
            (rejected(422, None), "rejected"),
            (rejected(500, None), "rejected"),
            (WriteError::Deadline, "rejected"),
            (WriteError::Api(unreachable), "unreachable"),
        ] {
            let kinds = [
                (error.is_conflict(), "conflict"),
                (error.is_throttled(), "throttled"),
                (error.is_rejection(), "rejected"),
                (error.is_unreachable(), "unreachable"),
            ];
            let found: Vec<&str> = kinds
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, name)| *name)
                .collect();
            assert_eq!(found, [kind], "{error}");
        }
    }
}
