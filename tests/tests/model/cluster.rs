//! A small cluster: its initial state and its invariants.

use std::sync::Mutex;

use nettune_reconcile::observed::{Counts, OverflowCounters};
use nettune_sizing::SysctlKey;
use stateright::{Model, Property};

use crate::action::Action;
use crate::api::{Api, Node, Pools, Tuning};
use crate::host::{Held, Hosts, Kernel, content};
use crate::leader::Leaders;
use crate::liveness::Step;
use crate::rules;
use crate::setup::Setup;
use crate::state::{Reach, State, fingerprint};

mod nodes;
pub(crate) mod steps;
mod time;

/// More generations of a profile than any model here needs.
const MOST_GENERATIONS: i64 = 10;

const MOST_STEPS_TO_SETTLE: usize = 1000;

/// More profiles of one name than any model here needs.
const MOST_LIVES: u8 = 6;

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
            leaders: Leaders::new(&setup),
            hosts: Hosts::new(&setup),
            calm: Mutex::default(),
            setup,
        }
    }

    fn kernel(&self, boot: u8) -> Kernel {
        let held = |(name, value): &(&str, &str)| {
            let key = SysctlKey::parse(name).expect("a key of the allow-list");
            let held = Held {
                content: content(value),
                written: None,
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
            overflows: OverflowCounters::default(),
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
            tuning_lives: [1; 2],
            inputs_done: 0,
            written_after: vec![0; nodes],
            faults_left: self.setup.most_faults,
            struck: vec![false; nodes],
            broken: None,
        }
    }

    /// The same cluster when nothing is left to do: the first step that there is, again and again.
    /// With some mutations there is no end of that.
    fn settled(&self) -> State {
        let mut state = self.untouched();
        for _ in 0..MOST_STEPS_TO_SETTLE {
            let next = self.calm_steps(&state).next();
            let Some(next) = next else { break };
            state = next;
        }
        state
    }

    pub(crate) fn calm_steps<'a>(&'a self, state: &'a State) -> impl Iterator<Item = State> + 'a {
        let actions = self.calm_actions(state);
        actions
            .into_iter()
            .filter_map(|action| self.after(state, &action))
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
        let holds = self.setup.sysctls.iter().all(|(key, booted)| {
            let wanted = owner.and_then(|spec| wanted(spec, key));
            state.holds(at, key) == Some(wanted.as_deref().unwrap_or(booted))
        });
        let said = profile.is_none_or(|profile| profile.is_ready());
        holds && said && profile.is_some() == owner.is_some()
    }

    fn is_at_its_end(&self, state: &State) -> bool {
        self.calm_steps(state).next().is_none()
    }
}

/// What a tuning wants of a key.
fn wanted(spec: &serde_json::Value, key: &str) -> Option<String> {
    let thresholds = &spec["neighbors"]["thresholds"];
    let number = match key.rsplit('.').next()? {
        "gc_thresh1" => &thresholds["gcThresh1"],
        "gc_thresh2" => &thresholds["gcThresh2"],
        "gc_thresh3" => &thresholds["gcThresh3"],
        "nf_conntrack_max" => &spec["conntrack"]["minEntries"],
        _ => {
            let named = spec["sysctls"].as_array()?;
            let named = named.iter().find(|named| named["name"] == key)?;
            return named["value"].as_str().map(str::to_owned);
        }
    };
    number.as_u64().map(|number| number.to_string())
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.settled()]
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
        if self.setup.repeats {
            actions.extend((0..state.leaders.len()).map(Action::LeaderIsWoken));
        }
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
            Property::always("the rules are kept", |_, state: &State| {
                state.broken.is_none()
            }),
            Property::always("statuses are true", |_, state: &State| {
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
                    profiles.all(|profile| {
                        profile.generation <= MOST_GENERATIONS && profile.life <= MOST_LIVES
                    })
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
