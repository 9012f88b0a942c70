//! Performs the planner's writes: a bounded number at once, each with a deadline, none against an
//! object that has changed since it was decided on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::DeserializeGuard;
use nettune_crds::{NodeNetworkProfile, NodeNetworkTuning};
use nettune_daemon::error::chain;
use nettune_planner::{Announcement, Decision, Kind, Watched, Write};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::body;
use crate::metrics::{Metrics, Outcome};
use crate::watch::{take_profile, take_tuning};

/// Writes under way at once: enough to keep an API server busy, few enough not to crowd others out.
const AT_ONCE: usize = 32;

/// After this long without an answer a write counts as failed. kube tries 429, 503 and 504 again
/// within it.
const DEADLINE: Duration = Duration::from_secs(10);

/// A tuning's counts change with every node that answers; this often they are written at most.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// First and longest wait after a write that failed, doubling in between.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// The field manager that the operator's writes are recorded under.
const FIELD_MANAGER: &str = "nettune-operator";

/// What a write is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Object {
    Profile(Arc<str>),
    Tuning(Arc<str>),
}

impl Object {
    fn of(write: &Write) -> Self {
        match write {
            Write::CreateProfile { node, .. }
            | Write::ReplaceProfile { node, .. }
            | Write::DeleteProfile { node, .. } => Self::Profile(Arc::clone(node)),
            Write::TuningStatus { tuning, .. } => Self::Tuning(Arc::clone(tuning)),
        }
    }
}

/// An object that is not written before its time.
struct Hold {
    until: Instant,
    /// How long the next failure in a row holds it.
    next: Duration,
}

/// A write that was answered.
pub(crate) struct Done {
    object: Object,
    result: Result<Answer, WriteError>,
    /// What to tell when it has succeeded.
    pub(crate) announcements: Vec<Announcement>,
    /// The tuning that the announcements are about, with its uid.
    pub(crate) about: Option<(Arc<str>, Arc<str>)>,
}

enum Answer {
    Profile(DeserializeGuard<NodeNetworkProfile>),
    Deleted,
    Tuning(DeserializeGuard<NodeNetworkTuning>),
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl WriteError {
    /// The object has changed, or is there or gone already: the watch brings what it is now.
    fn is_overtaken(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if matches!(status.code, 404 | 409))
    }
}

