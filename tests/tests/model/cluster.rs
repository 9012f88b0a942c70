//! A small cluster whose every interleaving is gone through: its states, and what can happen next.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Mutex;
use std::time::Duration;

use nettune_agent::live::{Content, Counts, Distress};
use nettune_sizing::{SysctlKey, Value};
use stateright::{Model, Property};

use crate::api::{Api, Flight, NODES, Node, Object, Pools, TUNINGS, Tuning};
use crate::host::{Held, Host, Hosts, Kernel};
use crate::intern::Interned;
use crate::leader::{Leader, Leaders};
use crate::liveness::Step;
use crate::planted::Planted;
use crate::rules;

/// What a model is of.
pub(crate) struct Setup {
    /// How many nodes.
    pub(crate) nodes: usize,
    /// The sysctls that a kernel boots with.
    pub(crate) sysctls: Vec<(&'static str, &'static str)>,
    /// Specs of tunings.
    pub(crate) specs: Vec<serde_json::Value>,
    /// Which spec each tuning has at first.
    pub(crate) tunings: [Option<usize>; 2],
    /// What people do, in this order, at any time.
    pub(crate) inputs: Vec<Input>,
    /// What may go wrong, at any time.
    pub(crate) faults: Vec<Fault>,
    /// How often something may go wrong.
    pub(crate) most_faults: u8,
    /// One effect of an agent is one step; else it does all it has to before anything else happens.
    pub(crate) fine: bool,
    /// A leader's watches bring each kind of object when they like; else it looks at all of them when
    /// it decides. Its writes are on their way for as long as they like in any case.
    pub(crate) lag: bool,
    /// The status of tunings is written too.
    pub(crate) statuses: bool,
    /// An answer may come late: other decisions are made before it.
    pub(crate) late_answers: bool,
    /// Time passes only when what is on its way has come. Else it passes at any time, and any process
    /// may be slow for as long as it likes.
    pub(crate) prompt: bool,
    /// A value that cuts a node off.
    pub(crate) deadly: Option<(&'static str, &'static str)>,
    /// On how many nodes that value may ever be.
    pub(crate) most_cut_off: usize,
    /// No longer ago than this is told apart: as long as the longest that is waited for.
    pub(crate) longest: Duration,
    /// Whether everything is as it should be once nothing is left to do.
    pub(crate) right: fn(&Cluster, &State) -> bool,
    /// A fault of the shell that must be found.
    pub(crate) planted: Option<Planted>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 2,
            sysctls: vec![(SOMAXCONN, "128")],
            specs: Vec::new(),
            tunings: [Some(0), None],
            inputs: Vec::new(),
            faults: Vec::new(),
            most_faults: 0,
            fine: false,
            lag: false,
            statuses: false,
            late_answers: false,
            prompt: false,
            deadly: None,
            most_cut_off: 0,
            longest: Duration::from_secs(60),
            right: Cluster::holds_what_is_wanted,
            planted: None,
        }
    }
}

/// The sysctl of most models.
pub(crate) const SOMAXCONN: &str = "net.core.somaxconn";

/// After at most this long a node that is cut off is not Ready any more: the node controller's grace
/// period for a kubelet that is not heard of is 40 s, or 50 s since Kubernetes 1.32.
const GRACE: Duration = Duration::from_secs(50);

/// More generations of a profile than any model here needs.
const MOST_GENERATIONS: i64 = 10;

/// More profiles of one name than any model here needs.
const MOST_LIVES: u8 = 6;

/// What people do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// A tuning gets this spec; it is made where it is not there.
    Tunes(usize, usize),
    /// A tuning is deleted.
    Deletes(usize),
}

/// What may go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A leader is killed; the next one begins, and what was on its way may still arrive.
    LeaderDies,
    /// Another leader begins while the first goes on for a while.
    SecondLeader,
    /// A write is lost on its way, or its answer does not come.
    WriteIsLost,
    /// An agent is killed; the next one begins.
    AgentDies,
    /// A machine boots again.
    Reboot,
    /// A Node is deleted.
    NodeGoes,
    /// Somebody else sets a sysctl.
    Rival(&'static str, &'static str),
    /// This many entries are in both tables from now on.
    Fills(u64),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) api: Api,
    pub(crate) hosts: Vec<Host>,
    reach: Vec<Reach>,
    pub(crate) leaders: Vec<Leader>,
    /// Writes of leaders that are gone.
    orphans: Vec<Interned<Flight>>,
    /// Counts the profiles of each name.
    lives: Vec<u8>,
    /// Counts the tunings of each name.
    tuning_lives: [u8; 2],
    inputs_done: usize,
    faults_left: u8,
    /// Nodes on which the deadly value was.
    struck: Vec<bool>,
    broken: Option<&'static str>,
}

