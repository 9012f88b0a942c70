//! Performs the planner's writes: a fixed number at once, each with a deadline, none
//! against an object that has changed since it was decided on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use kube::Client;
use nettune_crds::NodeNetworkProfileSpec;
use nettune_planner::{Announcement, Cache, Object, PlannedProfile, Write, eq_ignoring_reasons};
use nettune_runtime::api::in_words;
use nettune_runtime::not_before::NotBefore;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::metrics::{Metrics, Verb};
use crate::run::Writable;
use crate::send::{Answer, Done, WriteError, perform};

/// Writes in flight at most: an API server of two cores was not faster with more.
const MOST_IN_FLIGHT: usize = 32;

/// The pause of all writes after one that did not reach the API server.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(1);

/// A tuning's counts change with every node that answers; this often they are written at most.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// First and longest wait after a write that failed, doubling in between; also after one that
/// succeeded where the same is written to an object again within the longest: somebody else changes it.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// The least wait after a write that was taken and did not make the profile say what it shall.
const NO_EFFECT: Duration = Duration::from_secs(5);

/// An object that is not written before its time, unless something else is wanted of it by then.
struct Hold {
    until: Instant,
    /// How long the next failure in a row holds it.
    next: Duration,
    /// What was written, or tried.
    wish: Wish,
}

/// What a write makes a profile say; `None` for any other write.
type Wish = Option<Arc<NodeNetworkProfileSpec>>;

fn wish(write: &Write) -> Wish {
    match write {
        Write::ReplaceProfile { spec, .. } => Some(Arc::clone(spec)),
        _ => None,
    }
}

impl Hold {
    /// Whether a write is a repetition of what is held.
    fn is_about(&self, wish: &Wish) -> bool {
        match (&self.wish, wish) {
            (Some(before), Some(now)) => eq_ignoring_reasons(before, now),
            _ => true,
        }
    }
}

/// What a write that has succeeded is worth telling.
pub(crate) struct Told {
    pub(crate) tuning: Arc<str>,
    pub(crate) uid: Arc<str>,
    pub(crate) announcements: Vec<Announcement>,
}

