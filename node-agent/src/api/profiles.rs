//! The profiles on the API server: how a node's own one is asked for and watched, by its name.

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

/// Watches live 25 to 50 minutes: when an API server restarts, all agents come at once, and this is
/// what spreads them.
const WATCH_LIFE: std::ops::RangeInclusive<u32> = 1500..=3000;

/// The profiles as they are: not typed, since what cannot be read is reported and must not stop the
/// watch.
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

/// The profile of a node, by a list: a get answers 404 for a profile that is gone and for a kind that
/// is gone.
pub(crate) async fn of(
    api: &Api<DynamicObject>,
    node: &str,
) -> kube::Result<Option<DynamicObject>> {
    let list = api
        .list(&ListParams::default().fields(&by_name(node)))
        .await?;
    Ok(list.items.into_iter().next())
}

/// The profile could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no way to the API server.
    #[error(transparent)]
    Client(#[from] ApiError),
    /// It did not answer with the profile.
    #[error("cannot get the profile of node {node}")]
    Get {
        /// The node.
        node: String,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// It did not answer at all.
    #[error("the API server has not answered within {} s", waited.as_secs())]
    Silent {
        /// How long it was waited for.
        waited: Duration,
    },
}

/// Asks once for the profile of a node.
///
/// # Errors
/// When the API server cannot be reached, or refuses. That there is no profile is none.
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

/// Which version of which object it is.
pub(crate) fn revision(object: &DynamicObject) -> Revision {
    Revision {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
    }
}

/// A number of seconds from the range, by the random keys of the standard library's hash maps: which
/// one it is matters to nobody, only that agents differ.
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
    fn watches_live_25_to_50_minutes_and_differ() {
        let lives: Vec<u32> = (0..100).map(|_| watch_life()).collect();
        assert!(lives.iter().all(|life| WATCH_LIFE.contains(life)));
        assert!(lives.iter().any(|life| *life != lives[0]));
    }
}