/// Whether a node is reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Reach {
    Reached,
    /// For at most this long yet.
    Fading(Duration),
    CutOff,
}

/// What happens next. Nodes, leaders and tunings by their index.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    LeaderSees(usize, Kind),
    LeaderDecides(usize),
    Lands(usize, Object, Answer),
    OrphanLands(usize),
    OrphanIsLost(usize),
    LeaderRetires,
    AgentSees(usize),
    AgentActs(usize),
    AgentReports(usize),
    ProfileIsCollected(usize),
    NodeIsCutOff(usize),
    NodeComesBack(usize),
    TimePasses,
    Input,
    LeaderDies(usize),
    SecondLeader,
    WriteIsLost(usize, Object),
    AgentDies(usize),
    Reboots(usize),
    NodeGoes(usize),
    Rival(usize, &'static str, &'static str),
    Fills(usize, u64),
}

/// What a watch is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind {
    Nodes,
    Tunings,
    Profiles,
}

/// When the answer to a write comes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Answer {
    AtOnce,
    /// The watch is faster.
    Late,
}

pub(crate) struct Cluster {
    pub(crate) setup: Setup,
    pools: Pools,
    leaders: Leaders,
    hosts: Hosts,
    /// Steps without a fault or an input, from and to.
    pub(crate) calm: Mutex<Vec<Step>>,
}

