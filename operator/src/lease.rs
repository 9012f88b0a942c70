//! Which of several operators writes: the one that holds a Lease.
//!
//! The protocol is that of client-go's `leaderelection`: the holder renews the Lease, and another one
//! takes it when it was not renewed for as long as it is good for. Times are this process's monotonic
//! clock: a candidate counts from when it saw the last renewal, never from what another machine's
//! clock has written into it. Each write carries the resourceVersion that it was decided on, so that
//! of two candidates one is refused, and so is one whose watch is late.
//!
//! A candidate watches the Lease instead of asking for it again and again: one that is given back is
//! taken at once, and waiting costs no request.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use nettune_runtime::api::in_words;
use nettune_runtime::patience::patiently;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::watch::LONGEST_PAUSE;

/// The name of the Lease.
pub const LEASE_NAME: &str = "nettune-operator";

/// How long one request may take: well below the time in which a renewal has to succeed.
const ONE_REQUEST: Duration = Duration::from_secs(3);

/// The pause after a request that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Why the operator does not hold the Lease any more.
#[derive(Debug, thiserror::Error)]
pub enum LeaseLost {
    /// The API server did not take a renewal in time.
    #[error("the Lease {LEASE_NAME} could not be renewed for {} s: {last}", within.as_secs())]
    NotRenewed {
        /// How long was tried.
        within: Duration,
        /// What came of the last try.
        last: String,
    },
    /// Somebody else holds it.
    #[error("the Lease {LEASE_NAME} was taken by {holder}")]
    Taken {
        /// Who.
        holder: String,
    },
    /// It was deleted: whoever makes it anew holds it.
    #[error("the Lease {LEASE_NAME} was deleted")]
    Deleted,
    /// The watch on it ended, which it never should.
    #[error("the watch of the Lease {LEASE_NAME} has ended")]
    WatchEnded,
}

/// Until when this process may write; `None` while another one does.
pub type MayWrite = Option<Instant>;

/// One of several operators, of which one at a time writes.
pub struct Candidate {
    leases: Api<Lease>,
    identity: String,
    good_for: Duration,
}

