//! An operator that decides: what its watches have brought, what it remembers, and its writes on
//! their way.

use std::time::Duration;

use jiff::Timestamp;
use nettune_crds::{NodeNetworkProfile, NodeNetworkTuning, NodeNetworkTuningSpec};
use nettune_planner::{
    Cache, Kind, Memory, Mono, Now, ObservedNode, PlannedProfile, PlannedTuning, decide,
};
use serde_json::json;

use crate::api::{Api, NODES, Node, Profile, TUNINGS, Tuning, uid};
use crate::cluster::steps::MINUTE;
use crate::flight::{Flight, Object};
use crate::intern::{Interned, Memo, Pool};
use crate::setup::{Mutation, Setup};

/// The present of every process: what it remembers is reckoned from here.
pub(crate) const NOW: Mono = Mono::at(Duration::from_secs(1_000_000));

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leader {
    pub(crate) view: Api,
    pub(crate) memory: Interned<Memory>,
    /// Whether something has come since it last decided.
    pub(crate) due: bool,
    /// After how long it decides again by itself.
    pub(crate) wake: Option<Duration>,
    /// At most one for each object, in their order.
    pub(crate) in_flight: Vec<Interned<Flight>>,
}

impl Leader {
    /// It waits no longer for the answer to a write, and decides again.
    pub(crate) fn give_up(&mut self, object: Object) -> Option<Interned<Flight>> {
        let mut in_flight = self.in_flight.iter();
        let place = in_flight.position(|flight| flight.object == object)?;
        self.due = true;
        Some(self.in_flight.remove(place))
    }
}

/// What a decision leads to.
#[derive(Clone)]
pub(crate) struct Decided {
    memory: Interned<Memory>,
    wake: Option<Duration>,
    flights: Vec<Interned<Flight>>,
}

pub(crate) struct Leaders {
    specs: Vec<NodeNetworkTuningSpec>,
    /// Whether the status of tunings is written too.
    statuses: bool,
    mutation: Option<Mutation>,
    /// Anything longer ago counts as this long ago.
    longest: Duration,
    memories: Pool<Memory>,
    flights: Pool<Flight>,
    decided: Memo<(Api, Interned<Memory>, usize), Decided>,
    later: Memo<(Interned<Memory>, Duration), Interned<Memory>>,
}

impl Leaders {
    pub(crate) fn new(setup: &Setup) -> Self {
        let specs = setup.specs.iter().cloned();
        Self {
            specs: specs
                .map(|spec| serde_json::from_value(spec).expect("a tuning's spec"))
                .collect(),
            statuses: setup.statuses,
            mutation: setup.mutation,
            longest: setup.longest,
            memories: Pool::default(),
            flights: Pool::default(),
            decided: Memo::default(),
            later: Memo::default(),
        }
    }

    /// One that has just begun, from whole lists.
    pub(crate) fn begin(&self, api: &Api) -> Leader {
        Leader {
            view: api.clone(),
            memory: self.memories.put(Memory::default()),
            due: true,
            wake: None,
            in_flight: Vec::new(),
        }
    }

    /// It decides, and starts the writes of all objects that have none on its way.
    pub(crate) fn decide(&self, leader: &mut Leader, after: usize) {
        let key = (leader.view.clone(), leader.memory.clone(), after);
        let decided = self.decided.get(&key, |(view, memory, after)| {
            self.look(view, memory, *after)
        });
        leader.memory = decided.memory;
        leader.wake = decided.wake;
        leader.due = false;
        for flight in decided.flights {
            let mut busy = leader.in_flight.iter();
            if !busy.any(|known| known.object == flight.object) {
                leader.in_flight.push(flight);
            }
        }
        leader.in_flight.sort_by_key(|flight| flight.object);
    }

    fn look(&self, view: &Api, memory: &Memory, after: usize) -> Decided {
        let cache = self.cache(view);
        let cluster = cache.state().expect("every list is complete");
        let now = Now {
            mono: NOW,
            wall: Timestamp::UNIX_EPOCH,
        };
        let mut decision = decide(cluster, memory, now);
        let is_new = *memory == Memory::default();
        let passed = match self.mutation {
            Some(Mutation::NewLeaderAssumesAllPassed) if is_new => MINUTE,
            _ => Duration::ZERO,
        };
        reckon(decision.memory.moments_mut(), passed, self.longest);
        let once = self.mutation == Some(Mutation::WritesTuningStatusOnce);
        let wanted = |flight: &Flight| match flight.object {
            Object::Profile(_) => true,
            Object::Tuning(at) => {
                let tuning = view.tunings[at].as_ref();
                self.statuses && (!once || tuning.is_some_and(|tuning| tuning.status.is_null()))
            }
        };
        let flights = decision
            .writes
            .into_iter()
            .filter_map(|write| Flight::of(write, after));
        Decided {
            memory: self.memories.put(decision.memory),
            wake: decision.wake_at.map(|at| at.since(NOW)),
            flights: flights
                .filter(wanted)
                .map(|flight| self.flights.put(flight))
                .collect(),
        }
    }

