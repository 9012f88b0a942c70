//! Everything that is known of the cluster, and the proof that it is complete.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use nettune_crds::conditions::{self, DRIFTED, READY, RELEASED, reasons};
use nettune_crds::{
    InvalidTuning, Mode, NodeLabels, NodeNetworkProfile, NodeNetworkProfileSpec,
    NodeNetworkProfileStatus, NodeNetworkTuning, NodeNetworkTuningSpec, NodeNetworkTuningStatus,
    ProfileFacts, ReleasePolicy,
};
use nettune_sizing::Policy;

use crate::{ObservedNode, PlannedNode};

/// The whole cluster at one moment: Nodes, tunings and profiles by name.
///
/// A `&World` can only be had from [`Watched::world`] when all three lists are complete, or from
/// [`World::of`] that takes them whole: deciding from half a list would release what is merely not
/// listed yet.
#[derive(Debug, Default)]
pub struct World {
    pub(crate) nodes: BTreeMap<Arc<str>, PlannedNode>,
    pub(crate) tunings: BTreeMap<Arc<str>, PlannedTuning>,
    pub(crate) profiles: BTreeMap<Arc<str>, PlannedProfile>,
    specs: SharedSpecs,
}

impl World {
    /// A world from whole lists.
    #[must_use]
    pub fn of<'a>(
        nodes: impl IntoIterator<Item = &'a ObservedNode>,
        tunings: impl IntoIterator<Item = &'a NodeNetworkTuning>,
        profiles: impl IntoIterator<Item = &'a NodeNetworkProfile>,
    ) -> Self {
        let mut world = Self {
            nodes: nodes
                .into_iter()
                .map(|node| (name(&node.metadata), PlannedNode::new(node)))
                .collect(),
            tunings: tunings
                .into_iter()
                .map(|tuning| (name(&tuning.metadata), PlannedTuning::new(tuning)))
                .collect(),
            ..Self::default()
        };
        for profile in profiles {
            world.insert_profile(name(&profile.metadata), PlannedProfile::new(profile));
        }
        world
    }

    fn insert_profile(&mut self, name: Arc<str>, mut profile: PlannedProfile) {
        profile.behaviour = profile.behaviour.map(|spec| self.specs.share(spec));
        self.profiles.insert(name, profile);
    }

    /// How many tunings there are.
    #[must_use]
    pub fn tunings(&self) -> usize {
        self.tunings.len()
    }

    /// How many Nodes there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }
}

fn name(meta: &ObjectMeta) -> Arc<str> {
    meta.name.as_deref().unwrap_or_default().into()
}

/// A tuning in the [`World`].
#[derive(Debug)]
pub struct PlannedTuning {
    pub(crate) uid: Arc<str>,
    pub(crate) generation: Option<i64>,
    pub(crate) resource_version: Arc<str>,
    pub(crate) created: Option<Timestamp>,
    pub(crate) content: TuningContent,
    pub(crate) status: NodeNetworkTuningStatus,
}

/// What a tuning says, or why it cannot be used.
#[derive(Debug)]
pub enum TuningContent {
    /// Valid.
    Usable(Box<UsableTuning>),
    /// An older schema let it in, or it cannot be read: its nodes stay as they are.
    Unusable(String),
}

/// A valid tuning.
#[derive(Debug)]
pub struct UsableTuning {
    pub(crate) policy: Policy,
    pub(crate) selector: NodeLabels,
    pub(crate) priority: i32,
    pub(crate) mode: Mode,
    pub(crate) release_policy: ReleasePolicy,
}

impl PlannedTuning {
    /// Takes a tuning that could be read.
    #[must_use]
    pub fn new(tuning: &NodeNetworkTuning) -> Self {
        let content = match usable(&tuning.spec) {
            Ok(content) => TuningContent::Usable(Box::new(content)),
            Err(error) => TuningContent::Unusable(error.sentence()),
        };
        let status = tuning.status.clone().unwrap_or_default();
        Self::with(&tuning.metadata, content, status)
    }

