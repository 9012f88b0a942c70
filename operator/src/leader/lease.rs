//! Leader election by a Lease.
//!
//! The protocol is that of client-go's `leaderelection`: the holder renews the Lease, and another candidate
//! takes it when it has not been renewed for its duration. Times are of this process's monotonic clock: a
//! candidate counts from when it observed the last renewal, never from a timestamp of another machine.
//! Each write carries the resourceVersion that it was decided on, so that of two candidates one is
//! rejected, and so is one with a stale watch.
//!
//! A candidate watches the Lease and does not poll: a released Lease is taken at once, and waiting costs no
//! requests.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use nettune_runtime::api::in_words;
use nettune_runtime::backoff::with_backoff;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::watch::LONGEST_PAUSE;

const LEASE_NAME: &str = "nettune-operator";

/// The deadline of one request, well below that of a renewal.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// The pause after a failed request.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Why the operator no longer holds the Lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseLost {
    #[error("the Lease {LEASE_NAME} could not be renewed for {} s: {last_error}", within.as_secs())]
    NotRenewed {
        within: Duration,
        last_error: String,
    },
    #[error("the Lease {LEASE_NAME} was taken by {holder}")]
    Taken { holder: String },
    /// Whoever creates it again holds it.
    #[error("the Lease {LEASE_NAME} was deleted")]
    Deleted,
    #[error("the watch of the Lease {LEASE_NAME} ended")]
    WatchEnded,
}

/// Until when this process may write; `None` while another one does.
pub(crate) type WriteDeadline = Option<Instant>;

/// One of several operators, of which one writes at a time.
pub struct Candidate {
    leases: Api<Lease>,
    identity: String,
    duration: Duration,
}