    fn cache(&self, view: &Api) -> Cache {
        let mut cache = Cache::default();
        for kind in [Kind::Node, Kind::Tuning, Kind::Profile] {
            cache.list_begins(kind);
        }
        for (name, node) in NODES.iter().zip(&view.nodes) {
            node.iter()
                .for_each(|node| cache.node(&observed(name, node)));
        }
        for (name, tuning) in TUNINGS.iter().zip(&view.tunings) {
            if let Some(tuning) = tuning {
                cache.tuning(name, PlannedTuning::new(&self.tuning(name, tuning)));
            }
        }
        for (name, profile) in NODES.iter().zip(&view.profiles) {
            if let Some(profile) = profile {
                cache.profile(name, PlannedProfile::new(&planned(name, profile)));
            }
        }
        for kind in [Kind::Node, Kind::Tuning, Kind::Profile] {
            cache.list_ends(kind);
        }
        cache
    }

    fn tuning(&self, name: &str, tuning: &Interned<Tuning>) -> NodeNetworkTuning {
        let mut spec = self.specs.get(tuning.spec).cloned().unwrap_or_default();
        if self.mutation == Some(Mutation::IgnoresPriority) {
            spec.priority = 0;
        }
        let mut object = NodeNetworkTuning::new(name, spec);
        object.metadata.uid = Some(uid(name, tuning.life));
        object.metadata.generation = i64::try_from(tuning.spec).ok();
        object.metadata.resource_version = Some(tuning.id().to_string());
        object.status = serde_json::from_value(tuning.status.clone()).ok();
        object
    }

    pub(crate) fn pass(&self, leader: &mut Leader, time: Duration) {
        let key = (leader.memory.clone(), time);
        leader.memory = self.later.get(&key, |(memory, time)| {
            let mut memory = Memory::clone(memory);
            reckon(memory.moments_mut(), *time, self.longest);
            self.memories.put(memory)
        });
        leader.wake = leader.wake.map(|wake| wake.saturating_sub(time));
        if leader.wake == Some(Duration::ZERO) {
            leader.wake = None;
            leader.due = true;
        }
    }
}

/// Moves moments so that the present stays where it is while time passes. What is longer ago than
/// `longest` is as long ago as that.
pub(crate) fn reckon<'a>(
    moments: impl Iterator<Item = &'a mut Mono>,
    time: Duration,
    longest: Duration,
) {
    let earliest = NOW.since(Mono::at(longest));
    for moment in moments {
        let moved = moment.since(Mono::at(time));
        *moment = Mono::at(moved.max(earliest));
    }
}

fn observed(name: &str, node: &Node) -> ObservedNode {
    let ready = if node.ready { "True" } else { "Unknown" };
    let node = json!({
        "metadata": {"name": name, "uid": uid(name, node.life)},
        "status": {
            "allocatable": {"pods": "64"},
            "capacity": {"cpu": "4", "memory": "16Gi"},
            "conditions": [{"type": "Ready", "status": ready}],
            "nodeInfo": {
                "architecture": "amd64", "bootID": boot_id(node.boot), "containerRuntimeVersion": "",
                "kernelVersion": "6.1.0", "kubeProxyVersion": "", "kubeletVersion": "",
                "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": ""
            }
        }
    });
    serde_json::from_value(node).expect("a Node")
}

pub(crate) fn boot_id(boot: u8) -> String {
    format!("boot-{boot}")
}

fn planned(name: &str, profile: &Interned<Profile>) -> NodeNetworkProfile {
    let mut object = NodeNetworkProfile::new(name, (*profile.spec).clone());
    object.metadata.uid = Some(uid(name, profile.life));
    object.metadata.generation = Some(profile.generation);
    object.metadata.resource_version = Some(profile.id().to_string());
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid(name, profile.owner)}]);
    object.metadata.owner_references = serde_json::from_value(owner).expect("a reference");
    object.status = serde_json::from_value(profile.status.clone()).ok();
    object
}