impl Cluster {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            pools: Pools::default(),
            leaders: Leaders::new(&setup.specs, setup.statuses, setup.longest),
            hosts: Hosts::new(setup.fine, setup.longest, setup.planted),
            calm: Mutex::default(),
            setup,
        }
    }

    fn kernel(&self, boot: u8) -> Kernel {
        let held = |(name, value): &(&str, &str)| {
            let key = SysctlKey::parse(name).expect("a key of the allow-list");
            let held = Held {
                content: content(value),
                ours: false,
                original: None,
            };
            (key, held)
        };
        Kernel {
            boot,
            keys: self.setup.sysctls.iter().map(held).collect(),
            counts: Counts {
                neighbors_ipv4: Some(0),
                neighbors_ipv6: Some(0),
                conntrack: Some(0),
            },
            distress: Distress::default(),
        }
    }

    /// A cluster in which nothing was done yet.
    fn untouched(&self) -> State {
        let nodes = self.setup.nodes;
        let node = Node {
            life: 1,
            boot: 1,
            ready: true,
        };
        let tuning = |spec: Option<usize>| {
            spec.map(|spec| {
                self.pools.tunings.put(Tuning {
                    life: 1,
                    spec,
                    status: serde_json::Value::Null,
                })
            })
        };
        let api = Api {
            nodes: vec![Some(node); nodes],
            tunings: self.setup.tunings.map(tuning).into(),
            profiles: vec![None; nodes],
        };
        State {
            leaders: vec![self.leaders.begin(&api)],
            api,
            hosts: vec![self.hosts.boot(self.kernel(1)); nodes],
            reach: vec![Reach::Reached; nodes],
            orphans: Vec::new(),
            lives: vec![0; nodes],
            tuning_lives: [1; 2],
            inputs_done: 0,
            faults_left: self.setup.most_faults,
            struck: vec![false; nodes],
            broken: None,
        }
    }

    /// The same cluster when nothing is left to do: the first step that there is, again and again.
    fn settled(&self) -> State {
        let mut state = self.untouched();
        loop {
            let next = self.calm_steps(&state).next();
            let Some(next) = next else { return state };
            state = next;
        }
    }

    pub(crate) fn calm_steps<'a>(&'a self, state: &'a State) -> impl Iterator<Item = State> + 'a {
        let actions = self.calm_actions(state);
        actions
            .into_iter()
            .filter_map(|action| self.after(state, &action))
    }

    /// What happens by itself.
    fn calm_actions(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        for (at, leader) in state.leaders.iter().enumerate() {
            if self.setup.lag {
                let kinds = [Kind::Nodes, Kind::Tunings, Kind::Profiles];
                actions.extend(kinds.map(|kind| Action::LeaderSees(at, kind)));
            }
            actions.push(Action::LeaderDecides(at));
            for flight in &leader.in_flight {
                actions.push(Action::Lands(at, flight.object, Answer::AtOnce));
                if self.setup.late_answers {
                    actions.push(Action::Lands(at, flight.object, Answer::Late));
                }
            }
        }
        for orphan in 0..state.orphans.len() {
            actions.push(Action::OrphanLands(orphan));
            actions.push(Action::OrphanIsLost(orphan));
        }
        actions.push(Action::LeaderRetires);
        for node in 0..state.hosts.len() {
            actions.extend([
                Action::AgentSees(node),
                Action::AgentActs(node),
                Action::AgentReports(node),
                Action::ProfileIsCollected(node),
                Action::NodeIsCutOff(node),
                Action::NodeComesBack(node),
            ]);
        }
        actions.push(Action::TimePasses);
        actions
    }

    fn faults(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        if state.faults_left == 0 {
            return actions;
        }
        let nodes = 0..state.hosts.len();
        for fault in &self.setup.faults {
            match *fault {
                Fault::LeaderDies => {
                    actions.extend((0..state.leaders.len()).map(Action::LeaderDies));
                }
                Fault::SecondLeader => actions.push(Action::SecondLeader),
                Fault::WriteIsLost => {
                    for (at, leader) in state.leaders.iter().enumerate() {
                        let objects = leader.in_flight.iter().map(|flight| flight.object);
                        actions.extend(objects.map(|object| Action::WriteIsLost(at, object)));
                    }
                }
                Fault::AgentDies => actions.extend(nodes.clone().map(Action::AgentDies)),
                Fault::Reboot => actions.extend(nodes.clone().map(Action::Reboots)),
                Fault::NodeGoes => actions.extend(nodes.clone().map(Action::NodeGoes)),
                Fault::Rival(key, value) => {
                    actions.extend(nodes.clone().map(|node| Action::Rival(node, key, value)));
                }
                Fault::Fills(count) => {
                    actions.extend(nodes.clone().map(|node| Action::Fills(node, count)));
                }
            }
        }
        actions
    }

    /// Whether a step may change anything, told without making it.
    fn may(&self, state: &State, action: &Action) -> bool {
        match *action {
            Action::LeaderSees(at, Kind::Nodes) => state.leaders[at].view.nodes != state.api.nodes,
            Action::LeaderSees(at, Kind::Tunings) => {
                state.leaders[at].view.tunings != state.api.tunings
            }
            Action::LeaderSees(at, Kind::Profiles) => {
                state.leaders[at].view.profiles != state.api.profiles
            }
            Action::LeaderDecides(at) => {
                let leader = &state.leaders[at];
                leader.due || (!self.setup.lag && leader.view != state.api)
            }
            Action::LeaderRetires => state.leaders.len() > 1,
            Action::AgentSees(at) => self.setup.fine && !state.agent_knows(at),
            Action::AgentActs(at) => {
                let host = &state.hosts[at];
                (!self.setup.fine && !state.agent_knows(at)) || self.hosts.acts(host)
            }
            Action::AgentReports(at) => self.hosts.report(&state.hosts[at]).is_some(),
            Action::ProfileIsCollected(at) => state.api.profiles[at].is_some(),
            Action::NodeIsCutOff(at) => matches!(state.reach[at], Reach::Fading(_)),
            Action::NodeComesBack(at) => state.api.nodes[at].is_none(),
            Action::TimePasses => self.soonest(state).is_some(),
            _ => true,
        }
    }

    /// The state after a step; `None` where it cannot be made or changes nothing.
    fn after(&self, state: &State, action: &Action) -> Option<State> {
        if !self.may(state, action) {
            return None;
        }
        let mut next = state.clone();
        let fault = match *action {
            Action::LeaderDies(_)
            | Action::SecondLeader
            | Action::WriteIsLost(..)
            | Action::AgentDies(_)
            | Action::Reboots(_)
            | Action::NodeGoes(_)
            | Action::Rival(..)
            | Action::Fills(..) => 1,
            _ => 0,
        };
        next.faults_left = state.faults_left.checked_sub(fault)?;
        let done = match *action {
            Action::LeaderSees(leader, kind) => next.leader_sees(leader, kind),
            Action::LeaderDecides(leader) => {
                let leader = next.leaders.get_mut(leader)?;
                if !self.setup.lag {
                    leader.due |= leader.view != next.api;
                    leader.view.clone_from(&next.api);
                }
                if leader.due {
                    self.leaders.decide(leader);
                }
                true
            }
            Action::Lands(leader, object, answer) => self.lands(&mut next, leader, object, answer),
            Action::OrphanLands(at) => {
                let flight = next.orphans.remove(at);
                self.land(&mut next, &flight);
                true
            }
            Action::OrphanIsLost(at) => {
                next.orphans.remove(at);
                true
            }
            Action::LeaderRetires => next.leaders.len() > 1 && next.end_leader(0),
            Action::TimePasses => self.time_passes(&mut next),
            Action::Input => self.input(&mut next)?,
            Action::LeaderDies(at) => {
                next.end_leader(at);
                next.leaders.insert(at, self.leaders.begin(&next.api));
                true
            }
            Action::SecondLeader => {
                next.leaders.push(self.leaders.begin(&next.api));
                next.leaders.len() == 2
            }
            Action::WriteIsLost(leader, object) => {
                let leader = next.leaders.get_mut(leader)?;
                leader.in_flight.retain(|flight| flight.object != object);
                leader.due = true;
                true
            }
            Action::AgentSees(node)
            | Action::AgentActs(node)
            | Action::AgentReports(node)
            | Action::ProfileIsCollected(node)
            | Action::NodeIsCutOff(node)
            | Action::NodeComesBack(node)
            | Action::AgentDies(node)
            | Action::Reboots(node)
            | Action::NodeGoes(node)
            | Action::Rival(node, ..)
            | Action::Fills(node, _) => self.on_node(&mut next, node, action)?,
        };
        (done && next != *state).then_some(next)
    }

    fn lands(&self, next: &mut State, leader: usize, object: Object, answer: Answer) -> bool {
        let Some(own) = next.leaders.get_mut(leader) else {
            return false;
        };
        let Some(place) = own
            .in_flight
            .iter()
            .position(|flight| flight.object == object)
        else {
            return false;
        };
        let flight = own.in_flight.remove(place);
        let is_done = self.land(next, &flight);
        let (api, Some(leader)) = (&next.api, next.leaders.get_mut(leader)) else {
            return false;
        };
        // Otherwise the watch brings what there is.
        if is_done && answer == Answer::AtOnce {
            leader.view.take(api, object);
        }
        leader.due = true;
        true
    }

    fn land(&self, next: &mut State, flight: &Flight) -> bool {
        let conditional = self.setup.planted != Some(Planted::WritesWithoutVersion);
        next.api
            .land(flight, &mut next.lives, &self.pools, conditional)
    }

    fn input(&self, next: &mut State) -> Option<bool> {
        let input = *self.setup.inputs.get(next.inputs_done)?;
        next.inputs_done += 1;
        match input {
            Input::Tunes(at, spec) => {
                let known = next.api.tunings[at].as_deref();
                let status = known.map(|known| known.status.clone()).unwrap_or_default();
                if known.is_none() {
                    next.tuning_lives[at] += 1;
                }
                next.api.tunings[at] = Some(self.pools.tunings.put(Tuning {
                    life: next.tuning_lives[at],
                    spec,
                    status,
                }));
            }
            Input::Deletes(at) => next.api.tunings[at] = None,
        }
        Some(true)
    }

    /// How long it takes until something is due.
    fn soonest(&self, state: &State) -> Option<Duration> {
        let hosts = state.hosts.iter().zip(&state.reach);
        let dues = hosts.flat_map(|(host, reach)| {
            let fading = match reach {
                Reach::Fading(left) => Some(*left),
                Reach::Reached | Reach::CutOff => None,
            };
            [self.hosts.due(host), fading].into_iter().flatten()
        });
        let wakes = state.leaders.iter().filter_map(|leader| leader.wake);
        dues.chain(wakes).min().filter(|time| !time.is_zero())
    }

    fn time_passes(&self, next: &mut State) -> bool {
        let Some(time) = self.soonest(next) else {
            return false;
        };
        if self.setup.prompt && !self.is_quiet(next) {
            return false;
        }
        for leader in &mut next.leaders {
            self.leaders.pass(leader, time);
        }
        for (host, reach) in next.hosts.iter_mut().zip(&mut next.reach) {
            self.hosts.pass(host, time);
            if let Reach::Fading(left) = reach {
                *left = left.saturating_sub(time);
            }
        }
        true
    }

    /// Whether nothing is on its way.
    fn is_quiet(&self, state: &State) -> bool {
        let actions = self.calm_actions(state).into_iter();
        let mut others = actions.filter(|action| {
            !matches!(
                action,
                Action::TimePasses | Action::NodeIsCutOff(_) | Action::LeaderRetires
            )
        });
        others.all(|action| self.after(state, &action).is_none())
    }

    fn on_node(&self, next: &mut State, at: usize, action: &Action) -> Option<bool> {
        let name = NODES[at];
        let is_reached = next.reach[at] != Reach::CutOff && next.api.nodes[at].is_some();
        let host = &mut next.hosts[at];
        let profile = &mut next.api.profiles[at];
        Some(match *action {
            Action::AgentSees(_) => {
                if is_reached && self.setup.fine {
                    self.hosts.bring(host, name, profile.as_ref());
                }
                true
            }
            Action::AgentActs(_) => {
                if is_reached && !self.setup.fine {
                    self.hosts.bring(host, name, profile.as_ref());
                }
                self.hosts.act(host);
                next.broken = next.broken.or(host.broken);
                self.strike(next, at);
                true
            }
            Action::AgentReports(_) => {
                let status = self.hosts.report(host).filter(|_| is_reached)?;
                let known = host.process.as_ref()?.profile.clone();
                let is_conditional = self.setup.planted != Some(Planted::WritesWithoutVersion);
                let there = profile.clone()?;
                if is_conditional && known.as_ref() != Some(&there) {
                    // Refused; the watch brings what there is.
                    return None;
                }
                let told = self.pools.profiles.put(crate::api::Profile {
                    status,
                    ..crate::api::Profile::clone(&there)
                });
                *profile = Some(told.clone());
                self.hosts.answer(host, &told);
                true
            }
            Action::ProfileIsCollected(_) => {
                let owner = profile.as_ref()?.owner;
                let is_orphan = next.api.nodes[at].is_none_or(|node| node.life != owner);
                if is_orphan {
                    *profile = None;
                }
                is_orphan
            }
            Action::NodeIsCutOff(_) => {
                let is_fading = matches!(next.reach[at], Reach::Fading(_));
                if is_fading {
                    next.reach[at] = Reach::CutOff;
                    next.api.nodes[at].as_mut()?.ready = false;
                }
                is_fading
            }
            Action::NodeComesBack(_) => {
                let is_gone = next.api.nodes[at].is_none();
                if is_gone {
                    // Its uid counts on, which the profiles' owners tell.
                    let boot = host.kernel.boot + 1;
                    self.hosts.replace(host, self.kernel(boot));
                    next.api.nodes[at] = Some(Node {
                        life: boot,
                        boot,
                        ready: true,
                    });
                    next.reach[at] = Reach::Reached;
                }
                is_gone
            }
            Action::AgentDies(_) => {
                self.hosts.start(host);
                true
            }
            Action::Reboots(_) => {
                let node = next.api.nodes[at].as_mut()?;
                node.boot += 1;
                let kernel = self.kernel(node.boot);
                self.hosts.reboot(host, kernel);
                true
            }
            Action::NodeGoes(_) => {
                host.process = None;
                next.api.nodes[at].take().is_some()
            }
            Action::Rival(_, key, value) => {
                self.hosts.disturb(host, |kernel| {
                    for (own, held) in &mut kernel.keys {
                        if own.name() == key {
                            (held.content, held.ours) = (content(value), false);
                        }
                    }
                });
                self.strike(next, at);
                true
            }
            Action::Fills(_, count) => {
                self.hosts.disturb(host, |kernel| {
                    kernel.counts = Counts {
                        neighbors_ipv4: Some(count),
                        neighbors_ipv6: Some(count),
                        conntrack: Some(count),
                    };
                });
                true
            }
            _ => false,
        })
    }

    /// Where the deadly value is, a node is soon not reached any more.
    fn strike(&self, next: &mut State, at: usize) {
        let Some((key, value)) = self.setup.deadly else {
            return;
        };
        let is_deadly = next.holds(at, key) == Some(value);
        match (is_deadly, next.reach[at]) {
            (true, Reach::Reached) => {
                next.struck[at] = true;
                next.reach[at] = Reach::Fading(GRACE);
            }
            (false, Reach::Fading(_)) => next.reach[at] = Reach::Reached,
            _ => {}
        }
    }

    /// Each node holds what its tuning wants, and its profile says so; where there is none, the
    /// kernel holds what it booted with.
    pub(crate) fn holds_what_is_wanted(&self, state: &State) -> bool {
        (0..self.setup.nodes).all(|at| self.is_right_on(state, at))
    }

    pub(crate) fn is_right_on(&self, state: &State, at: usize) -> bool {
        let profile = state.api.profiles[at].as_ref();
        let mut tunings = state.api.tunings.iter().flatten();
        let specs = tunings
            .by_ref()
            .map(|tuning| &self.setup.specs[tuning.spec]);
        let owner = specs.max_by_key(|spec| spec["priority"].as_i64().unwrap_or(0));
        let wanted = owner.and_then(|spec| spec["sysctls"].as_array());
        let holds = self.setup.sysctls.iter().all(|(key, booted)| {
            let mut named = wanted.into_iter().flatten();
            let wanted = named.find(|named| named["name"] == *key);
            let wanted = wanted.and_then(|wanted| wanted["value"].as_str());
            state.holds(at, key) == Some(wanted.unwrap_or(booted))
        });
        let said = profile.is_none_or(|profile| profile.is_ready());
        holds && said && profile.is_some() == owner.is_some()
    }

    fn is_at_its_end(&self, state: &State) -> bool {
        self.calm_steps(state).next().is_none()
    }
}

