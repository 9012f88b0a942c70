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

/// The kinds of objects that are cache.
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
    state: ClusterState,
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
    pub fn state(&self) -> Option<&ClusterState> {
        let [nodes, tunings, profiles, _] = &self.listings;
        [nodes, tunings, profiles]
            .into_iter()
            .all(|listing| matches!(listing, Listing::Complete))
            .then_some(&self.state)
    }

    /// Turns on the removal of the startup taint.
    pub fn take_startup_taints_off(&mut self) {
        self.state.startup_taint = true;
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
                    self.state.nodes.retain(|name, _| seen.contains(name));
                    self.state.refused.retain(|name, _| seen.contains(name));
                }
                Kind::Tuning => self.state.tunings.retain(|name, _| seen.contains(name)),
                Kind::Profile => self.state.profiles.retain(|name, _| seen.contains(name)),
                Kind::Agent => {
                    self.state.agents.retain(&seen);
                    self.state.agents.complete();
                }
            }
        }
    }

    /// Adds a Node from a watch.
    pub fn node(&mut self, node: &ObservedNode) {
        let name = self.seen(Kind::Node, &node.name_any());
        self.state.insert_node(name, PlannedNode::new(node));
    }

    /// Adds an agent's Pod from a watch.
    pub fn agent(&mut self, pod: &ObservedPod) {
        self.seen(Kind::Agent, &pod.name_any());
        self.state.agents.put(pod);
    }

    /// Adds a tuning from a watch, unless a newer version is known.
    pub fn tuning(&mut self, name: &str, tuning: PlannedTuning) {
        let version = &tuning.resource_version;
        self.latest.tuning = self.latest.tuning.max(number(version));
        let name = self.seen(Kind::Tuning, name);
        let known = self.state.tunings.get(&name);
        if known.is_some_and(|known| {
            known.uid == tuning.uid && number(version) < number(&known.resource_version)
        }) {
            return;
        }
        self.state.tunings.insert(name, tuning);
    }

    /// Adds a profile from a watch, unless a newer version is known.
    pub fn profile(&mut self, name: &str, profile: PlannedProfile) {
        let version = &profile.resource_version;
        self.latest.profile = self.latest.profile.max(number(version));
        let name = self.seen(Kind::Profile, name);
        let known = self.state.profiles.get(&name);
        if known.is_some_and(|known| {
            known.uid == profile.uid && number(version) < number(&known.resource_version)
        }) {
            return;
        }
        self.state.insert_profile(name, profile);
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
            Some(why) => self.state.refused.insert(Arc::clone(node), why.into()),
            None => self.state.refused.remove(node),
        };
    }

    /// Removes an object that a watch reports as deleted.
    pub fn gone(&mut self, kind: Kind, meta: &ObjectMeta) {
        let name = meta.name.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let version = number(meta.resource_version.as_deref().unwrap_or_default());
        match kind {
            Kind::Node => {
                self.state.nodes.remove(name);
                self.state.refused.remove(name);
            }
            Kind::Tuning => {
                self.latest.tuning = self.latest.tuning.max(version);
                if self
                    .state
                    .tunings
                    .get(name)
                    .is_some_and(|known| &*known.uid == uid)
                {
                    self.state.tunings.remove(name);
                }
            }
            Kind::Profile => {
                self.latest.profile = self.latest.profile.max(version);
                self.gone_profile(name, uid);
            }
            Kind::Agent => self.state.agents.gone(name, uid),
        }
    }

    /// Removes a profile after the response to a write: it was deleted, or is gone.
    pub fn gone_profile(&mut self, name: &str, uid: &str) {
        if self
            .state
            .profiles
            .get(name)
            .is_some_and(|known| &*known.uid == uid)
        {
            self.state.profiles.remove(name);
        }
    }

    /// Whether no tuning is left and the list is complete.
    #[must_use]
    pub fn has_lost_the_last_tuning(&self) -> bool {
        let [_, tunings, ..] = &self.listings;
        matches!(tunings, Listing::Complete) && self.state.tunings.is_empty()
    }

    /// Whether any tuning is known.
    #[must_use]
    pub fn has_tunings(&self) -> bool {
        !self.state.tunings.is_empty()
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
        let mut cache = Cache::default();
        for kind in [Kind::Node, Kind::Tuning] {
            cache.list_begins(kind);
            cache.list_ends(kind);
            assert!(cache.state().is_none());
        }
        cache.list_begins(Kind::Profile);
        assert!(cache.state().is_none());
        cache.list_ends(Kind::Profile);
        assert!(cache.state().is_some());
    }

    #[test]
    fn a_list_that_comes_again_takes_away_what_it_does_not_name() {
        let mut cache = Cache::default();
        cache.list_begins(Kind::Node);
        cache.node(&node("a"));
        cache.node(&node("b"));
        cache.list_ends(Kind::Node);
        cache.list_begins(Kind::Node);
        cache.node(&node("b"));
        cache.list_ends(Kind::Node);
        assert_eq!(
            cache
                .state
                .nodes
                .keys()
                .map(|name| &**name)
                .collect::<Vec<_>>(),
            ["b"]
        );
    }

    #[test]
    fn a_list_that_begins_again_takes_the_world_away_until_it_ends() {
        let mut cache = Cache::default();
        for kind in [Kind::Node, Kind::Tuning, Kind::Profile] {
            cache.list_begins(kind);
            cache.list_ends(kind);
        }
        cache.list_begins(Kind::Tuning);
        assert!(cache.state().is_none());
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
        let mut cache = Cache::default();
        for kind in [Kind::Node, Kind::Tuning, Kind::Profile] {
            cache.list_begins(kind);
            cache.list_ends(kind);
        }
        let is_ready = |cache: &Cache, node: &str| cache.state()?.agents.is_ready(node);
        cache.list_begins(Kind::Agent);
        cache.agent(&pod("a"));
        cache.agent(&pod("b"));
        assert!(cache.state().is_some());
        assert_eq!(is_ready(&cache, "node-of-a"), None);
        cache.list_ends(Kind::Agent);
        assert_eq!(is_ready(&cache, "node-of-a"), Some(true));
        cache.list_begins(Kind::Agent);
        assert_eq!(is_ready(&cache, "node-of-a"), Some(true));
        cache.agent(&pod("b"));
        cache.list_ends(Kind::Agent);
        assert_eq!(is_ready(&cache, "node-of-a"), Some(false));
        assert_eq!(is_ready(&cache, "node-of-b"), Some(true));
    }

    #[test]
    fn what_was_refused_is_forgotten_with_its_node() {
        let mut cache = Cache::default();
        let mut node = ObservedNode::default();
        node.metadata.name = Some("a".into());
        for still_there in [true, false] {
            cache.list_begins(Kind::Node);
            if still_there {
                cache.node(&node);
            }
            cache.list_ends(Kind::Node);
            if still_there {
                cache.refused_profile(&"a".into(), Some("no".to_owned()));
            }
        }
        assert!(cache.state.refused.is_empty());
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
        let mut cache = Cache::default();
        cache.profile("a", profile("1", "100"));
        cache.gone(Kind::Profile, &deleted("1", "101"));
        cache.answered_profile("a", profile("1", "100"));
        assert!(cache.state.profiles.is_empty());
    }

    #[test]
    fn an_answer_goes_into_the_world_before_the_watch_shows_it() {
        let mut cache = Cache::default();
        cache.profile("a", profile("1", "100"));
        cache.answered_profile("a", profile("1", "102"));
        cache.profile("a", profile("1", "101"));
        assert_eq!(&*cache.state.profiles["a"].resource_version, "102");
    }

    #[test]
    fn the_end_of_an_earlier_object_does_not_take_its_successor_away() {
        let mut cache = Cache::default();
        cache.answered_profile("a", profile("2", "102"));
        cache.gone(Kind::Profile, &deleted("1", "101"));
        assert!(cache.state.profiles.contains_key("a"));
    }
}
