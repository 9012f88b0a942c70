//! [`decide`]: from the whole world to the writes that bring it to what is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use nettune_crds::{NodeNetworkProfileSpec, NodeNetworkTuningStatus, ReleasePolicy};

use crate::groups::{Groups, cluster_facts};
use crate::select::{Claims, Owner};
use crate::status::{self, Tally};
use crate::world::PlannedProfile;
use crate::{PlannedNode, World};

/// What the cluster needs now.
#[derive(Debug, Default)]
pub struct Decision {
    /// Tunings' statuses first, few and what people look at; then profiles. No two of one object.
    pub writes: Vec<Write>,
}

/// One write. Each names what it was decided on, so that the API server refuses it when that has
/// changed; then the next decision comes from the new content.
#[derive(Debug, Clone)]
pub enum Write {
    /// A node has no profile yet.
    CreateProfile {
        /// The node's and the profile's name.
        node: Arc<str>,
        /// The Node's uid: it owns the profile.
        node_uid: Arc<str>,
        /// What the profile shall say.
        spec: Arc<NodeNetworkProfileSpec>,
    },
    /// A profile says something else than it shall.
    ReplaceProfile {
        /// The node's and the profile's name.
        node: Arc<str>,
        /// The Node's uid: it owns the profile.
        node_uid: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        /// What the profile shall say.
        spec: Arc<NodeNetworkProfileSpec>,
    },
    /// The originals of a node that no tuning has any more shall go back: `spec.release` becomes true,
    /// all else stays.
    ReleaseProfile {
        /// The profile's name.
        node: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
    },
    /// A profile whose node no tuning has, or whose Node is gone.
    DeleteProfile {
        /// The profile's name.
        node: Arc<str>,
        /// The profile's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
    },
    /// A tuning's status differs from what it shall say.
    TuningStatus {
        /// The tuning's name.
        tuning: Arc<str>,
        /// The tuning's uid.
        uid: Arc<str>,
        /// The resourceVersion that was decided on.
        seen: Arc<str>,
        /// The whole status.
        status: Box<NodeNetworkTuningStatus>,
        /// What this change is worth telling as Events.
        announcements: Vec<Announcement>,
    },
}

/// An Event about a tuning, told once: when its status changes so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Whether somebody should look (`Warning`) or just know (`Normal`).
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
}

/// Decides from the whole world, each time anew. `now` goes into conditions whose status changes
/// and into nothing else.
#[must_use]
pub fn decide(world: &World, now: Timestamp) -> Decision {
    let mut pass = Pass {
        claims: Claims::of(world),
        groups: Groups::new(cluster_facts(world)),
        tallies: BTreeMap::new(),
        writes: Vec::new(),
    };
    let mut by_claim: Vec<Tally> = Vec::new();
    by_claim.resize_with(pass.claims.all.len(), Tally::default);

    // Both maps are in the order of names: one walk over both, instead of a search for each node.
    let mut profiles = world.profiles.iter().peekable();
    for (name, node) in &world.nodes {
        while let Some((orphan, profile)) = profiles.next_if(|(profile, _)| *profile < name) {
            pass.writes.push(delete(orphan, profile));
        }
        let profile = profiles
            .next_if(|(profile, _)| *profile == name)
            .map(|(_, profile)| profile);
        match pass.claims.owner(node, profile) {
            Owner::Claim(owner) => {
                if let Some(tally) = by_claim.get_mut(owner) {
                    pass.claimed(name, node, profile, owner, tally);
                }
            }
            Owner::Frozen => pass.frozen(name, node, profile),
            Owner::Nobody => pass.unclaimed(name, node, profile),
        }
    }
    for (orphan, profile) in profiles {
        pass.writes.push(delete(orphan, profile));
    }
    pass.statuses(world, by_claim, now)
}

struct Pass<'a> {
    claims: Claims<'a>,
    groups: Groups,
    /// Of tunings that have nodes only in passing: frozen or being released.
    tallies: BTreeMap<&'a str, Tally>,
    writes: Vec<Write>,
}