fn fingerprint(of: &impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(of)
}

fn content(value: &str) -> Content {
    Value::parse(value).map_or(Content::Empty, Content::Value)
}

impl Api {
    /// Takes one object as it is.
    fn take(&mut self, api: &Self, object: Object) {
        match object {
            Object::Tuning(at) => self.tunings[at].clone_from(&api.tunings[at]),
            Object::Profile(at) => self.profiles[at].clone_from(&api.profiles[at]),
        }
    }
}

impl State {
    fn leader_sees(&mut self, leader: usize, kind: Kind) -> bool {
        let Some(leader) = self.leaders.get_mut(leader) else {
            return false;
        };
        let before = leader.view.clone();
        match kind {
            Kind::Nodes => leader.view.nodes.clone_from(&self.api.nodes),
            Kind::Tunings => leader.view.tunings.clone_from(&self.api.tunings),
            Kind::Profiles => leader.view.profiles.clone_from(&self.api.profiles),
        }
        let differs = before != leader.view;
        leader.due |= differs;
        differs
    }

    /// Whether an agent has seen the profile that is there.
    fn agent_knows(&self, at: usize) -> bool {
        let process = self.hosts[at].process.as_ref();
        process.is_none_or(|process| process.profile == self.api.profiles[at])
    }

    /// A leader ends; what it has sent may still arrive.
    fn end_leader(&mut self, at: usize) -> bool {
        let leader = self.leaders.remove(at);
        self.orphans.extend(leader.in_flight);
        self.orphans.sort_by_key(Interned::id);
        self.orphans.dedup();
        true
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

    /// Whether a node is cut off.
    pub(crate) fn is_cut_off(&self, at: usize) -> bool {
        self.reach[at] == Reach::CutOff
    }

    /// The rule that was broken.
    pub(crate) fn broken(&self) -> Option<&'static str> {
        self.broken
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        // What a planted fault breaks may be broken on the way to rest already.
        vec![match self.setup.planted {
            Some(_) => self.untouched(),
            None => self.settled(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        actions.extend(self.calm_actions(state));
        if state.inputs_done < self.setup.inputs.len() {
            actions.push(Action::Input);
        }
        actions.extend(self.faults(state));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let next = self.after(last, &action)?;
        if action.is_calm()
            && let Ok(mut calm) = self.calm.lock()
        {
            calm.push(Step {
                from: last.fingerprint(),
                action: fingerprint(&action),
                to: next.fingerprint(),
            });
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the agent keeps the rules", |_, state: &State| {
                state.broken.is_none()
            }),
            Property::always("statuses tell the truth", |_, state: &State| {
                let mut profiles = state.api.profiles.iter().flatten();
                profiles.all(|profile| rules::tells_the_truth(profile))
            }),
            Property::always(
                "damage stays within the wave",
                |model: &Self, state: &State| {
                    let struck = state.struck.iter().filter(|struck| **struck);
                    struck.count() <= model.setup.most_cut_off
                },
            ),
            Property::always(
                "no profile is written again and again",
                |_, state: &State| {
                    let mut profiles = state.api.profiles.iter().flatten();
                    profiles.all(|profile| profile.generation <= MOST_GENERATIONS)
                        && state.lives.iter().all(|lives| *lives <= MOST_LIVES)
                },
            ),
            Property::always(
                "it ends at the right values",
                |model: &Self, state: &State| {
                    !model.is_at_its_end(state) || (model.setup.right)(model, state)
                },
            ),
        ]
    }
}

impl Action {
    /// Whether it is neither a fault nor what people do.
    pub(crate) fn is_calm(&self) -> bool {
        !matches!(
            self,
            Self::Input
                | Self::LeaderDies(_)
                | Self::SecondLeader
                | Self::WriteIsLost(..)
                | Self::AgentDies(_)
                | Self::Reboots(_)
                | Self::NodeGoes(_)
                | Self::Rival(..)
                | Self::Fills(..)
        )
    }
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LeaderSees(leader, kind) => write!(f, "leader {leader} sees the {kind:?}"),
            Self::LeaderDecides(leader) => write!(f, "leader {leader} decides"),
            Self::Lands(leader, object, answer) => {
                write!(
                    f,
                    "leader {leader}'s write of {object:?} lands, answered {answer:?}"
                )
            }
            Self::OrphanLands(at) => write!(f, "write {at} of a leader that is gone lands"),
            Self::OrphanIsLost(at) => write!(f, "write {at} of a leader that is gone is lost"),
            Self::LeaderRetires => write!(f, "leader 0 ends"),
            Self::AgentSees(node) => write!(f, "agent {} sees its profile", NODES[*node]),
            Self::AgentActs(node) => write!(f, "agent {} acts", NODES[*node]),
            Self::AgentReports(node) => write!(f, "agent {} reports", NODES[*node]),
            Self::ProfileIsCollected(node) => {
                write!(f, "profile {} is collected with its node", NODES[*node])
            }
            Self::NodeIsCutOff(node) => write!(f, "node {} is cut off", NODES[*node]),
            Self::NodeComesBack(node) => write!(f, "node {} comes back", NODES[*node]),
            Self::TimePasses => write!(f, "time passes"),
            Self::Input => write!(f, "INPUT"),
            Self::LeaderDies(leader) => write!(f, "FAULT: leader {leader} dies"),
            Self::SecondLeader => write!(f, "FAULT: a second leader begins"),
            Self::WriteIsLost(leader, object) => {
                write!(f, "FAULT: leader {leader}'s write of {object:?} is lost")
            }
            Self::AgentDies(node) => write!(f, "FAULT: agent {} dies", NODES[*node]),
            Self::Reboots(node) => write!(f, "FAULT: node {} boots again", NODES[*node]),
            Self::NodeGoes(node) => write!(f, "FAULT: node {} is deleted", NODES[*node]),
            Self::Rival(node, key, value) => {
                write!(
                    f,
                    "FAULT: somebody sets {key} = {value} on {}",
                    NODES[*node]
                )
            }
            Self::Fills(node, count) => {
                write!(f, "FAULT: the tables of {} hold {count}", NODES[*node])
            }
        }
    }
}

/// One line about a state, for a path that people read.
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
                    if profile.spec.trial { " trial" } else { "" },
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
