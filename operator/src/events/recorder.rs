//! Publishes Events, at a limited rate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Resource};
use nettune_crds::NodeNetworkTuning;
use nettune_planner::{Announcement, ClusterState};
use nettune_runtime::api::in_words;
use tokio::time::Instant;
use tracing::debug;

/// An Event that cannot be published within this is dropped: the status has it too.
const DEADLINE: Duration = Duration::from_secs(5);

/// Events that may follow each other without a pause.
const BURST: u32 = 25;

/// The time between two Events after that.
const INTERVAL: Duration = Duration::from_secs(5);

/// How often Events that were over the limit are summarized.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// The namespace of Events about cluster-scoped objects.
const NAMESPACE: &str = "default";

/// The longest note that the API accepts, in bytes.
const NOTE_MAX: usize = 1024;

/// An Event about one node.
#[derive(Debug)]
pub(crate) struct NodeEvent {
    pub(crate) node: Arc<str>,
    pub(crate) uid: Arc<str>,
    /// The tuning that counts the Event if it is over the limit.
    pub(crate) tuning: Arc<str>,
    pub(crate) announcement: Announcement,
}

/// Publishes Events in the background. Not kube's recorder, which merges Events of the same reason and
/// keeps the first note: a new size or another list of failed nodes is a new note.
pub(crate) struct EventRecorder {
    client: Client,
    instance: String,
    on_tunings: TokenBucket,
    on_nodes: TokenBucket,
    summary: Summary,
}

impl EventRecorder {
    pub(crate) fn new(client: Client) -> Self {
        let now = Instant::now();
        Self {
            client,
            instance: std::env::var("POD_NAME").unwrap_or_else(|_| "nettune-operator".to_owned()),
            on_tunings: TokenBucket::full(now),
            on_nodes: TokenBucket::full(now),
            summary: Summary::new(now),
        }
    }

    /// Publishes an Event about a tuning. Drops it over the limit: the tuning's status has it too.
    pub(crate) fn on_tuning(&mut self, tuning: &str, uid: &str, announcement: Announcement) {
        if self.on_tunings.take(Instant::now()) {
            self.publish::<NodeNetworkTuning>(tuning, uid, "Sizing", announcement);
        }
    }

    /// Publishes an Event about a node. Over the limit it is counted for the summary on its tuning.
    pub(crate) fn on_node(&mut self, event: NodeEvent) {
        if self.on_nodes.take(Instant::now()) {
            self.publish::<Node>(&event.node, &event.uid, "Watching", event.announcement);
        } else {
            self.summary.count(&event);
        }
    }

    /// Publishes what was over the limit, once a minute: one Event on each tuning that still exists.
    pub(crate) fn summarize(&mut self, cluster: &ClusterState) {
        for (tuning, announcement) in self.summary.take(Instant::now()) {
            if let Some(uid) = cluster.tuning_uid(&tuning) {
                self.publish::<NodeNetworkTuning>(&tuning, uid, "Watching", announcement);
            }
        }
    }

    fn publish<K: Resource<DynamicType = ()>>(
        &self,
        name: &str,
        uid: &str,
        action: &str,
        announcement: Announcement,
    ) {
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                ..ObjectMeta::default()
            },
            action: Some(action.to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(truncated(announcement.note)),
            reason: Some(announcement.reason.to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: Some(name.to_owned()),
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some("nettune.dev/operator".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(
                if announcement.warning {
                    "Warning"
                } else {
                    "Normal"
                }
                .to_owned(),
            ),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        tokio::spawn(async move {
            let params = PostParams::default();
            match tokio::time::timeout(DEADLINE, events.create(&params, &event)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => debug!(error = in_words(&error), "cannot publish an event"),
                Err(_) => debug!("cannot publish an event: no answer in time"),
            }
        });
    }
}

fn truncated(mut note: String) -> String {
    let mut ends = (0..=NOTE_MAX.min(note.len())).rev();
    let end = ends.find(|end| note.is_char_boundary(*end));
    note.truncate(end.unwrap_or(0));
    note
}

/// [`BURST`] tokens, and one more each [`INTERVAL`].
struct TokenBucket {
    tokens: u32,
    filled: Instant,
}

impl TokenBucket {
    fn full(now: Instant) -> Self {
        Self {
            tokens: BURST,
            filled: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled);
        let new = u32::try_from(since.as_secs() / INTERVAL.as_secs()).unwrap_or(u32::MAX);
        self.filled += INTERVAL.saturating_mul(new);
        self.tokens = self.tokens.saturating_add(new).min(BURST);
        let taken = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        taken
    }
}

/// Events over the limit.
struct Summary {
    /// How many, by tuning, reason, and whether they are warnings.
    counts: BTreeMap<(Arc<str>, &'static str, bool), u32>,
    taken: Instant,
}

impl Summary {
    fn new(now: Instant) -> Self {
        Self {
            counts: BTreeMap::new(),
            taken: now,
        }
    }

    fn count(&mut self, event: &NodeEvent) {
        let Announcement {
            reason, warning, ..
        } = event.announcement;
        let key = (Arc::clone(&event.tuning), reason, warning);
        *self.counts.entry(key).or_default() += 1;
    }

    fn take(&mut self, now: Instant) -> Vec<(Arc<str>, Announcement)> {
        if self.counts.is_empty() || now < self.taken + SUMMARY_INTERVAL {
            return Vec::new();
        }
        self.taken = now;
        let counts = std::mem::take(&mut self.counts).into_iter();
        let announcements = counts.map(|((tuning, reason, warning), count)| {
            let nodes = if count == 1 { "node" } else { "nodes" };
            let note = format!("{count} more {nodes}; list them with: kubectl get nnp -o wide");
            let announcement = Announcement {
                warning,
                reason,
                note,
            };
            (tuning, announcement)
        });
        announcements.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_allows_a_burst_then_one_event_per_interval() {
        let now = Instant::now();
        let mut bucket = TokenBucket::full(now);
        let mut taken = |now| {
            std::iter::repeat_with(|| bucket.take(now))
                .take_while(|taken| *taken)
                .count()
        };
        assert_eq!(taken(now), 25);
        assert_eq!(taken(now + INTERVAL * 2), 2);
        assert_eq!(taken(now + INTERVAL * 2), 0);
        assert_eq!(taken(now + INTERVAL * 1000), 25);
    }

    #[test]
    fn events_over_the_limit_become_one_event_with_a_count() {
        let now = Instant::now();
        let mut summary = Summary::new(now);
        for index in 0..4975 {
            summary.count(&NodeEvent {
                node: format!("node-{index}").into(),
                uid: "".into(),
                tuning: "default".into(),
                announcement: Announcement {
                    warning: true,
                    reason: "NeighborPressure",
                    note: String::new(),
                },
            });
        }
        assert_eq!(summary.take(now), []);
        let note = "4975 more nodes; list them with: kubectl get nnp -o wide".to_owned();
        let announcement = Announcement {
            warning: true,
            reason: "NeighborPressure",
            note,
        };
        let later = now + SUMMARY_INTERVAL;
        assert_eq!(summary.take(later), [("default".into(), announcement)]);
        assert_eq!(summary.take(later + SUMMARY_INTERVAL), []);
    }

    #[test]
    fn long_note_is_cut_at_a_character() {
        assert_eq!(truncated("ä".repeat(600)).len(), NOTE_MAX);
        assert_eq!(
            truncated(format!("a{}", "ä".repeat(600))).len(),
            NOTE_MAX - 1
        );
        assert_eq!(truncated("short".to_owned()), "short");
    }
}
