//! [`decide`]: from the whole world to the writes that bring it to what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nettune_crds::{NodeNetworkProfileSpec, ReleasePolicy, Rollout};
use nettune_sizing::Mono;

use crate::assign::{Claim, Claims, Owner};
use crate::cluster::node::PlannedNode;
use crate::cluster::profile::{PlannedProfile, Reported};
use crate::cluster::state::ClusterState;
use crate::cluster::tuning::TuningContent;
use crate::health::agent as unresponsive;
use crate::health::startup_taint as taint;
use crate::memory::{Memory, Recall, Seen};
use crate::rollout::gate::{Candidate, Rollouts, Turn, judge};
use crate::rollout::transition::{Plans, Step};
use crate::size_groups::{Groups, cluster_facts};
use crate::status::release::{Leavers, Leaving};
use crate::status::tuning::{self as status, Tally};
use crate::time::{Alarm, Now};
use crate::urgency::{Urgency, Writes};
use crate::write::Write;

/// What the cluster needs now.
#[derive(Debug, Default)]
pub struct Decision {
    /// The most urgent first. No two of one object.
    pub writes: Vec<Write>,
    /// How releases go of which no tuning's status tells all, by tuning.
    pub leaving: Vec<Leaving>,
    /// What to remember for the next decision.
    pub memory: Memory,
    /// When to decide again although nothing changes; `None`: there is no need to.
    pub wake_at: Option<Mono>,
}

/// Decides from the whole world, each time anew. `memory` is what the decision before gave back; a
/// leader begins with none, and waits again.
#[must_use]
pub fn decide(world: &ClusterState, memory: &Memory, now: Now) -> Decision {
    let claims = Claims::of(world);
    let mut rollouts = Rollouts::default();
    let rules = claims.all.iter().map(|claim| {
        let usable = claim.usable.map(|usable| usable.rollout);
        usable.unwrap_or_default()
    });
    // The gate of a claim has its index.
    for rule in rules {
        rollouts.gate(rule);
    }
    let mut by_claim: Vec<Tally> = Vec::new();
    by_claim.resize_with(claims.all.len(), Tally::default);
    let resting = |claim: &Claim<'_>| memory.resting.contains(claim.name);
    let mut pass = Pass {
        resting: claims.all.iter().map(resting).collect(),
        claims,
        groups: Groups::new(cluster_facts(world)),
        plans: Plans::default(),
        rollouts,
        gates: BTreeMap::new(),
        tallies: BTreeMap::new(),
        newcomers: Vec::new(),
        leavers: Leavers::default(),
        writes: Writes::default(),
        alarm: Alarm::default(),
        world,
        memory,
        now,
    };
    let mut recall = Recall::of(memory);

    // Both maps are in the order of names: one walk over both, instead of a search for each node.
    let mut profiles = world.profiles.iter().peekable();
    for (name, node) in &world.nodes {
        while let Some((orphan, profile)) = profiles.next_if(|(profile, _)| *profile < name) {
            pass.writes
                .push(Urgency::Removal, Write::delete(orphan, profile));
        }
        let profile = profiles
            .next_if(|(profile, _)| *profile == name)
            .map(|(_, profile)| profile);
        let old = recall.seen(name);
        let mut new = Seen::default();
        let visit = Visit {
            name,
            node,
            profile,
            old,
        };
        match pass.claims.owner(node, profile) {
            Owner::Claim(owner) => {
                if let Some(tally) = by_claim.get_mut(owner) {
                    pass.claimed(visit, owner, tally, &mut new);
                }
            }
            Owner::Frozen => pass.frozen(visit),
            Owner::Nobody => pass.unclaimed(visit, &mut new),
        }
        if world.startup_taint && node.tainted.is_some() {
            let before = old.and_then(|old| old.tainted);
            let (tainted, write) = taint::look(name, node, profile, before, &mut pass.alarm, now);
            new.tainted = tainted;
            if let Some(write) = write {
                pass.writes.push(Urgency::Taint, write);
            }
        }
        recall.keep(name, new);
    }
    for (orphan, profile) in profiles {
        pass.writes
            .push(Urgency::Removal, Write::delete(orphan, profile));
    }
    pass.admit(&mut recall.new);
    let mut decision = pass.statuses(by_claim);
    decision.memory = recall.new;
    decision
}

