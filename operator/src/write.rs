//! Performs the planner's writes: a bounded number at once, each with a deadline, none against an
//! object that has changed since it was decided on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use nettune_daemon::api::in_words;
use nettune_planner::{Announcement, Watched, Write};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::metrics::{Metrics, Outcome};
use crate::run::Writable;
use crate::{body, watch};

/// Writes under way at once: enough to keep an API server busy, few enough not to crowd others out.
const AT_ONCE: usize = 32;

/// After this long without an answer a write counts as failed. kube tries 429, 503 and 504 again
/// within it.
const DEADLINE: Duration = Duration::from_secs(10);

/// A tuning's counts change with every node that answers; this often they are written at most.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// First and longest wait after a write that failed, doubling in between; also after one that
/// succeeded where the same object is written again within the longest: somebody else changes it.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// The field manager that the operator's writes are recorded under.
const FIELD_MANAGER: &str = "nettune-operator";

/// What a write is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Object {
    Profile(Arc<str>),
    Tuning(Arc<str>),
    Node(Arc<str>),
}

impl Object {
    fn of(write: &Write) -> Self {
        match write {
            Write::CreateProfile { node, .. }
            | Write::ReplaceProfile { node, .. }
            | Write::ReleaseProfile { node, .. }
            | Write::DeleteProfile { node, .. }
            | Write::AgentSilent { node, .. } => Self::Profile(Arc::clone(node)),
            Write::Untaint { node, .. } => Self::Node(Arc::clone(node)),
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
    /// The uid that was written to; empty for an object that was to be created.
    uid: Arc<str>,
    /// What was tried, in a word.
    verb: &'static str,
    result: Result<Answer, WriteError>,
    /// What to tell when it has succeeded.
    announcements: Vec<Announcement>,
}

/// What a write that has succeeded is worth telling.
pub(crate) struct Told {
    pub(crate) tuning: Arc<str>,
    pub(crate) uid: Arc<str>,
    pub(crate) announcements: Vec<Announcement>,
}

enum Answer {
    Profile(DynamicObject),
    Deleted,
    Tuning(DynamicObject),
    /// The watch of Nodes brings it.
    Node,
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl WriteError {
    /// The API server's status code; 0 where there was no answer.
    fn code(&self) -> u16 {
        match self {
            Self::Api(kube::Error::Api(status)) => status.code,
            _ => 0,
        }
    }

    /// The object has changed, or is there or gone already: the watch brings what it is now.
    fn is_overtaken(&self) -> bool {
        matches!(self.code(), 404 | 409)
    }
}

/// The queue of writes.
pub(crate) struct Writer {
    client: Client,
    metrics: Metrics,
    writable: Writable,
    pending: VecDeque<Write>,
    busy: HashSet<Object>,
    holds: HashMap<Object, Hold>,
    /// Failures that were said lately, by verb and code: not one line for each of 15,000 objects.
    said: HashMap<(&'static str, u16), Instant>,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Writer {
    pub(crate) fn new(client: Client, metrics: Metrics, writable: Writable) -> Self {
        Self {
            client,
            metrics,
            writable,
            pending: VecDeque::new(),
            busy: HashSet::new(),
            holds: HashMap::new(),
            said: HashMap::new(),
            in_flight: FuturesUnordered::new(),
        }
    }

    /// Takes a decision in place of the one before. Returns when to decide again for the sake of
    /// objects that must wait.
    pub(crate) fn plan(&mut self, writes: Vec<Write>, now: Instant) -> Option<Instant> {
        self.holds.retain(|_, hold| now < hold.until + BACK_OFF.1);
        let mut wake = None;
        self.pending.clear();
        for write in writes {
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
    pub(crate) fn settle(&mut self, done: Done, watched: &mut Watched) -> Option<Told> {
        self.busy.remove(&done.object);
        let now = Instant::now();
        let told = match done.result {
            Ok(answer) => {
                self.metrics.written(Outcome::Ok);
                self.hold_after_success(done.object.clone(), now);
                take_answer(answer, &done.object, &done.uid, watched);
                match done.object {
                    Object::Tuning(tuning) => Some(Told {
                        tuning,
                        uid: done.uid,
                        announcements: done.announcements,
                    }),
                    Object::Profile(_) | Object::Node(_) => None,
                }
            }
            Err(error) => {
                if let (404, Object::Profile(node)) = (error.code(), &done.object) {
                    watched.gone_profile(node, &done.uid);
                }
                self.failed(&done.object, done.verb, &error, now);
                None
            }
        };
        self.start();
        told
    }

    /// Starts nothing more; what is under way can still be answered.
    pub(crate) fn stop(&mut self) {
        self.pending.clear();
    }

    fn hold_after_success(&mut self, object: Object, now: Instant) {
        let (wait, next) = match (&object, self.holds.get(&object)) {
            (Object::Tuning(_), _) => (STATUS_INTERVAL, BACK_OFF.0),
            (_, None) => (Duration::ZERO, BACK_OFF.0),
            (_, Some(hold)) => (hold.next, (hold.next * 2).min(BACK_OFF.1)),
        };
        self.hold(object, now, wait, next);
    }

    fn failed(&mut self, object: &Object, verb: &'static str, error: &WriteError, now: Instant) {
        let (kind, name) = match object {
            Object::Profile(node) => ("profile", node),
            Object::Tuning(tuning) => ("tuning", tuning),
            Object::Node(node) => ("node", node),
        };
        let wait = self.holds.get(object).map_or(BACK_OFF.0, |hold| hold.next);
        let words = in_words(error);
        self.metrics.written(match error.is_overtaken() {
            true => Outcome::Overtaken,
            false => Outcome::Failed,
        });
        let key = (verb, error.code());
        let is_news = self
            .said
            .get(&key)
            .is_none_or(|last| now > *last + BACK_OFF.1);
        if error.is_overtaken() || !is_news {
            debug!(verb, kind, name = &**name, error = words, again_in = ?wait, "not written");
        } else {
            self.said.insert(key, now);
            warn!(verb, kind, name = &**name, error = words, again_in = ?wait, "not written; others that fail alike are not told for a minute");
        }
        self.hold(object.clone(), now, wait, (wait * 2).min(BACK_OFF.1));
    }

    fn hold(&mut self, object: Object, now: Instant, wait: Duration, next: Duration) {
        let until = now + wait;
        self.holds.insert(object, Hold { until, next });
    }

    fn start(&mut self) {
        // Asked before each: the Lease may end while a long queue is worked off.
        while self.in_flight.len() < AT_ONCE && self.writable.now() {
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

/// Takes what the API server has answered into the world.
fn take_answer(answer: Answer, object: &Object, uid: &str, watched: &mut Watched) {
    match (answer, object) {
        (Answer::Profile(answer), Object::Profile(node)) => {
            watched.answered_profile(node, watch::profile(&answer));
        }
        (Answer::Deleted, Object::Profile(node)) => watched.gone_profile(node, uid),
        (Answer::Tuning(answer), Object::Tuning(tuning)) => {
            watched.answered_tuning(tuning, watch::tuning(&answer));
        }
        // An answer is about what was asked for.
        _ => {}
    }
}

async fn perform(client: Client, mut write: Write, object: Object) -> Done {
    let (verb, uid) = match &write {
        Write::CreateProfile { .. } => ("create", Arc::default()),
        Write::ReplaceProfile { uid, .. } => ("change", Arc::clone(uid)),
        Write::ReleaseProfile { uid, .. } => ("release", Arc::clone(uid)),
        Write::DeleteProfile { uid, .. } => ("delete", Arc::clone(uid)),
        Write::TuningStatus { uid, .. } => ("status", Arc::clone(uid)),
        Write::AgentSilent { uid, .. } => ("call silent", Arc::clone(uid)),
        Write::Untaint { uid, .. } => ("untaint", Arc::clone(uid)),
    };
    let announcements = match &mut write {
        Write::TuningStatus { announcements, .. } => std::mem::take(announcements),
        _ => Vec::new(),
    };
    let result = match tokio::time::timeout(DEADLINE, send(client, write)).await {
        Ok(result) => result.map_err(WriteError::from),
        Err(_) => Err(WriteError::Deadline),
    };
    Done {
        object,
        uid,
        verb,
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
            Ok(Answer::Profile(created))
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
            Ok(Answer::Profile(changed))
        }
        Write::ReleaseProfile {
            node,
            uid,
            seen,
            trial,
        } => {
            let body = body::released_profile(&uid, &seen, trial);
            let changed = profiles.patch(&node, &patch(), &Patch::Merge(body)).await?;
            info!(node = &*node, "originals asked back");
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
            let body = body::tuning_status(&tuning, &uid, &seen, &status);
            let tunings = watch::tunings(&client);
            let changed = tunings
                .replace_subresource("status", &tuning, &post(), &body)
                .await?;
            Ok(Answer::Tuning(changed))
        }
        Write::AgentSilent {
            node,
            uid,
            seen,
            ready,
        } => {
            let body = body::silent_agent(&node, &uid, &seen, &ready);
            let changed = profiles
                .patch_status(&node, &patch().force(), &Patch::Apply(body))
                .await?;
            warn!(node = &*node, reason = ready.message, "agent is silent");
            Ok(Answer::Profile(changed))
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
