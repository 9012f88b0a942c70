//! The API server: objects with a uid and a version, and writes that are refused where the version
//! is not the one that they were decided on.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use nettune_crds::NodeNetworkProfileSpec;
use serde_json::{Value, json};

use crate::agent::Process;
use crate::flight::{Change, Flight, Object};
use crate::intern::{Interned, Memo, Pool};

/// Names of the nodes, and of their profiles.
pub(crate) const NODES: [&str; 3] = ["a", "b", "c"];

pub(crate) const TUNINGS: [&str; 2] = ["first", "second"];

/// All objects; a leader's copy of them, which lags behind, is one too.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Api {
    pub(crate) nodes: Vec<Option<Node>>,
    pub(crate) tunings: Vec<Option<Interned<Tuning>>>,
    pub(crate) profiles: Vec<Found>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Node {
    /// Counts the Nodes of this name.
    pub(crate) life: u8,
    /// Counts the boots of the machine.
    pub(crate) boot: u8,
    /// Whether its kubelet reports.
    pub(crate) ready: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Tuning {
    pub(crate) life: u8,
    /// Which of the model's specs it has.
    pub(crate) spec: usize,
    pub(crate) status: Value,
}

/// A profile, where there is one.
pub(crate) type Found = Option<Interned<Profile>>;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Profile {
    pub(crate) life: u8,
    pub(crate) generation: i64,
    /// The life of the Node that owns it.
    pub(crate) owner: u8,
    pub(crate) spec: Arc<NodeNetworkProfileSpec>,
    pub(crate) status: Value,
}

/// The pools of what is in the API.
#[derive(Default)]
pub(crate) struct Pools {
    pub(crate) tunings: Pool<Tuning>,
    pub(crate) profiles: Pool<Profile>,
    changed: Memo<(Interned<Profile>, Interned<Flight>), Found>,
    reported: Memo<(Interned<Profile>, Interned<Process>, u8), Interned<Profile>>,
}

impl Pools {
    /// A profile with the status that an agent in this boot has reported.
    pub(crate) fn reported(
        &self,
        profile: &Interned<Profile>,
        (agent, boot): (&Interned<Process>, u8),
        status: &Value,
    ) -> Interned<Profile> {
        let key = (profile.clone(), agent.clone(), boot);
        self.reported.get(&key, |(profile, ..)| {
            self.profiles.put(Profile {
                status: status.clone(),
                ..Profile::clone(profile)
            })
        })
    }
}

pub(crate) fn uid(name: &str, life: u8) -> String {
    format!("{name}.{life}")
}

pub(crate) fn life(uid: &str) -> u8 {
    let life = uid.rsplit('.').next();
    life.and_then(|life| life.parse().ok()).unwrap_or(u8::MAX)
}

impl Api {
    /// Takes one object as it is.
    pub(crate) fn take(&mut self, api: &Self, object: Object) {
        match object {
            Object::Tuning(at) => self.tunings[at].clone_from(&api.tunings[at]),
            Object::Profile(at) => self.profiles[at].clone_from(&api.profiles[at]),
        }
    }

    /// Performs a write; `false` where it is refused. A profile that it makes has the uid of this
    /// life. `conditional` is what an API server does with a version that a write carries; without
    /// it, the write carries none.
    pub(crate) fn land(
        &mut self,
        flight: &Interned<Flight>,
        life: u8,
        pools: &Pools,
        conditional: bool,
    ) -> bool {
        match flight.object {
            Object::Tuning(at) => {
                let Some(Some(tuning)) = self.tunings.get_mut(at) else {
                    return false;
                };
                let fits = !conditional || Some(tuning.id()) == flight.seen;
                if !fits || tuning.life != flight.life {
                    return false;
                }
                if let Change::Status(status) = &flight.change {
                    *tuning = pools.tunings.put(Tuning {
                        status: status.clone(),
                        ..Tuning::clone(tuning)
                    });
                }
                true
            }
            Object::Profile(at) => {
                let Some(profile) = self.profiles.get_mut(at) else {
                    return false;
                };
                let Some(found) = profile else {
                    let Change::Create { owner, spec } = &flight.change else {
                        return false;
                    };
                    *profile = Some(pools.profiles.put(Profile {
                        life,
                        generation: 1,
                        owner: *owner,
                        spec: Arc::clone(spec),
                        status: Value::Null,
                    }));
                    return true;
                };
                let fits = !conditional || Some(found.id()) == flight.seen;
                if !fits || found.life != flight.life {
                    return false;
                }
                let key = (found.clone(), flight.clone());
                *profile = pools.changed.get(&key, |(found, flight)| {
                    let changed = found.changed(&flight.change)?;
                    Some(pools.profiles.put(changed))
                });
                true
            }
        }
    }
}

impl Profile {
    /// `None` where it is gone afterwards. An API server counts a generation only where the spec
    /// differs.
    fn changed(&self, change: &Change) -> Option<Self> {
        let mut spec = NodeNetworkProfileSpec::clone(&self.spec);
        let mut after = self.clone();
        match change {
            Change::Create { .. } | Change::Status(_) => {}
            Change::Replace { owner, spec: to } => {
                after.owner = *owner;
                spec = NodeNetworkProfileSpec::clone(to);
            }
            Change::Release { canary } => {
                spec.release = true;
                spec.canary = *canary;
            }
            Change::Delete => return None,
            Change::Silent(ready) => after.set_condition(ready),
        }
        if spec != *self.spec {
            after.spec = Arc::new(spec);
            after.generation += 1;
        }
        Some(after)
    }

    fn set_condition(&mut self, ready: &Value) {
        if !self.status.is_object() {
            self.status = json!({});
        }
        let conditions = &mut self.status["conditions"];
        if !conditions.is_array() {
            *conditions = json!([]);
        }
        for condition in conditions.as_array_mut().into_iter().flatten() {
            if condition["type"] == ready["type"] {
                *condition = ready.clone();
                return;
            }
        }
        conditions
            .as_array_mut()
            .into_iter()
            .for_each(|all| all.push(ready.clone()));
    }

    /// A condition of its status.
    pub(crate) fn condition(&self, type_: &str) -> Option<Condition> {
        let all = self.status.get("conditions")?.as_array()?;
        let found = all.iter().find(|condition| condition["type"] == type_)?;
        serde_json::from_value(found.clone()).ok()
    }

    /// Whether its agent says of this very spec that the kernel holds it.
    pub(crate) fn is_ready(&self) -> bool {
        self.status["observedGeneration"] == self.generation
            && self
                .condition("Ready")
                .is_some_and(|ready| ready.status == "True")
    }
}