/// The queue of writes.
pub(crate) struct Writer {
    client: Client,
    metrics: Metrics,
    pending: VecDeque<Write>,
    busy: HashSet<Object>,
    holds: HashMap<Object, Hold>,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Writer {
    pub(crate) fn new(client: Client, metrics: Metrics) -> Self {
        Self {
            client,
            metrics,
            pending: VecDeque::new(),
            busy: HashSet::new(),
            holds: HashMap::new(),
            in_flight: FuturesUnordered::new(),
        }
    }

    /// Takes a decision in place of the one before. Returns when to decide again for the sake of
    /// objects that must wait.
    pub(crate) fn plan(&mut self, decision: Decision, now: Instant) -> Option<Instant> {
        self.holds.retain(|_, hold| now < hold.until + BACK_OFF.1);
        let mut wake = None;
        self.pending.clear();
        for write in decision.writes {
            let object = Object::of(&write);
            if self.busy.contains(&object) {
                continue;
            }
            match self.holds.get(&object) {
                Some(hold) if now < hold.until => {
                    wake = Some(wake.map_or(hold.until, |wake: Instant| wake.min(hold.until)));
                }
                _ => self.pending.push_back(write),
            }
        }
        self.metrics
            .queue
            .set(i64::try_from(self.pending.len()).unwrap_or(i64::MAX));
        self.start();
        wake
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The next answer; `None` when none is awaited.
    pub(crate) async fn answer(&mut self) -> Option<Done> {
        self.in_flight.next().await
    }

    /// Takes what a write has led to into the world, and starts the next one.
    pub(crate) fn settle(&mut self, done: &mut Done, watched: &mut Watched) {
        self.busy.remove(&done.object);
        let now = Instant::now();
        let result = std::mem::replace(&mut done.result, Err(WriteError::Deadline));
        match result {
            Ok(answer) => {
                self.metrics.written(Outcome::Ok);
                self.holds.remove(&done.object);
                if matches!(done.object, Object::Tuning(_)) {
                    self.hold(done.object.clone(), now, STATUS_INTERVAL, BACK_OFF.0);
                }
                match answer {
                    Answer::Profile(profile) => take_profile(watched, profile),
                    Answer::Tuning(tuning) => take_tuning(watched, tuning),
                    Answer::Deleted => {
                        if let Object::Profile(node) = &done.object {
                            watched.gone(Kind::Profile, node);
                        }
                    }
                }
            }
            Err(error) => self.failed(done, &error, now),
        }
        self.start();
    }

    fn failed(&mut self, done: &mut Done, error: &WriteError, now: Instant) {
        done.announcements.clear();
        let wait = self
            .holds
            .get(&done.object)
            .map_or(BACK_OFF.0, |hold| hold.next);
        if error.is_overtaken() {
            self.metrics.written(Outcome::Overtaken);
            debug!(object = ?done.object, error = chain(error), "overtaken by another change");
        } else {
            self.metrics.written(Outcome::Failed);
            warn!(object = ?done.object, error = chain(error), again_in = ?wait, "write failed");
        }
        self.hold(done.object.clone(), now, wait, (wait * 2).min(BACK_OFF.1));
    }

    fn hold(&mut self, object: Object, now: Instant, wait: Duration, next: Duration) {
        let until = now + wait;
        self.holds.insert(object, Hold { until, next });
    }

    fn start(&mut self) {
        while self.in_flight.len() < AT_ONCE {
            let Some(write) = self.pending.pop_front() else {
                break;
            };
            let object = Object::of(&write);
            self.busy.insert(object.clone());
            self.in_flight
                .push(perform(self.client.clone(), write, object).boxed());
        }
    }
}

async fn perform(client: Client, write: Write, object: Object) -> Done {
    let (announcements, about) = match &write {
        Write::TuningStatus {
            announcements,
            tuning,
            uid,
            ..
        } => (
            announcements.clone(),
            Some((Arc::clone(tuning), Arc::clone(uid))),
        ),
        _ => (Vec::new(), None),
    };
    let result = match tokio::time::timeout(DEADLINE, send(client, write)).await {
        Ok(result) => result.map_err(WriteError::from),
        Err(_) => Err(WriteError::Deadline),
    };
    Done {
        object,
        result,
        announcements,
        about,
    }
}

async fn send(client: Client, write: Write) -> kube::Result<Answer> {
    let profiles: Api<DeserializeGuard<NodeNetworkProfile>> = Api::all(client.clone());
    match write {
        Write::CreateProfile {
            node,
            node_uid,
            spec,
        } => {
            let created = Api::<NodeNetworkProfile>::all(client)
                .create(&post(), &body::new_profile(&node, &node_uid, &spec))
                .await?;
            info!(node = &*node, tuning = spec.tuning, "profile created");
            Ok(Answer::Profile(DeserializeGuard(Ok(created))))
        }
        Write::ReplaceProfile {
            node,
            node_uid,
            uid,
            seen,
            spec,
        } => {
            let body = body::changed_profile(&node, &node_uid, &uid, &seen, &spec);
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let changed = profiles.patch(&node, &params, &Patch::Merge(body)).await?;
            info!(
                node = &*node,
                tuning = spec.tuning,
                release = spec.release,
                "profile changed"
            );
            Ok(Answer::Profile(changed))
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
            let tunings: Api<DeserializeGuard<NodeNetworkTuning>> = Api::all(client);
            let body = body::tuning_status(&tuning, &uid, &seen, &status);
            let changed = tunings
                .replace_subresource("status", &tuning, &post(), &body)
                .await?;
            Ok(Answer::Tuning(changed))
        }
    }
}

fn post() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}
