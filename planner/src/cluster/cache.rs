//! What watches and answers to writes have brought, and the proof that it is complete.

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
    /// The agents' Pods. Nothing waits for their list: without it agents are judged by other signs.
    Agent,
}

/// How far the list of one kind has come.
#[derive(Debug, Default)]
enum Listing {
    #[default]
    NotStarted,
    /// Under way; these names have come.
    UnderWay(BTreeSet<Arc<str>>),
    Complete,
}

/// What watches and answers to writes have brought: a [`ClusterState`] that grows until it is complete.
#[derive(Debug, Default)]
pub struct Cache {
    world: ClusterState,
    listings: [Listing; 4],
    /// The highest resourceVersion that the watch of profiles and that of tunings has brought.
    latest: Latest,
}

#[derive(Debug, Default)]
struct Latest {
    tuning: u64,
    profile: u64,
}

impl Cache {
    /// The world, where every list that it is decided from is complete.
    #[must_use]
    pub fn world(&self) -> Option<&ClusterState> {
        let [nodes, tunings, profiles, _] = &self.listings;
        [nodes, tunings, profiles]
            .into_iter()
            .all(|listing| matches!(listing, Listing::Complete))
            .then_some(&self.world)
    }

    /// From now on the startup taint is taken off.
    pub fn take_startup_taints_off(&mut self) {
        self.world.startup_taint = true;
    }

    /// A list of this kind begins, for the first time or again.
    pub fn list_begins(&mut self, kind: Kind) {
        *self.listing(kind) = Listing::UnderWay(BTreeSet::new());
    }

    /// A list of this kind has come whole: what it did not name is gone.
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

    /// A watch has brought a Node.
    pub fn node(&mut self, node: &ObservedNode) {
        let name = self.seen(Kind::Node, &node.name_any());
        self.world.insert_node(name, PlannedNode::new(node));
    }

    /// A watch has brought an agent's Pod.
    pub fn agent(&mut self, pod: &ObservedPod) {
        self.seen(Kind::Agent, &pod.name_any());
        self.world.agents.put(pod);
    }

    /// A watch has brought a tuning; it stays out where a newer one is known.
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

    /// A watch has brought a profile; it stays out where a newer one is known.
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

    /// A write was answered with this tuning. What the watch has overtaken it knows better: also
    /// that the object is gone since.
    pub fn answered_tuning(&mut self, name: &str, tuning: PlannedTuning) {
        if number(&tuning.resource_version) > self.latest.tuning {
            let latest = self.latest.tuning;
            self.tuning(name, tuning);
            self.latest.tuning = latest;
        }
    }

    /// A write was answered with this profile; see [`Cache::answered_tuning`].
    pub fn answered_profile(&mut self, name: &str, profile: PlannedProfile) {
        if number(&profile.resource_version) > self.latest.profile {
            let latest = self.latest.profile;
            self.profile(name, profile);
            self.latest.profile = latest;
        }
    }

    /// A write of a node's profile was refused, and why; or one was taken.
    pub fn refused_profile(&mut self, node: &Arc<str>, why: Option<String>) {
        match why {
            Some(why) => self.world.refused.insert(Arc::clone(node), why.into()),
            None => self.world.refused.remove(node),
        };
    }

    /// A watch says that an object is gone.
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

    /// A write was answered: the profile of this uid is gone, or was deleted by it.
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

    /// Whether no tuning is left although the list of them was complete.
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

/// A resourceVersion as a number: those of one resource compare so (KEP-5504). One that is none is
/// the newest there can be, and is taken as it comes.
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