impl Candidate {
    /// A candidate for the Lease in a namespace. `identity` is unique to the process. A holder that has not
    /// renewed the Lease for `duration` has lost it.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String, duration: Duration) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            identity,
            duration,
        }
    }

    /// How long the holder tries to renew before it stops writing. Two thirds of the duration, like in
    /// client-go, so that it has stopped before another one starts.
    fn renew_deadline(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// How often the holder renews. client-go renews a Lease of 15 s every 2 s.
    fn renew_interval(&self) -> Duration {
        self.duration * 2 / 15
    }

    /// Waits for the Lease, holds it, and releases it when `stop` is dropped.
    ///
    /// # Errors
    /// When the Lease is lost. The process has to end, since its writes may still be in flight.
    pub(crate) async fn run(
        self,
        deadline: watch::Sender<WriteDeadline>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<(), LeaseLost> {
        let acquired = tokio::select! {
            _ = &mut stop => return Ok(()),
            acquired = self.acquire() => acquired?,
        };
        info!(identity = self.identity, "leading");
        let (mut lease, sent) = acquired;
        let held = tokio::select! {
            _ = stop => Ok(()),
            lost = self.hold(&mut lease, sent, &deadline) => Err(lost),
        };
        deadline.send_replace(None);
        if held.is_ok() {
            self.release(lease).await;
        }
        held
    }

    /// Waits until the Lease is taken. Returns the time before the request: others count from when they
    /// observe the change, which may be before the answer arrives.
    async fn acquire(&self) -> Result<(Lease, Instant), LeaseLost> {
        let watched = with_backoff(watch_object(self.leases.clone(), LEASE_NAME), LONGEST_PAUSE);
        let mut watched = std::pin::pin!(watched);
        let mut observed = Observed::Nothing;
        let mut not_before = Instant::now();
        let mut logged = None;
        loop {
            let next = observed.next(&self.identity, self.duration, Instant::now());
            if let Some(holder) = observed
                .holder()
                .filter(|holder| logged.as_ref() != Some(holder))
            {
                info!(holder, "another operator leads; waiting for its Lease");
                logged = Some(holder);
            }
            let take_at = next.map(|at| at.max(not_before));
            tokio::select! {
                event = futures::StreamExt::next(&mut watched) => match event {
                    Some(Ok(lease)) => observed.observe(lease, Instant::now()),
                    Some(Err(error)) => {
                        warn!(error = in_words(&error), lease = LEASE_NAME, "cannot watch the Lease; retrying");
                    }
                    None => return Err(LeaseLost::WatchEnded),
                },
                () = sleep_until(take_at.unwrap_or_else(Instant::now)), if take_at.is_some() => {
                    let sent = Instant::now();
                    match timeout(REQUEST_TIMEOUT, self.take(&observed)).await {
                        Ok(Ok(lease)) => return Ok((lease, sent)),
                        Ok(Err(error)) if is_conflict(&error) => {
                            debug!(lease = LEASE_NAME, "another operator was faster");
                            // The watch may be late.
                            if let Ok(Ok(lease)) = timeout(REQUEST_TIMEOUT, self.leases.get_opt(LEASE_NAME)).await {
                                observed.observe(lease, Instant::now());
                            }
                        }
                        Ok(Err(error)) => warn!(error = in_words(&error), lease = LEASE_NAME, "cannot take the Lease; retrying"),
                        Err(_) => warn!(lease = LEASE_NAME, "cannot take the Lease: no answer; retrying"),
                    }
                    not_before = Instant::now() + RETRY_PAUSE;
                }
            }
        }
    }

    async fn take(&self, observed: &Observed) -> kube::Result<Lease> {
        let Observed::Lease { lease, .. } = observed else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE_NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            return self.leases.create(&PostParams::default(), &lease).await;
        };
        self.write(lease, self.spec(lease.spec.as_ref())).await
    }

    /// Renews the Lease until it is lost.
    async fn hold(
        &self,
        lease: &mut Lease,
        sent: Instant,
        deadline: &watch::Sender<WriteDeadline>,
    ) -> LeaseLost {
        let mut until = sent + self.renew_deadline();
        let mut next = sent + self.renew_interval();
        deadline.send_replace(Some(until));
        loop {
            sleep_until(next.min(until)).await;
            let sent = Instant::now();
            let remaining = until.saturating_duration_since(sent);
            let renewed = timeout(remaining.min(REQUEST_TIMEOUT), self.renew(lease)).await;
            let last_error = match renewed {
                Ok(Ok(())) => {
                    until = sent + self.renew_deadline();
                    next = sent + self.renew_interval();
                    deadline.send_replace(Some(until));
                    continue;
                }
                Ok(Err(Renewal::Lost(lost))) => return lost,
                Ok(Err(Renewal::Failed(error))) => in_words(&error),
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() >= until {
                let within = self.renew_deadline();
                return LeaseLost::NotRenewed { within, last_error };
            }
            warn!(
                error = last_error,
                lease = LEASE_NAME,
                "cannot renew the Lease; retrying"
            );
            next = Instant::now() + RETRY_PAUSE.min(self.renew_interval());
        }
    }

    async fn renew(&self, lease: &mut Lease) -> Result<(), Renewal> {
        loop {
            match self.write(lease, self.spec(lease.spec.as_ref())).await {
                Ok(renewed) => {
                    *lease = renewed;
                    return Ok(());
                }
                // An earlier renewal without an answer, or a change of metadata.
                Err(error) if is_conflict(&error) => {
                    let current = self.leases.get_opt(LEASE_NAME).await?;
                    let current = current.ok_or(Renewal::Lost(LeaseLost::Deleted))?;
                    match holder(&current) {
                        Some(holder) if holder == self.identity => *lease = current,
                        other => {
                            let holder = other.unwrap_or("nobody").to_owned();
                            return Err(Renewal::Lost(LeaseLost::Taken { holder }));
                        }
                    }
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    return Err(Renewal::Lost(LeaseLost::Deleted));
                }
                Err(error) => return Err(Renewal::Failed(error)),
            }
        }
    }

    /// Releases the Lease, so that the next one does not wait. Best effort: it expires anyway.
    async fn release(&self, lease: Lease) {
        let previous = lease.spec.clone().unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: None,
            renew_time: Some(MicroTime(Timestamp::now())),
            lease_transitions: previous.lease_transitions,
            ..LeaseSpec::default()
        };
        match self.write(&lease, spec).await {
            Ok(_) => info!(lease = LEASE_NAME, "released the Lease"),
            Err(error) => {
                let error = in_words(&error);
                warn!(error, lease = LEASE_NAME, "cannot release the Lease");
            }
        }
    }

    async fn write(&self, lease: &Lease, spec: LeaseSpec) -> kube::Result<Lease> {
        let body = Lease {
            metadata: ObjectMeta {
                managed_fields: None,
                ..lease.metadata.clone()
            },
            spec: Some(spec),
        };
        self.leases
            .replace(LEASE_NAME, &PostParams::default(), &body)
            .await
    }

    /// The spec of a Lease that this candidate holds. Nothing reads the timestamps but people.
    fn spec(&self, previous: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = previous.filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = previous.and_then(|spec| spec.lease_transitions);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: ours
                .and_then(|spec| spec.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: match (ours, previous) {
                (Some(_), _) => transitions,
                (None, Some(_)) => Some(transitions.unwrap_or(0).saturating_add(1)),
                (None, None) => Some(0),
            },
            ..LeaseSpec::default()
        }
    }
}

