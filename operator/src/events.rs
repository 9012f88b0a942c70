//! Publishes what a change of a tuning's status is worth telling, as Events.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use nettune_crds::NodeNetworkTuning;
use nettune_daemon::error::chain;
use nettune_planner::Announcement;
use tracing::debug;

/// An Event that cannot be published within this is dropped: the status says it too.
const DEADLINE: Duration = Duration::from_secs(5);

/// Publishes Events; equal ones are counted up by the recorder.
#[derive(Clone)]
pub(crate) struct Announcer(Recorder);

impl Announcer {
    pub(crate) fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: "nettune.dev/operator".to_owned(),
            instance: std::env::var("POD_NAME").ok(),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Publishes one after the other, beside the main loop: nothing waits for an Event.
    pub(crate) fn announce(&self, tuning: &Arc<str>, uid: &Arc<str>, told: Vec<Announcement>) {
        if told.is_empty() {
            return;
        }
        let recorder = self.0.clone();
        let regarding = ObjectReference {
            api_version: Some(NodeNetworkTuning::api_version(&()).into_owned()),
            kind: Some(NodeNetworkTuning::kind(&()).into_owned()),
            name: Some(tuning.to_string()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        };
        tokio::spawn(async move {
            for announcement in told {
                let event = event(announcement);
                let published = recorder.publish(&event, &regarding);
                match tokio::time::timeout(DEADLINE, published).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(error = chain(&error), "event not published"),
                    Err(_) => debug!("event not published in time"),
                }
            }
        });
    }
}

fn event(announcement: Announcement) -> Event {
    Event {
        type_: if announcement.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: announcement.reason.to_owned(),
        // The API takes at most 1024 bytes.
        note: Some(announcement.note.chars().take(1000).collect()),
        action: "Sizing".to_owned(),
        secondary: None,
    }
}