    /// Takes one that could not be read: what is known is its metadata.
    #[must_use]
    pub fn unreadable(meta: &ObjectMeta, error: &str) -> Self {
        let content = TuningContent::Unusable(format!("the object cannot be read: {error}"));
        Self::with(meta, content, NodeNetworkTuningStatus::default())
    }

    fn with(meta: &ObjectMeta, content: TuningContent, status: NodeNetworkTuningStatus) -> Self {
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            generation: meta.generation,
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            content,
            status,
        }
    }
}

fn usable(spec: &NodeNetworkTuningSpec) -> Result<UsableTuning, InvalidTuning> {
    Ok(UsableTuning {
        policy: Policy::try_from(spec)?,
        selector: NodeLabels::try_from(&spec.node_selector)?,
        priority: spec.priority,
        mode: spec.mode,
        release_policy: spec.release_policy,
    })
}

/// A profile in the [`World`]: a digest, not the whole object.
#[derive(Debug)]
pub struct PlannedProfile {
    pub(crate) uid: Arc<str>,
    pub(crate) resource_version: Arc<str>,
    pub(crate) generation: Option<i64>,
    pub(crate) owner_uid: Arc<str>,
    /// Its spec without the reasons, which are those of their moment; `None` where it cannot be
    /// read.
    pub(crate) behaviour: Option<Arc<NodeNetworkProfileSpec>>,
    pub(crate) reported: Option<Reported>,
    pub(crate) facts: Option<ProfileFacts>,
}

/// What a node's agent has said, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    pub(crate) observed_generation: Option<i64>,
    pub(crate) boot_id: Arc<str>,
    pub(crate) ready: bool,
    pub(crate) drifted: bool,
    pub(crate) released: bool,
    /// The message of `Ready` where a key has failed.
    pub(crate) failure: Option<Arc<str>>,
}

impl PlannedProfile {
    /// Takes a profile that could be read.
    #[must_use]
    pub fn new(profile: &NodeNetworkProfile) -> Self {
        let status = profile.status.as_ref();
        Self {
            behaviour: Some(Arc::new(behaviour(&profile.spec))),
            reported: status.map(Reported::new),
            facts: status.and_then(|status| status.facts.clone()),
            ..Self::unreadable(&profile.metadata)
        }
    }

    /// Takes one that could not be read; it will be written anew where a tuning has its node.
    #[must_use]
    pub fn unreadable(meta: &ObjectMeta) -> Self {
        let owner = meta
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.kind == "Node");
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
            generation: meta.generation,
            owner_uid: owner.map_or("", |owner| owner.uid.as_str()).into(),
            behaviour: None,
            reported: None,
            facts: None,
        }
    }
}

/// Specs of profiles, each kept once: the nodes of a group have the same one, and comparing two of
/// them is then comparing two pointers.
#[derive(Debug, Default)]
struct SharedSpecs {
    specs: HashSet<Arc<NodeNetworkProfileSpec>>,
    /// When this many are there, those that nobody uses any more are dropped.
    sweep_at: usize,
}

impl SharedSpecs {
    fn share(&mut self, spec: Arc<NodeNetworkProfileSpec>) -> Arc<NodeNetworkProfileSpec> {
        if let Some(known) = self.specs.get(&spec) {
            return Arc::clone(known);
        }
        if self.specs.len() >= self.sweep_at {
            self.specs.retain(|spec| Arc::strong_count(spec) > 1);
            self.sweep_at = 64 + 2 * self.specs.len();
        }
        self.specs.insert(Arc::clone(&spec));
        spec
    }
}

/// A spec without the reasons.
pub(crate) fn behaviour(spec: &NodeNetworkProfileSpec) -> NodeNetworkProfileSpec {
    let mut behaviour = spec.clone();
    for sysctl in &mut behaviour.sysctls {
        sysctl.reason = String::new();
    }
    behaviour
}