enum Renewal {
    Lost(LeaseLost),
    Failed(kube::Error),
}

impl From<kube::Error> for Renewal {
    fn from(error: kube::Error) -> Self {
        Self::Failed(error)
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref();
    holder.filter(|holder| !holder.is_empty())
}

/// What a candidate has observed of the Lease.
#[derive(Debug)]
enum Observed {
    /// Whether there is one is unknown.
    Nothing,
    /// There is none.
    None,
    Lease {
        lease: Box<Lease>,
        /// When this state was first observed.
        since: Instant,
    },
}

impl Observed {
    /// An unchanged Lease is no sign of life of its holder.
    fn observe(&mut self, lease: Option<Lease>, now: Instant) {
        let Some(lease) = lease else {
            *self = Self::None;
            return;
        };
        if let Self::Lease { lease: known, .. } = self
            && known.spec == lease.spec
        {
            **known = lease;
            return;
        }
        *self = Self::Lease {
            lease: Box::new(lease),
            since: now,
        };
    }

    /// When the Lease may be taken; `None` until something is observed.
    fn next(&self, identity: &str, duration: Duration, now: Instant) -> Option<Instant> {
        match self {
            Self::Nothing => None,
            Self::None => Some(now),
            Self::Lease { lease, since } => {
                let holder = holder(lease).filter(|holder| *holder != identity);
                // The holder may run with another duration.
                let theirs = lease
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.lease_duration_seconds);
                let theirs = u64::try_from(theirs.unwrap_or(0)).unwrap_or(0);
                let wait = duration.max(Duration::from_secs(theirs));
                Some(holder.map_or(*since, |_| *since + wait))
            }
        }
    }

    fn holder(&self) -> Option<String> {
        match self {
            Self::Lease { lease, .. } => holder(lease).map(str::to_owned),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn lease(holder: Option<&str>, seconds: i32, renewed: &str) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(seconds),
                renew_time: Some(MicroTime(renewed.parse().unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[test]
    fn nothing_is_taken_before_the_first_observation() {
        let start = Instant::now();
        assert_eq!(Observed::Nothing.next("us", DURATION, start), None);
        assert_eq!(Observed::None.next("us", DURATION, start), Some(start));
    }

    #[test]
    fn candidate_waits_from_when_it_observed_the_last_renewal() {
        let start = Instant::now();
        let mut observed = Observed::Nothing;
        // The timestamps of another machine are ignored.
        for renewed in ["2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"] {
            observed.observe(Some(lease(Some("them"), 15, renewed)), start);
            assert_eq!(observed.next("us", DURATION, start), Some(start + DURATION));
        }
        let later = start + Duration::from_secs(9);
        observed.observe(Some(lease(Some("them"), 15, "2100-01-01T00:00:00Z")), later);
        assert_eq!(
            observed.next("us", DURATION, start),
            Some(start + DURATION),
            "not renewed"
        );
        observed.observe(Some(lease(Some("them"), 15, "2100-01-01T00:00:02Z")), later);
        assert_eq!(
            observed.next("us", DURATION, start),
            Some(later + DURATION),
            "renewed"
        );
    }

    #[test]
    fn longer_duration_of_the_holder_counts() {
        let start = Instant::now();
        let mut observed = Observed::Nothing;
        observed.observe(Some(lease(Some("them"), 60, "2000-01-01T00:00:00Z")), start);
        assert_eq!(
            observed.next("us", DURATION, start),
            Some(start + Duration::from_secs(60))
        );
    }

    #[test]
    fn released_lease_is_taken_at_once() {
        let start = Instant::now();
        for holder in [None, Some("")] {
            let mut observed = Observed::Nothing;
            observed.observe(Some(lease(holder, 15, "2000-01-01T00:00:00Z")), start);
            assert_eq!(observed.next("us", DURATION, start), Some(start));
        }
    }
}