impl Candidate {
    /// A candidate for the Lease in a namespace. `identity` has to be another one for each process.
    /// A holder that has not renewed the Lease for `good_for` has lost it.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String, good_for: Duration) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            identity,
            good_for,
        }
    }

    /// How long the holder tries to renew before it stops writing: two thirds, as client-go has it, so
    /// that it has stopped when another one may begin.
    fn renew_within(&self) -> Duration {
        self.good_for * 2 / 3
    }

    /// How often the holder renews: client-go's 2 s of 15 s.
    fn renew_every(&self) -> Duration {
        self.good_for * 2 / 15
    }

    /// Waits for the Lease, holds it, and gives it back when `stop` is dropped.
    ///
    /// # Errors
    /// When it was held and is lost: the process has to end, since its writes may still be under way.
    pub(crate) async fn run(
        self,
        may_write: watch::Sender<MayWrite>,
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
            lost = self.hold(&mut lease, sent, &may_write) => Err(lost),
        };
        may_write.send_replace(None);
        match held {
            Ok(()) => {
                self.release(lease).await;
                Ok(())
            }
            Err(lost) => Err(lost),
        }
    }

    /// Waits until the Lease is taken. The instant is from before the request: others count from when
    /// they saw the Lease change, which may be before the answer is here.
    async fn acquire(&self) -> Result<(Lease, Instant), LeaseLost> {
        let watched = patiently(watch_object(self.leases.clone(), LEASE_NAME), LONGEST_PAUSE);
        let mut watched = std::pin::pin!(watched);
        let mut seen = Seen::Nothing;
        let mut not_before = Instant::now();
        let mut told = None;
        loop {
            let next = seen.next(&self.identity, self.good_for, Instant::now());
            if let Some(holder) = seen.holder().filter(|holder| told.as_ref() != Some(holder)) {
                info!(holder, "another operator leads; waiting for its Lease");
                told = Some(holder);
            }
            let take_at = next.map(|at| at.max(not_before));
            tokio::select! {
                event = futures::StreamExt::next(&mut watched) => match event {
                    Some(Ok(lease)) => seen.see(lease, Instant::now()),
                    Some(Err(error)) => {
                        warn!(error = in_words(&error), lease = LEASE_NAME, "cannot watch the Lease; trying again");
                    }
                    None => return Err(LeaseLost::WatchEnded),
                },
                () = sleep_until(take_at.unwrap_or_else(Instant::now).into()), if take_at.is_some() => {
                    let sent = Instant::now();
                    match timeout(ONE_REQUEST, self.take(&seen)).await {
                        Ok(Ok(lease)) => return Ok((lease, sent)),
                        Ok(Err(error)) if is_conflict(&error) => {
                            debug!(lease = LEASE_NAME, "another operator was faster");
                            // The watch may be late; what is there now was seen now.
                            if let Ok(Ok(lease)) = timeout(ONE_REQUEST, self.leases.get_opt(LEASE_NAME)).await {
                                seen.see(lease, Instant::now());
                            }
                        }
                        Ok(Err(error)) => warn!(error = in_words(&error), lease = LEASE_NAME, "cannot take the Lease; trying again"),
                        Err(_) => warn!(lease = LEASE_NAME, "cannot take the Lease: no answer; trying again"),
                    }
                    not_before = Instant::now() + PAUSE;
                }
            }
        }
    }

    async fn take(&self, seen: &Seen) -> kube::Result<Lease> {
        let Seen::Lease { lease, .. } = seen else {
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

    /// Renews until it is lost, and says why.
    async fn hold(
        &self,
        lease: &mut Lease,
        sent: Instant,
        may_write: &watch::Sender<MayWrite>,
    ) -> LeaseLost {
        let mut until = sent + self.renew_within();
        let mut next = sent + self.renew_every();
        may_write.send_replace(Some(until));
        loop {
            sleep_until(next.min(until).into()).await;
            let sent = Instant::now();
            let patience = until.saturating_duration_since(sent).min(ONE_REQUEST);
            let renewed = timeout(patience, self.renew(lease)).await;
            let last = match renewed {
                Ok(Ok(())) => {
                    until = sent + self.renew_within();
                    next = sent + self.renew_every();
                    may_write.send_replace(Some(until));
                    continue;
                }
                Ok(Err(Renewal::Lost(lost))) => return lost,
                Ok(Err(Renewal::Failed(error))) => in_words(&error),
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() >= until {
                let within = self.renew_within();
                return LeaseLost::NotRenewed { within, last };
            }
            warn!(
                error = last,
                lease = LEASE_NAME,
                "not renewed; trying again"
            );
            next = Instant::now() + PAUSE.min(self.renew_every());
        }
    }

    async fn renew(&self, lease: &mut Lease) -> Result<(), Renewal> {
        loop {
            match self.write(lease, self.spec(lease.spec.as_ref())).await {
                Ok(renewed) => {
                    *lease = renewed;
                    return Ok(());
                }
                // An earlier renewal whose answer was lost, or somebody put a label on it.
                Err(error) if is_conflict(&error) => {
                    let there = self.leases.get_opt(LEASE_NAME).await?;
                    let there = there.ok_or(Renewal::Lost(LeaseLost::Deleted))?;
                    match holder(&there) {
                        Some(holder) if holder == self.identity => *lease = there,
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

    /// Gives the Lease back, so that the next one need not wait. Best effort: it ends by itself.
    async fn release(&self, lease: Lease) {
        let previous = lease.spec.clone().unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: None,
            renew_time: Some(MicroTime(Timestamp::now())),
            lease_transitions: previous.lease_transitions,
            ..LeaseSpec::default()
        };
        match self.write(&lease, spec).await {
            Ok(_) => info!("the Lease is given back"),
            Err(error) => {
                warn!(
                    error = in_words(&error),
                    lease = LEASE_NAME,
                    "the Lease was not given back"
                );
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

    /// The spec of a Lease that this candidate holds. The times are for people who look at it.
    fn spec(&self, previous: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = previous.filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = previous.and_then(|spec| spec.lease_transitions);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.good_for.as_secs()).ok(),
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

/// Why a renewal did not succeed.
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

/// What a candidate knows of the Lease.
#[derive(Debug)]
enum Seen {
    /// Nothing yet: not even whether there is one.
    Nothing,
    /// There is none.
    None,
    /// It is there.
    Lease {
        lease: Box<Lease>,
        /// When it was first seen like this.
        since: Instant,
    },
}

impl Seen {
    /// Takes a look. One that shows nothing new says nothing about the holder.
    fn see(&mut self, lease: Option<Lease>, now: Instant) {
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

    /// From when on the Lease may be taken; `None`: not before something is seen.
    fn next(&self, identity: &str, good_for: Duration, now: Instant) -> Option<Instant> {
        match self {
            Self::Nothing => None,
            Self::None => Some(now),
            Self::Lease { lease, since } => {
                let holder = holder(lease).filter(|holder| *holder != identity);
                // The holder may have been started with another length.
                let theirs = lease
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.lease_duration_seconds);
                let theirs = u64::try_from(theirs.unwrap_or(0)).unwrap_or(0);
                let wait = good_for.max(Duration::from_secs(theirs));
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

    const GOOD_FOR: Duration = Duration::from_secs(15);

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
    fn nothing_is_taken_before_it_is_known_whether_there_is_a_lease() {
        let start = Instant::now();
        assert_eq!(Seen::Nothing.next("us", GOOD_FOR, start), None);
        assert_eq!(Seen::None.next("us", GOOD_FOR, start), Some(start));
    }

    #[test]
    fn anothers_lease_is_waited_for_from_when_its_last_renewal_was_seen() {
        let start = Instant::now();
        let mut seen = Seen::Nothing;
        // By its own clock it has ended an hour ago, or begins in an hour: that is not compared.
        for renewed in ["2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"] {
            seen.see(Some(lease(Some("them"), 15, renewed)), start);
            assert_eq!(seen.next("us", GOOD_FOR, start), Some(start + GOOD_FOR));
        }
        let later = start + Duration::from_secs(9);
        seen.see(Some(lease(Some("them"), 15, "2100-01-01T00:00:00Z")), later);
        assert_eq!(
            seen.next("us", GOOD_FOR, start),
            Some(start + GOOD_FOR),
            "not renewed"
        );
        seen.see(Some(lease(Some("them"), 15, "2100-01-01T00:00:02Z")), later);
        assert_eq!(
            seen.next("us", GOOD_FOR, start),
            Some(later + GOOD_FOR),
            "renewed"
        );
    }

    #[test]
    fn a_holder_with_a_longer_lease_gets_its_time() {
        let start = Instant::now();
        let mut seen = Seen::Nothing;
        seen.see(Some(lease(Some("them"), 60, "2000-01-01T00:00:00Z")), start);
        assert_eq!(
            seen.next("us", GOOD_FOR, start),
            Some(start + Duration::from_secs(60))
        );
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let start = Instant::now();
        for holder in [None, Some("")] {
            let mut seen = Seen::Nothing;
            seen.see(Some(lease(holder, 15, "2000-01-01T00:00:00Z")), start);
            assert_eq!(seen.next("us", GOOD_FOR, start), Some(start));
        }
    }
}
