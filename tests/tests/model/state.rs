//! A state of a small cluster: all that is in it at one moment.

use std::hash::Hash;
use std::time::Duration;

use ahash::RandomState;

use crate::action::Kind;
use crate::api::{Api, NODES, TUNINGS, uid};
use crate::flight::{Change, Flight, Object};
use crate::host::Host;
use crate::intern::Interned;
use crate::leader::Leader;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) api: Api,
    pub(crate) hosts: Vec<Host>,
    pub(crate) reach: Vec<Reach>,
    pub(crate) leaders: Vec<Leader>,
    /// Writes that no leader waits for.
    pub(crate) orphans: Vec<Interned<Flight>>,
    /// Counts the tunings of each name.
    pub(crate) tuning_lives: [u8; 2],
    pub(crate) inputs_done: usize,
    /// How much of that was known when the spec of each node's profile was written.
    pub(crate) written_after: Vec<usize>,
    pub(crate) faults_left: u8,
    /// Nodes that held the harmful value.
    pub(crate) struck: Vec<bool>,
    /// The rule that was broken.
    pub(crate) broken: Option<&'static str>,
}

/// Whether a node is reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Reach {
    Reached,
    /// For at most this long yet.
    Fading(Duration),
    CutOff,
}

impl State {
    pub(crate) fn leader_sees(&mut self, leader: usize, kind: Kind) {
        let leader = &mut self.leaders[leader];
        match kind {
            Kind::Nodes => leader.view.nodes.clone_from(&self.api.nodes),
            Kind::Tunings => leader.view.tunings.clone_from(&self.api.tunings),
            Kind::Profiles => leader.view.profiles.clone_from(&self.api.profiles),
        }
        leader.due = true;
    }

    /// Whether an agent has seen the profile that is there.
    pub(crate) fn agent_knows(&self, at: usize) -> bool {
        let process = self.hosts[at].process.as_ref();
        process.is_none_or(|process| process.profile == self.api.profiles[at])
    }

    /// A leader ends; what it has sent may still arrive.
    pub(crate) fn end_leader(&mut self, at: usize) {
        let leader = self.leaders.remove(at);
        self.leave(leader.in_flight);
    }

    /// No leader waits for these writes any more; they may still arrive.
    pub(crate) fn leave(&mut self, flights: impl IntoIterator<Item = Interned<Flight>>) {
        self.orphans.extend(flights);
        self.orphans.sort_by_key(Interned::id);
        self.orphans.dedup();
    }

    /// Leaders and what they are writing.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = (usize, Object)> {
        let leaders = self.leaders.iter().enumerate();
        leaders.flat_map(|(at, leader)| {
            let flights = leader.in_flight.iter();
            flights.map(move |flight| (at, flight.object))
        })
    }

    /// Which spec of which profile there is.
    pub(crate) fn version_of_spec(&self, object: Object) -> Option<(u8, i64)> {
        let Object::Profile(at) = object else {
            return None;
        };
        let profile = self.api.profiles[at].as_ref()?;
        Some((profile.life, profile.generation))
    }

    /// The first uid for a profile that nothing refers to: a forgotten one is as good as new.
    /// Counted on instead, a leader that does not see its Node go would make one profile after the
    /// other, each collected, and no two states would be the same.
    pub(crate) fn unused_life(&self, flight: &Flight) -> u8 {
        let (Object::Profile(at), Change::Create { .. }) = (flight.object, &flight.change) else {
            return 0;
        };
        let is_known = |life: &u8| {
            let uid = uid(NODES[at], *life);
            let is_meant =
                |other: &Interned<Flight>| other.object == flight.object && other.life == *life;
            self.orphans.iter().any(is_meant)
                || self.hosts[at].names(&uid)
                || self.leaders.iter().any(|leader| {
                    let profile = leader.view.profiles[at].as_ref();
                    profile.is_some_and(|profile| profile.life == *life)
                        || leader.in_flight.iter().any(is_meant)
                        || leader.memory.names(&uid)
                })
        };
        (1..u8::MAX).find(|life| !is_known(life)).unwrap_or(u8::MAX)
    }

    /// What a sysctl of a node holds.
    pub(crate) fn holds(&self, at: usize, key: &str) -> Option<&str> {
        let mut keys = self.hosts[at].kernel.keys.iter();
        let (_, held) = keys.find(|(own, _)| own.name() == key)?;
        Some(held.content.as_str())
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        fingerprint(self)
    }

    pub(crate) fn is_cut_off(&self, at: usize) -> bool {
        self.reach[at] == Reach::CutOff
    }
}

pub(crate) fn fingerprint(of: &impl Hash) -> u64 {
    RandomState::with_seed(0).hash_one(of)
}

pub(crate) fn summary(state: &State) -> String {
    let mut parts = Vec::new();
    for (name, tuning) in TUNINGS.iter().zip(&state.api.tunings) {
        let spec = tuning.as_ref().map(|tuning| tuning.spec);
        parts.extend(spec.map(|spec| format!("{name}=spec {spec}")));
    }
    for (at, profile) in state.api.profiles.iter().enumerate() {
        let values: Vec<String> = state.hosts[at]
            .kernel
            .keys
            .values()
            .map(|held| held.content.to_string())
            .collect();
        let said = profile
            .as_deref()
            .map_or("no profile".to_owned(), |profile| {
                let wanted: Vec<&str> = profile
                    .spec
                    .sysctls
                    .iter()
                    .map(|sysctl| sysctl.value.as_str())
                    .collect();
                format!(
                    "profile .{} gen {} [{}]{}{}{}",
                    profile.life,
                    profile.generation,
                    wanted.join(" "),
                    if profile.spec.canary { " canary" } else { "" },
                    if profile.spec.release { " release" } else { "" },
                    if profile.is_ready() { " ready" } else { "" },
                )
            });
        parts.push(format!(
            "{}: kernel [{}], {said}",
            NODES[at],
            values.join(" ")
        ));
    }
    for (at, leader) in state.leaders.iter().enumerate() {
        for flight in &leader.in_flight {
            parts.push(format!(
                "leader {at} → {} {:?}",
                flight.verb(),
                flight.object
            ));
        }
    }
    for flight in &state.orphans {
        parts.push(format!("orphan → {} {:?}", flight.verb(), flight.object));
    }
    parts.join("; ")
}
