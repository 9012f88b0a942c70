//! How a node's profile is requested and watched, by its name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::runtime::watcher;
use nettune_crds::NodeNetworkProfile;
use nettune_runtime::api;
use nettune_runtime::connector::ApiError;
use serde_json::Value;

use crate::agent::ProfileUpdate;
use nettune_reconcile::desired::{Revision, Source};

/// Watches last 25 to 50 minutes: when an API server restarts, all agents reconnect at once, and this
/// spreads them.
const WATCH_LIFE: std::ops::RangeInclusive<u32> = 1500..=3000;

/// Untyped: a profile that cannot be read is reported and must not stop the watch.
fn all(client: Client) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<NodeNetworkProfile>(&());
    Api::all_with(client, &resource)
}

pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Api<DynamicObject>, ApiError> {
    api::client(kubeconfig).await.map(all)
}

fn by_name(node: &str) -> String {
    format!("metadata.name={node}")
}

/// The watch of a node's profile.
pub(crate) fn watch_of(node: &str) -> watcher::Config {
    watcher::Config::default()
        .fields(&by_name(node))
        .timeout(watch_life())
}

/// The profile of a node, by a list: a get returns 404 both for a missing profile and a missing kind.
pub(crate) async fn of(
    api: &Api<DynamicObject>,
    node: &str,
) -> kube::Result<Option<DynamicObject>> {
    let list = api
        .list(&ListParams::default().fields(&by_name(node)))
        .await?;
    Ok(list.items.into_iter().next())
}

/// The profile could not be requested.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Client(#[from] ApiError),
    #[error("cannot get the profile of node {node}")]
    Get {
        node: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("the API server did not answer within {} s", waited.as_secs())]
    Silent { waited: Duration },
}

/// Asks once for the profile of a node.
///
/// # Errors
/// When the API server is unreachable or rejects the request. A missing profile is not an error.
pub async fn fetch(kubeconfig: Option<&Path>, node: &str) -> Result<ProfileUpdate, FetchError> {
    let api = connect(kubeconfig).await?;
    let found = of(&api, node).await.map_err(|source| FetchError::Get {
        node: node.to_owned(),
        source: Box::new(source),
    })?;
    Ok(found.map_or(ProfileUpdate::NoProfile, |object| {
        ProfileUpdate::Profile(Arc::new(source(&object)))
    }))
}

pub(crate) fn source(object: &DynamicObject) -> Source {
    Source {
        revision: revision(object),
        spec: object.data.get("spec").cloned().unwrap_or(Value::Null),
    }
}

pub(crate) fn revision(object: &DynamicObject) -> Revision {
    Revision {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
    }
}

/// A random number of seconds from the range, so that agents differ; from the random keys of the
/// standard library's hash maps.
fn watch_life() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0);
    let width = u64::from(WATCH_LIFE.end() - WATCH_LIFE.start() + 1);
    WATCH_LIFE.start() + u32::try_from(random % width).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_last_25_to_50_minutes_and_differ() {
        let lives: Vec<u32> = (0..100).map(|_| watch_life()).collect();
        assert!(lives.iter().all(|life| WATCH_LIFE.contains(life)));
        assert!(lives.iter().any(|life| *life != lives[0]));
    }
}
