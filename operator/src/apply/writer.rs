//! Performs the planner's writes: a fixed number at once, each with a deadline, none to an object that
//! has changed since the decision.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use kube::Client;
use nettune_planner::{Announcement, Cache, Object, PlannedProfile, Write};
use nettune_runtime::api::in_words;
use nettune_runtime::throttle::NotBefore;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::apply::backoff::{Backoffs, DesiredSpec, LONGEST_WAIT, desired_spec};
use crate::apply::request::{Answer, Done, WriteError, perform};
use crate::leader::handle::Writable;
use crate::metrics::Metrics;

/// The most writes in flight: an API server of two cores was not faster with more.
const CONCURRENCY: usize = 32;

/// The pause of all writes after one that did not reach the API server.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(1);

/// The shortest wait after a write that succeeded without effect.
const NO_EFFECT_WAIT: Duration = Duration::from_secs(5);

/// Characters of a rejection that a condition shows.
const REJECTION_MAX: usize = 400;

/// Events to publish after a tuning's status was written.
pub(crate) struct TuningEvents {
    pub(crate) tuning: Arc<str>,
    pub(crate) uid: Arc<str>,
    pub(crate) announcements: Vec<Announcement>,
}

pub(crate) struct Writer {
    client: Client,
    metrics: Metrics,
    writable: Writable,
    not_before: NotBefore,
    /// The writes of the last decision that are not started: statuses, then the most urgent.
    queue: VecDeque<Write>,
    busy: HashMap<Object, DesiredSpec>,
    backoffs: Backoffs,
    /// When an error was last logged, by verb and status code: an outage is not one line for each of
    /// 15,000 objects.
    logged: HashMap<(&'static str, u16), Instant>,
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
            backoffs: Backoffs::default(),
            logged: HashMap::new(),
            in_flight: FuturesUnordered::new(),
        }
    }

    /// Replaces the writes of the previous decision. Returns when to decide again because objects have
    /// to wait or the API server asked for a pause.
    pub(crate) fn plan(&mut self, writes: Vec<Write>, now: Instant) -> Option<Instant> {
        self.backoffs.forget_old(now);
        let mut wake = None;
        let (busy, backoffs) = (&self.busy, &self.backoffs);
        let due = writes.into_iter().filter(|write| {
            if busy.contains_key(&write.object()) {
                return false;
            }
            let until = backoffs.until(write, now);
            wake = wake.into_iter().chain(until).min();
            until.is_none()
        });
        // Statuses are rare, and at the end of a long queue they would never be written.
        let (mut queue, others): (VecDeque<Write>, VecDeque<Write>) =
            due.partition(|write| matches!(write, Write::TuningStatus { .. }));
        queue.extend(others);
        self.queue = queue;
        self.start(now);
        let resume = self.not_before.after(now);
        let resume = resume.filter(|_| !self.queue.is_empty());
        wake.into_iter().chain(resume).min()
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The next answer; `None` when no write is in flight.
    pub(crate) async fn answer(&mut self) -> Option<Done> {
        self.in_flight.next().await
    }

    /// Puts the result of a write into the cache, and starts the next one.
    pub(crate) fn settle(&mut self, done: Done, cache: &mut Cache) -> Option<TuningEvents> {
        let spec = self.busy.remove(&done.object).flatten();
        let now = Instant::now();
        self.metrics
            .written(done.verb, done.result_label(), done.took);
        let events = match &done.result {
            Ok(_) => self.succeeded(done, spec, cache, now),
            Err(error) => {
                if let Object::Profile(node) = &done.object {
                    if error.code() == 404 {
                        cache.gone_profile(node, &done.uid);
                    }
                    if error.is_rejection() && matches!(done.verb, "create" | "update") {
                        cache.refused_profile(node, Some(truncated(in_words(error))));
                    }
                }
                self.failed(&done.object, spec, done.verb, error, now);
                None
            }
        };
        self.start(now);
        events
    }

    /// Drops the queue. Writes in flight can still be answered.
    pub(crate) fn stop(&mut self) {
        self.queue.clear();
    }

    fn succeeded(
        &mut self,
        done: Done,
        spec: DesiredSpec,
        cache: &mut Cache,
        now: Instant,
    ) -> Option<TuningEvents> {
        let mut least = Duration::ZERO;
        let mut events = None;
        match (done.result.ok()?, &done.object) {
            (Answer::Profile(profile), Object::Profile(node)) => {
                let mismatch = mismatch(&profile, &spec);
                if mismatch.is_some() {
                    least = NO_EFFECT_WAIT;
                }
                cache.refused_profile(node, mismatch);
                cache.answered_profile(node, *profile);
            }
            (Answer::Deleted, Object::Profile(node)) => cache.gone_profile(node, &done.uid),
            (Answer::Tuning(answer), Object::Tuning(tuning)) => {
                cache.answered_tuning(tuning, *answer);
                events = Some(TuningEvents {
                    tuning: Arc::clone(tuning),
                    uid: done.uid,
                    announcements: done.announcements,
                });
            }
            _ => {}
        }
        self.backoffs.succeeded(done.object, spec, least, now);
        events
    }

    fn failed(
        &mut self,
        object: &Object,
        spec: DesiredSpec,
        verb: &'static str,
        error: &WriteError,
        now: Instant,
    ) {
        let (kind, name) = match object {
            Object::Profile(node) => ("profile", &**node),
            Object::Tuning(tuning) => ("tuning", &**tuning),
            Object::Node(node) => ("node", &**node),
        };
        let wait = self.backoffs.next_wait(object, &spec);
        let words = in_words(error);
        let key = (verb, error.code());
        let last = self.logged.get(&key);
        let is_suppressed = last.is_some_and(|last| now <= *last + LONGEST_WAIT);
        if error.is_conflict() || is_suppressed {
            debug!(verb, kind, name, error = words, retry_in = ?wait, "write failed");
        } else {
            self.logged.insert(key, now);
            warn!(verb, kind, name, error = words, retry_in = ?wait, "write failed; suppressing similar errors for 1m");
        }
        if error.is_unreachable() {
            self.not_before.pause(UNREACHABLE_PAUSE, now);
        }
        // If the server throttles, all writes wait, not this object alone.
        if !error.is_throttled() {
            self.backoffs.failed(object.clone(), spec, wait, now);
        }
    }

    fn start(&mut self, now: Instant) {
        // Checked before each write: the Lease may end while a long queue is processed.
        while self.busy.len() < CONCURRENCY
            && self.not_before.after(now).is_none()
            && self.writable.now()
        {
            let Some(write) = self.queue.pop_front() else {
                break;
            };
            self.busy.insert(write.object(), desired_spec(&write));
            self.in_flight
                .push(perform(self.client.clone(), write).boxed());
        }
        self.metrics.writing(self.queue.len(), self.busy.len());
    }
}

/// What is wrong with an answer that differs from what was written.
fn mismatch(answer: &PlannedProfile, spec: &DesiredSpec) -> Option<String> {
    let differs = spec.as_ref().is_some_and(|spec| !answer.says(spec));
    differs.then(|| {
        "the API server stored a different spec than was written: the CustomResourceDefinition has another \
         version than this operator, or an admission webhook changes it"
            .to_owned()
    })
}

fn truncated(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(REJECTION_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