impl Reported {
    fn new(status: &NodeNetworkProfileStatus) -> Self {
        let ready = conditions::find(&status.conditions, READY);
        let failure = ready
            .filter(|ready| matches!(ready.reason.as_str(), reasons::FAILED | reasons::INVALID))
            .map(|ready| ready.message.as_str().into());
        Self {
            observed_generation: status.observed_generation,
            boot_id: status.boot_id.as_str().into(),
            ready: ready.is_some_and(|ready| ready.status == "True"),
            drifted: conditions::is_true(&status.conditions, DRIFTED),
            released: conditions::is_true(&status.conditions, RELEASED),
            failure,
        }
    }
}

/// Whether what came is older than what is known: the answer to a write can overtake the watch.
/// Resource versions of one resource compare as numbers (KEP-5504); others are taken as they come.
fn is_older(came: &str, known: &str) -> bool {
    match (came.parse::<u64>(), known.parse::<u64>()) {
        (Ok(came), Ok(known)) => came < known,
        _ => false,
    }
}

/// The three kinds of objects that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nodes.
    Node,
    /// NodeNetworkTunings.
    Tuning,
    /// NodeNetworkProfiles.
    Profile,
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

/// What watches have brought: a [`World`] that grows until it is complete.
#[derive(Debug, Default)]
pub struct Watched {
    world: World,
    listings: [Listing; 3],
}

impl Watched {
    /// The world, where every list is complete.
    #[must_use]
    pub fn world(&self) -> Option<&World> {
        self.listings
            .iter()
            .all(|listing| matches!(listing, Listing::Complete))
            .then_some(&self.world)
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
                Kind::Node => self.world.nodes.retain(|name, _| seen.contains(name)),
                Kind::Tuning => self.world.tunings.retain(|name, _| seen.contains(name)),
                Kind::Profile => self.world.profiles.retain(|name, _| seen.contains(name)),
            }
        }
    }

    /// A Node as it is now.
    pub fn node(&mut self, node: &ObservedNode) {
        let name = self.seen(Kind::Node, &node.name_any());
        self.world.nodes.insert(name, PlannedNode::new(node));
    }

    /// A tuning as it is now, unless a newer one is known.
    pub fn tuning(&mut self, name: &str, tuning: PlannedTuning) {
        let name = self.seen(Kind::Tuning, name);
        let known = self.world.tunings.get(&name);
        if known.is_some_and(|known| {
            known.uid == tuning.uid && is_older(&tuning.resource_version, &known.resource_version)
        }) {
            return;
        }
        self.world.tunings.insert(name, tuning);
    }

    /// A profile as it is now, unless a newer one is known.
    pub fn profile(&mut self, name: &str, profile: PlannedProfile) {
        let name = self.seen(Kind::Profile, name);
        let known = self.world.profiles.get(&name);
        if known.is_some_and(|known| {
            known.uid == profile.uid && is_older(&profile.resource_version, &known.resource_version)
        }) {
            return;
        }
        self.world.insert_profile(name, profile);
    }

    /// An object that is gone.
    pub fn gone(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Node => drop(self.world.nodes.remove(name)),
            Kind::Tuning => drop(self.world.tunings.remove(name)),
            Kind::Profile => drop(self.world.profiles.remove(name)),
        }
    }

    fn listing(&mut self, kind: Kind) -> &mut Listing {
        let [nodes, tunings, profiles] = &mut self.listings;
        match kind {
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
        let mut watched = Watched::default();
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
        let mut watched = Watched::default();
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
        let mut watched = Watched::default();
        for kind in [Kind::Node, Kind::Tuning, Kind::Profile] {
            watched.list_begins(kind);
            watched.list_ends(kind);
        }
        watched.list_begins(Kind::Tuning);
        assert!(watched.world().is_none());
    }
}
