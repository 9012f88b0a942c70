//! Publishes what is worth telling of tunings and Nodes, as Events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Resource};
use nettune_crds::NodeNetworkTuning;
use nettune_planner::Announcement;
use nettune_runtime::api::in_words;
use tracing::debug;

/// An Event that cannot be published within this is dropped: the status says it too.
const DEADLINE: Duration = Duration::from_secs(5);

/// One reason is told of one tuning at most this often: a status that flaps must not fill the API
/// server with Events.
const INTERVAL: Duration = Duration::from_secs(10);

/// Events about cluster-scoped objects live here.
const NAMESPACE: &str = "default";

/// Bytes that the API takes as a note.
const NOTE_MAX: usize = 1024;

/// Publishes Events. Not by kube's recorder: it counts an Event of the same reason up and keeps its
/// first note, but a new size and a new list of failed nodes are new notes.
pub(crate) struct Announcer {
    client: Client,
    instance: String,
    told: HashMap<(Arc<str>, &'static str), Instant>,
}

impl Announcer {
    pub(crate) fn new(client: Client) -> Self {
        let instance = std::env::var("POD_NAME").unwrap_or_else(|_| "nettune-operator".to_owned());
        Self {
            client,
            instance,
            told: HashMap::new(),
        }
    }

    /// Publishes beside the main loop: nothing waits for an Event.
    pub(crate) fn announce(&mut self, tuning: &Arc<str>, uid: &str, told: Vec<Announcement>) {
        let now = Instant::now();
        self.told.retain(|_, last| now < *last + INTERVAL);
        for announcement in told {
            let key = (Arc::clone(tuning), announcement.reason);
            if self.told.contains_key(&key) {
                continue;
            }
            self.told.insert(key, now);
            let regarding = reference::<NodeNetworkTuning>(tuning, uid);
            self.publish(regarding, "Sizing", announcement);
        }
    }

    /// Publishes what was found on a Node. How often is the caller's business.
    pub(crate) fn announce_on_node(&self, node: &str, uid: &str, announcement: Announcement) {
        self.publish(reference::<Node>(node, uid), "Watching", announcement);
    }

    fn publish(&self, regarding: ObjectReference, action: &str, announcement: Announcement) {
        let event = event(regarding, action, &self.instance, announcement);
        let events: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        tokio::spawn(async move {
            let params = PostParams::default();
            let created = events.create(&params, &event);
            match tokio::time::timeout(DEADLINE, created).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => debug!(error = in_words(&error), "event not published"),
                Err(_) => debug!("event not published in time"),
            }
        });
    }
}

fn reference<K: Resource<DynamicType = ()>>(name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

fn event(
    regarding: ObjectReference,
    action: &str,
    instance: &str,
    announcement: Announcement,
) -> Event {
    let type_ = if announcement.warning {
        "Warning"
    } else {
        "Normal"
    };
    let mut note = announcement.note;
    let mut fits = (0..=NOTE_MAX.min(note.len())).rev();
    let end = fits.find(|end| note.is_char_boundary(*end));
    note.truncate(end.unwrap_or(0));
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!(
                "{}-",
                regarding.name.as_deref().unwrap_or_default()
            )),
            ..ObjectMeta::default()
        },
        action: Some(action.to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        note: Some(note),
        reason: Some(announcement.reason.to_owned()),
        regarding: Some(regarding),
        reporting_controller: Some("nettune.dev/operator".to_owned()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(type_.to_owned()),
        ..Event::default()
    }
}
