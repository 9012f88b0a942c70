//! The content of watches and of responses to writes, and whether it is complete.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use kube::api::ObjectMeta;

use crate::cluster::agent_pods::ObservedPod;
use crate::cluster::node::{ObservedNode, PlannedNode};
use crate::cluster::profile::PlannedProfile;
use crate::cluster::state::ClusterState;
use crate::cluster::tuning::PlannedTuning;

/// The kinds of objects that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nodes.
    Node,
    /// NodeNetworkTunings.
    Tuning,
    /// NodeNetworkProfiles.
    Profile,
    /// The agents' Pods. Decisions do not wait for their list: there are other signs of unresponsive agents.
    Agent,
}

/// The progress of the list of one kind.
#[derive(Debug, Default)]
enum Listing {
    #[default]
    NotStarted,
    /// In progress; these names were listed so far.
    UnderWay(BTreeSet<Arc<str>>),
    Complete,
}

/// The content of watches and of responses to writes: a [`ClusterState`] that grows until it is complete.
#[derive(Debug, Default)]
pub struct Cache {
    world: ClusterState,
    listings: [Listing; 4],
    /// The highest resourceVersions that the watches of profiles and tunings have brought.
    latest: Latest,
}

#[derive(Debug, Default)]
struct Latest {
    tuning: u64,
    profile: u64,
}

impl Cache {
    /// The cluster's state, if every list that decisions need is complete.
    #[must_use]
    pub fn world(&self) -> Option<&ClusterState> {
        let [nodes, tunings, profiles, _] = &self.listings;
        [nodes, tunings, profiles]
            .into_iter()
            .all(|listing| matches!(listing, Listing::Complete))
            .then_some(&self.world)
    }

    /// Turns on the removal of the startup taint.
    pub fn take_startup_taints_off(&mut self) {
        self.world.startup_taint = true;
    }

    /// A list of this kind starts, for the first time or again.
    pub fn list_begins(&mut self, kind: Kind) {
        *self.listing(kind) = Listing::UnderWay(BTreeSet::new());
    }

    /// A list of this kind is complete: removes what it did not name.
    pub fn list_ends(&mut self, kind: Kind) {
        let listing = std::mem::replace(self.listing(kind), Listing::Complete);
        if let Listing::UnderWay(seen) = listing {
            match kind {
                Kind::Node => {
                    self.world.nodes.retain(|name, _| seen.contains(name));
                    self.world.refused.retain(|name, _| seen.contains(name));
                }
                Kind::Tuning => self.world.tunings.retain(|name, _| seen.contains(name)),
                Kind::Profile => self.world.profiles.retain(|name, _| seen.contains(name)),
                Kind::Agent => {
                    self.world.agents.retain(&seen);
                    self.world.agents.complete();
                }
            }
        }
    }

    /// Adds a Node from a watch.
    pub fn node(&mut self, node: &ObservedNode) {
        let name = self.seen(Kind::Node, &node.name_any());
        self.world.insert_node(name, PlannedNode::new(node));
    }

    /// Adds an agent's Pod from a watch.
    pub fn agent(&mut self, pod: &ObservedPod) {
        self.seen(Kind::Agent, &pod.name_any());
        self.world.agents.put(pod);
    }

    /// Adds a tuning from a watch, unless a newer version is known.
    pub fn tuning(&mut self, name: &str, tuning: PlannedTuning) {
        let version = &tuning.resource_version;
        self.latest.tuning = self.latest.tuning.max(number(version));
        let name = self.seen(Kind::Tuning, name);
        let known = self.world.tunings.get(&name);
        if known.is_some_and(|known| {
            known.uid == tuning.uid && number(version) < number(&known.resource_version)
        }) {
            return;
        }
        self.world.tunings.insert(name, tuning);
    }

    /// Adds a profile from a watch, unless a newer version is known.
    pub fn profile(&mut self, name: &str, profile: PlannedProfile) {
        let version = &profile.resource_version;
        self.latest.profile = self.latest.profile.max(number(version));
        let name = self.seen(Kind::Profile, name);
        let known = self.world.profiles.get(&name);
        if known.is_some_and(|known| {
            known.uid == profile.uid && number(version) < number(&known.resource_version)
        }) {
            return;
        }
        self.world.insert_profile(name, profile);
    }