impl<'a> Pass<'a> {
    /// A node that a usable tuning has.
    fn claimed(
        &mut self,
        name: &Arc<str>,
        node: &PlannedNode,
        profile: Option<&PlannedProfile>,
        owner: usize,
        tally: &mut Tally,
    ) {
        tally.count.selected += 1;
        let claim = self.claims.all.get(owner);
        let Some((tuning_name, tuning)) = claim.and_then(|claim| Some((claim.name, claim.usable?)))
        else {
            return;
        };
        let facts = node.facts(profile.and_then(|profile| profile.facts.as_ref()));
        let source = node.evidence.source;
        let group = self.groups.put(owner, tuning_name, tuning, facts, source);
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        match profile {
            None => self.writes.push(Write::CreateProfile {
                node: Arc::clone(name),
                node_uid: Arc::clone(&node.uid),
                spec: Arc::clone(&group.spec),
            }),
            // The Node came back under its old name: what the old one's agent said is not its word.
            Some(profile) if profile.owner_uid != node.uid => {
                self.writes.push(delete(name, profile));
            }
            Some(profile) if group.holds_in(profile) => {
                tally.add(name, profile.reported_now(node));
            }
            Some(profile) => {
                tally.outdated += 1;
                self.writes.push(Write::ReplaceProfile {
                    node: Arc::clone(name),
                    node_uid: Arc::clone(&node.uid),
                    uid: Arc::clone(&profile.uid),
                    seen: Arc::clone(&profile.resource_version),
                    spec: Arc::clone(&group.spec),
                });
            }
        }
    }

    /// A node whose tuning cannot be used now: nothing is written.
    fn frozen(&mut self, name: &Arc<str>, node: &PlannedNode, profile: Option<&'a PlannedProfile>) {
        let Some(profile) = profile else { return };
        if let Some(behaviour) = &profile.behaviour {
            let tally = self.tallies.entry(behaviour.tuning.as_str()).or_default();
            tally.count.selected += 1;
            tally.add(name, profile.reported_now(node));
        }
    }

    /// A node that no tuning has (any more).
    fn unclaimed(
        &mut self,
        name: &Arc<str>,
        node: &PlannedNode,
        profile: Option<&'a PlannedProfile>,
    ) {
        let Some(profile) = profile else { return };
        // One that cannot be read does not say how it is to be released: it stays.
        let Some(behaviour) = &profile.behaviour else {
            return;
        };
        match behaviour.release_policy {
            ReleasePolicy::Retain => self.writes.push(delete(name, profile)),
            ReleasePolicy::Restore if !behaviour.release => {
                self.writes.push(Write::ReleaseProfile {
                    node: Arc::clone(name),
                    uid: Arc::clone(&profile.uid),
                    seen: Arc::clone(&profile.resource_version),
                });
                self.releasing(&behaviour.tuning);
            }
            ReleasePolicy::Restore => {
                let reported = profile.reported_now(node);
                if reported.is_some_and(|reported| reported.released) {
                    self.writes.push(delete(name, profile));
                } else {
                    self.releasing(&behaviour.tuning);
                }
            }
        }
    }

    fn releasing(&mut self, tuning: &'a str) {
        self.tallies.entry(tuning).or_default().count.releasing += 1;
    }

    fn statuses(self, world: &'a World, by_claim: Vec<Tally>, now: Timestamp) -> Decision {
        let Self {
            claims,
            groups,
            mut tallies,
            writes: profiles,
        } = self;
        let cluster = groups.cluster();
        let groups = groups.into_all();
        let mut writes = Vec::new();
        for (claim, mut tally) in claims.all.iter().zip(by_claim) {
            if claim.usable.is_none() {
                continue;
            }
            if let Some(passing) = tallies.remove(&**claim.name) {
                tally.count.releasing += passing.count.releasing;
            }
            let of_claim = groups.iter().filter(|group| group.tuning == *claim.name);
            let wanted = status::usable(claim, &tally, of_claim, cluster, now);
            writes.extend(status::write(claim.name, claim.tuning, wanted));
        }
        for (name, tuning) in &world.tunings {
            let tally = tallies.remove(&**name).unwrap_or_default();
            if let Some(wanted) = status::unusable(tuning, &tally, now) {
                writes.extend(status::write(name, tuning, wanted));
            }
        }
        writes.extend(profiles);
        Decision { writes }
    }
}

fn delete(name: &Arc<str>, profile: &PlannedProfile) -> Write {
    Write::DeleteProfile {
        node: Arc::clone(name),
        uid: Arc::clone(&profile.uid),
        seen: Arc::clone(&profile.resource_version),
    }
}
