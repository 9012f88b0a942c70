//! One write: what is sent, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use nettune_planner::{Announcement, Object, PlannedProfile, PlannedTuning, Write};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::metrics::{Outcome, Verb};
use crate::window::Signal;
use crate::{body, watch};

/// After this long without an answer a write counts as failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// The field manager that the operator's writes are recorded under.
const FIELD_MANAGER: &str = "nettune-operator";

/// A write that was answered.
pub(crate) struct Done {
    pub(crate) object: Object,
    /// The uid that was written to; empty for an object that was to be created.
    pub(crate) uid: Arc<str>,
    /// What was tried.
    pub(crate) verb: Verb,
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    pub(crate) result: Result<Answer, WriteError>,
    /// What to tell when it has succeeded.
    pub(crate) announcements: Vec<Announcement>,
}

impl Done {
    /// What it tells of the API server.
    pub(crate) fn signal(&self) -> Signal {
        self.result
            .as_ref()
            .err()
            .map_or(Signal::Answered, WriteError::signal)
    }

    /// How it ended.
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.result {
            Ok(_) => Outcome::Ok,
            Err(error) if error.is_overtaken() => Outcome::Overtaken,
            Err(_) if matches!(self.signal(), Signal::Busy(_)) => Outcome::Busy,
            Err(_) => Outcome::Failed,
        }
    }
}

pub(crate) enum Answer {
    Profile(Box<PlannedProfile>),
    Deleted,
    Tuning(Box<PlannedTuning>),
    /// The watch of Nodes brings it.
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

    /// The object has changed, or is there or gone already: the watch brings what it is now.
    pub(crate) fn is_overtaken(&self) -> bool {
        matches!(self.code(), 404 | 409)
    }

    /// The API server does not take it, and not because the object has changed; one that is not reached has refused
    /// nothing.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Deadline => true,
            Self::Api(_) => self.code() != 0 && !self.is_overtaken(),
        }
    }

    fn signal(&self) -> Signal {
        let pause = self.pause();
        match self.code() {
            429 => Signal::Busy(pause),
            503 | 504 if pause.is_some() => Signal::Busy(pause),
            400..=499 => Signal::Answered,
            _ => Signal::Troubled,
        }
    }

    /// How long the API server wants to be left alone, where it says so.
    fn pause(&self) -> Option<Duration> {
        let Self::Api(kube::Error::Api(status)) = self else {
            return None;
        };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }
}

/// Sends a write and waits for its answer, not for ever.
pub(crate) async fn perform(client: Client, mut write: Write, object: Object) -> Done {
    let (verb, uid) = match &write {
        Write::CreateProfile { .. } => (Verb::Create, Arc::default()),
        Write::ReplaceProfile { uid, .. } => (Verb::Change, Arc::clone(uid)),
        Write::ReleaseProfile { uid, .. } => (Verb::Release, Arc::clone(uid)),
        Write::DeleteProfile { uid, .. } => (Verb::Delete, Arc::clone(uid)),
        Write::TuningStatus { uid, .. } => (Verb::Status, Arc::clone(uid)),
        Write::AgentUnresponsive { uid, .. } => (Verb::Silence, Arc::clone(uid)),
        Write::Untaint { uid, .. } => (Verb::Untaint, Arc::clone(uid)),
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
        sent,
        answered: Instant::now(),
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
            info!(node = &*node, "originals asked back");
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
            let body = body::silent_agent(&node, &uid, &seen, &ready);
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
            info!(node = &*node, "startup taint taken off");
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

    fn refused(code: u16, seconds: Option<u32>) -> WriteError {
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
    fn a_server_that_refuses_one_object_is_no_server_in_trouble() {
        let pause = Some(Duration::from_secs(7));
        for (error, signal) in [
            (refused(403, None), Signal::Answered),
            (refused(409, None), Signal::Answered),
            (refused(422, None), Signal::Answered),
            (refused(429, Some(7)), Signal::Busy(pause)),
            (refused(429, None), Signal::Busy(None)),
            (refused(503, Some(7)), Signal::Busy(pause)),
            (refused(503, None), Signal::Troubled),
            (refused(500, None), Signal::Troubled),
            (WriteError::Deadline, Signal::Troubled),
        ] {
            assert_eq!(error.signal(), signal, "{error}");
        }
    }

    #[test]
    fn what_is_overtaken_and_what_is_not_reached_is_no_refusal() {
        for (error, is_refusal) in [
            (refused(403, None), true),
            (refused(422, None), true),
            (refused(500, None), true),
            (WriteError::Deadline, true),
            (refused(404, None), false),
            (refused(409, None), false),
            (
                WriteError::Api(kube::Error::LinesCodecMaxLineLengthExceeded),
                false,
            ),
        ] {
            assert_eq!(error.is_refusal(), is_refusal, "{error}");
        }
    }
}