    /// Adds a tuning from the response to a write, unless the watch has already brought newer content. It may
    /// have brought the deletion of the object.
    pub fn answered_tuning(&mut self, name: &str, tuning: PlannedTuning) {
        if number(&tuning.resource_version) > self.latest.tuning {
            let latest = self.latest.tuning;
            self.tuning(name, tuning);
            self.latest.tuning = latest;
        }
    }

    /// Adds a profile from the response to a write; see [`Cache::answered_tuning`].
    pub fn answered_profile(&mut self, name: &str, profile: PlannedProfile) {
        if number(&profile.resource_version) > self.latest.profile {
            let latest = self.latest.profile;
            self.profile(name, profile);
            self.latest.profile = latest;
        }
    }

    /// Remembers why a write of a node's profile was rejected; `None` if one was accepted.
    pub fn refused_profile(&mut self, node: &Arc<str>, why: Option<String>) {
        match why {
            Some(why) => self.world.refused.insert(Arc::clone(node), why.into()),
            None => self.world.refused.remove(node),
        };
    }

    /// Removes an object that a watch reports as deleted.
    pub fn gone(&mut self, kind: Kind, meta: &ObjectMeta) {
        let name = meta.name.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let version = number(meta.resource_version.as_deref().unwrap_or_default());
        match kind {
            Kind::Node => {
                self.world.nodes.remove(name);
                self.world.refused.remove(name);
            }
            Kind::Tuning => {
                self.latest.tuning = self.latest.tuning.max(version);
                if self
                    .world
                    .tunings
                    .get(name)
                    .is_some_and(|known| &*known.uid == uid)
                {
                    self.world.tunings.remove(name);
                }
            }
            Kind::Profile => {
                self.latest.profile = self.latest.profile.max(version);
                self.gone_profile(name, uid);
            }
            Kind::Agent => self.world.agents.gone(name, uid),
        }
    }

    /// Removes a profile after the response to a write: it was deleted, or is gone.
    pub fn gone_profile(&mut self, name: &str, uid: &str) {
        if self
            .world
            .profiles
            .get(name)
            .is_some_and(|known| &*known.uid == uid)
        {
            self.world.profiles.remove(name);
        }
    }

    /// Whether no tuning is left and the list is complete.
    #[must_use]
    pub fn has_lost_the_last_tuning(&self) -> bool {
        let [_, tunings, ..] = &self.listings;
        matches!(tunings, Listing::Complete) && self.world.tunings.is_empty()
    }

    /// Whether any tuning is known.
    #[must_use]
    pub fn has_tunings(&self) -> bool {
        !self.world.tunings.is_empty()
    }

    fn listing(&mut self, kind: Kind) -> &mut Listing {
        let [nodes, tunings, profiles, agents] = &mut self.listings;
        match kind {
            Kind::Agent => agents,
            Kind::Node => nodes,
            Kind::Tuning => tunings,
            Kind::Profile => profiles,
        }
    }

    fn seen(&mut self, kind: Kind, name: &str) -> Arc<str> {
        let name: Arc<str> = name.into();
        if let Listing::UnderWay(seen) = self.listing(kind) {
            seen.insert(Arc::clone(&name));
        }
        name
    }
}