/// What performs writes.
pub(crate) struct Writer {
    client: Client,
    metrics: Metrics,
    writable: Writable,
    not_before: NotBefore,
    /// The writes of the last decision that were not started, statuses first, then the most urgent.
    queue: VecDeque<Write>,
    busy: HashMap<Object, Wish>,
    holds: HashMap<Object, Hold>,
    /// Failures that were said lately, by verb and code: not one line for each of 15,000 objects.
    said: HashMap<(Verb, u16), Instant>,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Writer {
    pub(crate) fn new(
        client: Client,
        not_before: NotBefore,
        metrics: Metrics,
        writable: Writable,
    ) -> Self {
        Self {
            client,
            metrics,
            writable,
            not_before,
            queue: VecDeque::new(),
            busy: HashMap::new(),
            holds: HashMap::new(),
            said: HashMap::new(),
            in_flight: FuturesUnordered::new(),
        }
    }

    /// Takes a decision in place of the one before. Returns when to decide again for the sake of
    /// objects that must wait, or of an API server that has asked for a pause.
    pub(crate) fn plan(&mut self, writes: Vec<Write>, now: Instant) -> Option<Instant> {
        self.holds.retain(|_, hold| now < hold.until + BACK_OFF.1);
        let mut wake = None;
        let (busy, holds) = (&self.busy, &self.holds);
        let due = writes.into_iter().filter(|write| {
            let object = write.object();
            if busy.contains_key(&object) {
                return false;
            }
            let held = holds.get(&object).filter(|hold| now < hold.until);
            let held = held.filter(|hold| hold.is_about(&wish(write)));
            wake = wake.into_iter().chain(held.map(|hold| hold.until)).min();
            held.is_none()
        });
        // A tuning's status is written every STATUS_INTERVAL at most: it takes no time from the others,
        // and at the end of a long queue it would never be written.
        let (mut queue, others): (VecDeque<Write>, VecDeque<Write>) =
            due.partition(|write| matches!(write, Write::TuningStatus { .. }));
        queue.extend(others);
        self.queue = queue;
        self.start(now);
        let resume = self.not_before.after(now);
        let resume = resume.filter(|_| !self.queue.is_empty());
        wake.into_iter().chain(resume).min()
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
    pub(crate) fn settle(&mut self, done: Done, watched: &mut Cache) -> Option<Told> {
        let wish = self.busy.remove(&done.object).flatten();
        let now = Instant::now();
        let took = done.answered.duration_since(done.sent);
        self.metrics.written(done.verb, done.write_result(), took);
        let told = match done.result {
            Ok(answer) => {
                let mut least = Duration::ZERO;
                if let (Answer::Profile(profile), Object::Profile(node)) = (&answer, &done.object) {
                    let kept_other = kept_other(profile, &wish);
                    if kept_other.is_some() {
                        least = NO_EFFECT;
                    }
                    watched.refused_profile(node, kept_other);
                }
                self.hold_after_success(done.object.clone(), wish, least, now);
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
                if let Object::Profile(node) = &done.object {
                    if error.code() == 404 {
                        watched.gone_profile(node, &done.uid);
                    }
                    let is_wish = matches!(done.verb, Verb::Create | Verb::Update);
                    if is_wish && error.is_rejection() {
                        watched.refused_profile(node, Some(shortened(in_words(&error))));
                    }
                }
                self.failed(&done.object, wish, done.verb, &error, now);
                None
            }
        };
        self.start(now);
        told
    }

    /// Starts nothing more; what is under way can still be answered.
    pub(crate) fn stop(&mut self) {
        self.queue.clear();
    }

    fn hold_after_success(&mut self, object: Object, wish: Wish, least: Duration, now: Instant) {
        let before = self.holds.get(&object);
        let (wait, next) = match (&object, before.filter(|hold| hold.is_about(&wish))) {
            (Object::Tuning(_), _) => (STATUS_INTERVAL, BACK_OFF.0),
            (_, None) => (Duration::ZERO, BACK_OFF.0),
            (_, Some(hold)) => (hold.next, (hold.next * 2).min(BACK_OFF.1)),
        };
        let next = next.max((least * 2).min(BACK_OFF.1));
        self.hold(object, wish, now, (wait.max(least), next));
    }

    fn failed(
        &mut self,
        object: &Object,
        wish: Wish,
        verb: Verb,
        error: &WriteError,
        now: Instant,
    ) {
        let (kind, name) = match object {
            Object::Profile(node) => ("profile", node),
            Object::Tuning(tuning) => ("tuning", tuning),
            Object::Node(node) => ("node", node),
        };
        let before = self.holds.get(object).filter(|hold| hold.is_about(&wish));
        let wait = before.map_or(BACK_OFF.0, |hold| hold.next);
        let words = in_words(error);
        let key = (verb, error.code());
        let is_news = self
            .said
            .get(&key)
            .is_none_or(|last| now > *last + BACK_OFF.1);
        if error.is_conflict() || !is_news {
            debug!(?verb, kind, name = &**name, error = words, again_in = ?wait, "write failed");
        } else {
            self.said.insert(key, now);
            warn!(?verb, kind, name = &**name, error = words, again_in = ?wait, "write failed; suppressing similar errors for 1m");
        }
        if error.is_unreachable() {
            self.not_before.pause(UNREACHABLE_PAUSE, now);
        }
        // All writes wait for a server that throttles, not this object alone.
        if !error.is_throttled() {
            let next = (wait * 2).min(BACK_OFF.1);
            self.hold(object.clone(), wish, now, (wait, next));
        }
    }

    fn hold(
        &mut self,
        object: Object,
        wish: Wish,
        now: Instant,
        (wait, next): (Duration, Duration),
    ) {
        let until = now + wait;
        self.holds.insert(object, Hold { until, next, wish });
    }

    fn start(&mut self, now: Instant) {
        // Asked before each: the Lease may end while a long queue is worked off.
        while self.busy.len() < MOST_IN_FLIGHT
            && self.not_before.after(now).is_none()
            && self.writable.now()
        {
            let Some(write) = self.queue.pop_front() else {
                break;
            };
            let object = write.object();
            self.busy.insert(object.clone(), wish(&write));
            self.in_flight
                .push(perform(self.client.clone(), write, object).boxed());
        }
        self.metrics.writing(self.queue.len(), self.busy.len());
    }
}

/// What is wrong with an answer that says something else than was written.
fn kept_other(answer: &PlannedProfile, wish: &Wish) -> Option<String> {
    let is_other = wish.as_ref().is_some_and(|wish| !answer.says(wish));
    is_other.then(|| {
        "it keeps something else than was written: its CustomResourceDefinition is of another \
         version than this operator's, or an admission webhook changes it"
            .to_owned()
    })
}

/// What somebody reads in a condition.
fn shortened(mut words: String) -> String {
    if let Some((end, _)) = words.char_indices().nth(MOST_WORDS) {
        words.truncate(end);
        words.push('…');
    }
    words
}

/// Characters of a refusal that a condition tells.
const MOST_WORDS: usize = 400;

/// Takes what the API server has answered into the world.
fn take_answer(answer: Answer, object: &Object, uid: &str, watched: &mut Cache) {
    match (answer, object) {
        (Answer::Profile(answer), Object::Profile(node)) => {
            watched.answered_profile(node, *answer);
        }
        (Answer::Deleted, Object::Profile(node)) => watched.gone_profile(node, uid),
        (Answer::Tuning(answer), Object::Tuning(tuning)) => {
            watched.answered_tuning(tuning, *answer);
        }
        // An answer is about what was asked for.
        _ => {}
    }
}

#[cfg(test)]
mod tests;