struct Pass<'a> {
    claims: Claims<'a>,
    groups: Groups,
    plans: Plans,
    rollouts: Rollouts<'a>,
    /// The gates of tunings that cannot be used or are gone, and still have nodes to release.
    gates: BTreeMap<&'a str, usize>,
    /// Of tunings that have nodes only in passing: frozen or being released.
    tallies: BTreeMap<&'a str, Tally>,
    newcomers: Vec<Newcomer<'a>>,
    leavers: Leavers,
    writes: Writes,
    alarm: Alarm,
    /// Whether each claim had no rollout under way when it was last decided.
    resting: Vec<bool>,
    world: &'a ClusterState,
    memory: &'a Memory,
    now: Now,
}

/// A node that has no profile, or one that cannot be read.
struct Newcomer<'a> {
    name: &'a Arc<str>,
    node: &'a PlannedNode,
    profile: Option<&'a PlannedProfile>,
    target: usize,
    at_once: Arc<NodeNetworkProfileSpec>,
}

/// One node as the walk comes by.
#[derive(Clone, Copy)]
struct Visit<'a> {
    name: &'a Arc<str>,
    node: &'a PlannedNode,
    profile: Option<&'a PlannedProfile>,
    old: Option<&'a Seen>,
}

impl<'a> Pass<'a> {
    /// A node that a usable tuning has.
    fn claimed(&mut self, visit: Visit<'a>, owner: usize, tally: &mut Tally, new: &mut Seen) {
        let Visit {
            name,
            node,
            profile,
            old,
        } = visit;
        tally.count.selected += 1;
        let claim = self.claims.all.get(owner);
        let Some((tuning_name, tuning)) = claim.and_then(|claim| Some((claim.name, claim.usable?)))
        else {
            return;
        };
        // The Node came back under its old name: what the old one's agent said is not its word.
        if let Some(profile) = profile.filter(|profile| profile.owner_uid != node.uid) {
            self.writes
                .push(Urgency::NewNode, Write::delete(name, profile));
            return;
        }
        let group = self.groups.put(owner, tuning_name, tuning, node, profile);
        let present = profile.and_then(|profile| profile.behaviour.as_ref());
        let rule = tuning.rollout;
        let Some(of_group) = self.groups.get(group) else {
            return;
        };
        let pair = self
            .plans
            .between(group, of_group, present, (owner, &rule), &mut self.rollouts);
        let (Some(profile), Some(_)) = (profile, present) else {
            if let Step::Write(at_once) = &pair.whole.step {
                tally.refuse(name, self.world);
                self.newcomers.push(Newcomer {
                    name,
                    node,
                    profile,
                    target: pair.whole.target,
                    at_once: Arc::clone(at_once),
                });
            }
            return;
        };
        let mut plan = &pair.whole;
        if let (Some(kept), Some(of_group)) = (&pair.kept, self.groups.get_mut(group)) {
            let before = old.and_then(|old| old.smaller.as_ref());
            let (since, wanted) = match before {
                Some((since, wanted)) if of_group.wants(wanted) => (*since, Arc::clone(wanted)),
                _ => (self.now.mono, Arc::clone(&of_group.behaviour)),
            };
            if !self.alarm.passed(since, rule.shrink_after, self.now) {
                tally.shrinking += 1;
                plan = kept;
            }
            new.smaller = Some((since, wanted));
        }
        let candidate = Candidate {
            name,
            node,
            profile,
        };
        let reported = profile.reported_now(node);
        let ready = reported.is_some_and(|reported| reported.ready);
        let target = plan.target;
        let step = plan.step.clone();
        // What only gets a raised limit beside is on canary all the same.
        if profile.canary && !matches!(step, Step::Turn) {
            self.judge(target, candidate, (owner, ready), old, new);
        }
        if !matches!(step, Step::Holds) {
            tally.refuse(name, self.world);
        }
        match step {
            Step::Holds => tally.add(name, reported),
            Step::Write(spec) => {
                tally.outdated += 1;
                // One that is on canary stays so; one that has passed long ago begins no other.
                let on_trial = new.canary.as_ref().is_some_and(|canary| !canary.settled);
                let spec = match on_trial {
                    true => Arc::new(NodeNetworkProfileSpec {
                        canary: true,
                        ..(*spec).clone()
                    }),
                    false => spec,
                };
                let urgency = match profile.overflows() {
                    true => Urgency::Overflow,
                    false => Urgency::AtOnce,
                };
                self.writes.push(urgency, Write::replace(candidate, spec));
            }
            Step::Turn => {
                match rule.all_at_once && !rule.paused {
                    true => tally.outdated += 1,
                    false => tally.waiting += 1,
                }
                self.rollouts.wait(target, candidate);
            }
        }
        tally.count.unresponsive += i32::from(self.listen(candidate, rule, old, new));
    }