/// A resourceVersion as a number, for comparisons within one resource (KEP-5504). Anything else counts as the
/// newest.
fn number(resource_version: &str) -> u64 {
    resource_version.parse().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> ObservedNode {
        let mut node = ObservedNode::default();
        node.metadata.name = Some(name.into());
        node
    }

    #[test]
    fn there_is_no_world_before_every_list_is_complete() {
        let mut watched = Cache::default();
        for kind in [Kind::Node, Kind::Tuning] {
            watched.list_begins(kind);
            watched.list_ends(kind);
            assert!(watched.world().is_none());
        }
        watched.list_begins(Kind::Profile);
        assert!(watched.world().is_none());
        watched.list_ends(Kind::Profile);
        assert!(watched.world().is_some());
    }

    #[test]
    fn a_list_that_comes_again_takes_away_what_it_does_not_name() {
        let mut watched = Cache::default();
        watched.list_begins(Kind::Node);
        watched.node(&node("a"));
        watched.node(&node("b"));
        watched.list_ends(Kind::Node);
        watched.list_begins(Kind::Node);
        watched.node(&node("b"));
        watched.list_ends(Kind::Node);
        assert_eq!(
            watched
                .world
                .nodes
                .keys()
                .map(|name| &**name)
                .collect::<Vec<_>>(),
            ["b"]
        );
    }

    #[test]
    fn a_list_that_begins_again_takes_the_world_away_until_it_ends() {
        let mut watched = Cache::default();
        for kind in [Kind::Node, Kind::Tuning, Kind::Profile] {
            watched.list_begins(kind);
            watched.list_ends(kind);
        }
        watched.list_begins(Kind::Tuning);
        assert!(watched.world().is_none());
    }

    #[test]
    fn agents_are_not_waited_for_and_a_list_that_comes_again_keeps_those_it_names() {
        let pod = |name: &str| -> ObservedPod {
            let mut pod = ObservedPod::default();
            pod.metadata.name = Some(name.into());
            pod.spec.node_name = Some(format!("node-of-{name}"));
            let ready = crate::ObservedCondition {
                type_: "Ready".into(),
                status: "True".into(),
            };
            pod.status.conditions = Some(vec![ready]);
            pod
        };
        let mut watched = Cache::default();
        for kind in [Kind::Node, Kind::Tuning, Kind::Profile] {
            watched.list_begins(kind);
            watched.list_ends(kind);
        }
        let is_ready = |watched: &Cache, node: &str| watched.world()?.agents.is_ready(node);
        watched.list_begins(Kind::Agent);
        watched.agent(&pod("a"));
        watched.agent(&pod("b"));
        assert!(watched.world().is_some());
        assert_eq!(is_ready(&watched, "node-of-a"), None);
        watched.list_ends(Kind::Agent);
        assert_eq!(is_ready(&watched, "node-of-a"), Some(true));
        watched.list_begins(Kind::Agent);
        assert_eq!(is_ready(&watched, "node-of-a"), Some(true));
        watched.agent(&pod("b"));
        watched.list_ends(Kind::Agent);
        assert_eq!(is_ready(&watched, "node-of-a"), Some(false));
        assert_eq!(is_ready(&watched, "node-of-b"), Some(true));
    }

    #[test]
    fn what_was_refused_is_forgotten_with_its_node() {
        let mut watched = Cache::default();
        let mut node = ObservedNode::default();
        node.metadata.name = Some("a".into());
        for still_there in [true, false] {
            watched.list_begins(Kind::Node);
            if still_there {
                watched.node(&node);
            }
            watched.list_ends(Kind::Node);
            if still_there {
                watched.refused_profile(&"a".into(), Some("no".to_owned()));
            }
        }
        assert!(watched.world.refused.is_empty());
    }

    fn profile(uid: &str, version: &str) -> PlannedProfile {
        let meta = ObjectMeta {
            name: Some("a".into()),
            uid: Some(uid.into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        };
        PlannedProfile::of(&meta, None, None)
    }

    fn deleted(uid: &str, version: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some("a".into()),
            uid: Some(uid.into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn an_answer_that_comes_after_the_object_is_gone_does_not_bring_it_back() {
        let mut watched = Cache::default();
        watched.profile("a", profile("1", "100"));
        watched.gone(Kind::Profile, &deleted("1", "101"));
        watched.answered_profile("a", profile("1", "100"));
        assert!(watched.world.profiles.is_empty());
    }

    #[test]
    fn an_answer_goes_into_the_world_before_the_watch_shows_it() {
        let mut watched = Cache::default();
        watched.profile("a", profile("1", "100"));
        watched.answered_profile("a", profile("1", "102"));
        watched.profile("a", profile("1", "101"));
        assert_eq!(&*watched.world.profiles["a"].resource_version, "102");
    }

    #[test]
    fn the_end_of_an_earlier_object_does_not_take_its_successor_away() {
        let mut watched = Cache::default();
        watched.answered_profile("a", profile("2", "102"));
        watched.gone(Kind::Profile, &deleted("1", "101"));
        assert!(watched.world.profiles.contains_key("a"));
    }
}