    fn judge(
        &mut self,
        target: usize,
        candidate: Candidate<'a>,
        (gate, ready): (usize, bool),
        old: Option<&Seen>,
        new: &mut Seen,
    ) {
        let Some(rule) = self.rollouts.gates.get(gate).map(|gate| gate.rule) else {
            return;
        };
        let resting = self.resting.get(gate).copied().unwrap_or(false);
        let before = old.and_then(|old| old.canary.as_ref());
        let clock = (&mut self.alarm, self.now);
        let (canary, standing) = judge(&rule, candidate, ready, before, resting, clock);
        self.rollouts
            .count(target, candidate, canary.settled, &standing);
        new.canary = Some(canary);
    }

    /// Whether the agent of a node has been unresponsive for too long; its profile comes to say so.
    fn listen(
        &mut self,
        Candidate {
            name,
            node,
            profile,
        }: Candidate<'a>,
        rule: Rollout,
        old: Option<&Seen>,
        new: &mut Seen,
    ) -> bool {
        let verdict = unresponsive::listen(
            node,
            profile,
            self.world.agents.is_ready(name),
            old.and_then(|old| old.silence),
            rule.node_deadline,
            (&mut self.alarm, self.now),
        );
        new.silence = verdict.silence;
        if let Some(why) = verdict.tell {
            let ready = unresponsive::condition(profile, why, rule.node_deadline, self.now);
            let write = Write::AgentUnresponsive {
                node: Arc::clone(name),
                uid: Arc::clone(&profile.uid),
                seen: Arc::clone(&profile.resource_version),
                ready: Box::new(ready),
            };
            self.writes.push(Urgency::Silence, write);
        }
        verdict.is_silent
    }

    /// A node whose tuning cannot be used now: nothing is written.
    fn frozen(&mut self, visit: Visit<'a>) {
        let Some(profile) = visit.profile else { return };
        if let Some(behaviour) = &profile.behaviour {
            let tally = self.tallies.entry(behaviour.tuning.as_str()).or_default();
            tally.count.selected += 1;
            tally.add(visit.name, profile.reported_now(visit.node));
        }
    }

    /// A node that no tuning has (any more).
    fn unclaimed(&mut self, visit: Visit<'a>, new: &mut Seen) {
        let Visit {
            name,
            node,
            profile,
            old,
        } = visit;
        let Some(profile) = profile else { return };
        if profile.owner_uid != node.uid {
            self.writes
                .push(Urgency::Removal, Write::delete(name, profile));
            return;
        }
        // One that cannot be read does not say how it is to be released: it stays.
        let Some(behaviour) = &profile.behaviour else {
            return;
        };
        if behaviour.release_policy == ReleasePolicy::Retain {
            self.writes
                .push(Urgency::Removal, Write::delete(name, profile));
            return;
        }
        let candidate = Candidate {
            name,
            node,
            profile,
        };
        let gate = self.gate_of(&behaviour.tuning);
        let target = self.plans.release(gate, behaviour, &mut self.rollouts);
        let rule = self.rollouts.gates.get(gate).map(|gate| gate.rule);
        let reported = profile.reported_now(node);
        let released = behaviour.release && reported.is_some_and(Reported::is_released);
        if !behaviour.release {
            self.rollouts.wait(target, candidate);
        } else if profile.canary {
            self.judge(target, candidate, (gate, released), old, new);
        } else if released {
            self.writes
                .push(Urgency::Removal, Write::delete(name, profile));
        }
        if released {
            self.leavers
                .released(&behaviour.tuning, candidate, reported);
            return;
        }
        let unresponsive = self.listen(candidate, rule.unwrap_or_default(), old, new);
        let tally = self.tallies.entry(&behaviour.tuning).or_default();
        tally.count.releasing += 1;
        tally.count.unresponsive += i32::from(unresponsive);
    }

    /// The gate of a tuning that nodes leave: its own, or one by the defaults where it is gone.
    fn gate_of(&mut self, tuning: &'a str) -> usize {
        let mut claims = self.claims.all.iter();
        if let Some(claim) = claims.position(|claim| **claim.name == *tuning) {
            return claim;
        }
        let Self {
            gates,
            rollouts,
            resting,
            memory,
            ..
        } = self;
        *gates.entry(tuning).or_insert_with(|| {
            resting.push(memory.resting.contains(tuning));
            rollouts.gate(Rollout::default())
        })
    }

    /// Lets those in whose turn it is, and those that are new.
    fn admit(&mut self, remember: &mut Memory) {
        let Self {
            rollouts,
            writes,
            memory,
            newcomers,
            ..
        } = self;
        let mut admitted = BTreeSet::new();
        rollouts.turns(&memory.admitted, |candidate, turn| {
            let Candidate { name, profile, .. } = candidate;
            let on_trial = match turn {
                Turn::Delete => {
                    writes.push(Urgency::Removal, Write::delete(name, profile));
                    false
                }
                Turn::Write(spec) => {
                    let on_trial = spec.canary;
                    writes.push(Urgency::Turn, Write::replace(candidate, spec));
                    on_trial
                }
                Turn::Release { canary } => {
                    writes.push(Urgency::Turn, Write::release(candidate, canary));
                    canary
                }
            };
            if on_trial {
                admitted.insert(Arc::clone(name));
            }
        });
        for newcomer in newcomers.drain(..) {
            if let Some(write) = newcomer.write(rollouts) {
                writes.push(Urgency::NewNode, write);
            }
        }
        remember.admitted = admitted;
        for (index, claim) in self.claims.all.iter().enumerate() {
            if self.rollouts.is_at_rest(index) {
                remember.resting.insert(Arc::clone(claim.name));
            }
        }
        for (name, gate) in &self.gates {
            if self.rollouts.is_at_rest(*gate) {
                remember.resting.insert((*name).into());
            }
        }
    }

    fn statuses(self, by_claim: Vec<Tally>) -> Decision {
        let Self {
            claims,
            groups,
            rollouts,
            gates,
            mut tallies,
            leavers,
            mut writes,
            alarm,
            world,
            now,
            ..
        } = self;
        let cluster = groups.cluster();
        let groups: Vec<_> = groups.into_all().collect();
        let mut status = |write: Option<Write>| {
            if let Some(write) = write {
                writes.push(Urgency::Status, write);
            }
        };
        let claimed = claims.all.iter().zip(by_claim).zip(&rollouts.gates);
        for ((claim, mut tally), gate) in claimed {
            if claim.usable.is_none() {
                continue;
            }
            if let Some(passing) = tallies.remove(&**claim.name) {
                tally.count.releasing += passing.count.releasing;
                tally.count.unresponsive += passing.count.unresponsive;
            }
            let of_claim = groups.iter().filter(|group| group.tuning == *claim.name);
            let wanted = status::usable(claim, &tally, gate, of_claim, cluster, now.wall);
            status(status::write(claim.name, claim.tuning, wanted));
        }
        for (name, tuning) in &world.tunings {
            if matches!(tuning.content, TuningContent::Usable(_)) {
                continue;
            }
            let tally = tallies.remove(&**name).unwrap_or_default();
            if let Some(wanted) = status::unusable(tuning, &tally, now.wall) {
                status(status::write(name, tuning, wanted));
            }
        }
        let gone = tallies.iter().filter_map(|(tuning, tally)| {
            let gate = rollouts.gates.get(*gates.get(tuning)?)?;
            Some((*tuning, tally, gate))
        });
        Decision {
            leaving: leavers.tell(gone, world),
            writes: writes.in_order(),
            memory: Memory::default(),
            wake_at: alarm.soonest(),
        }
    }
}

impl Newcomer<'_> {
    /// A node that is not Ready yet has nothing to lose and gets everything, unless the tuning's own
    /// rollout goes no further: then it gets what can do no harm, like one that is Ready.
    fn write(&self, rollouts: &Rollouts<'_>) -> Option<Write> {
        let whole = rollouts.spec(self.target)?;
        let gate = rollouts.gate_of(self.target)?;
        let everything = !gate.is_closed() && (gate.rule.all_at_once || !self.node.ready.is_true());
        let spec = if everything { whole } else { &self.at_once };
        Some(match self.profile {
            None => Write::CreateProfile {
                node: Arc::clone(self.name),
                node_uid: Arc::clone(&self.node.uid),
                spec: Arc::clone(spec),
            },
            Some(profile) => Write::replace(
                Candidate {
                    name: self.name,
                    node: self.node,
                    profile,
                },
                Arc::clone(spec),
            ),
        })
    }
}
