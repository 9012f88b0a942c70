//! Checks kernels, profiles, agents' statuses and the tuning's status of a cluster.

use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use nettune_crds::conditions::{self, PROGRESSING, READY, reasons};
use nettune_crds::{KeyState, NodeNetworkProfile, NodeNetworkTuning, ProfileSysctl, Rule};

use super::{Cluster, Machine};

/// How long one look may take, if the API server is down.
const ONE_LOOK: std::time::Duration = std::time::Duration::from_secs(5);

/// The desired state of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct DesiredValue<'a> {
    /// The tuning that owns all nodes.
    pub tuning: &'a str,
    /// Sysctls and the values that every node must hold; others are checked against the profiles.
    pub values: &'a [(&'a str, &'a str)],
}

impl Cluster {
    /// Fails with the first difference, in a node or a status.
    pub async fn is_right(
        &self,
        client: &kube::Client,
        wanted: &DesiredValue<'_>,
    ) -> Result<(), String> {
        let look = async {
            for machine in &self.machines {
                let why = |why| format!("{}: {why}", machine.spec.name);
                machine.holds(wanted.values)?;
                machine.is_right(client, wanted).await.map_err(why)?;
            }
            let tunings = Api::<NodeNetworkTuning>::all(client.clone());
            let tuning = tunings.get(wanted.tuning).await;
            let tuning = tuning.map_err(|error| error.to_string())?;
            says_all_is_well(&tuning, self.machines.len())
        };
        let looked = tokio::time::timeout(ONE_LOOK, look).await;
        looked.unwrap_or_else(|_| Err("the API server does not answer".to_owned()))
    }
}

impl Machine {
    async fn is_right(
        &self,
        client: &kube::Client,
        wanted: &DesiredValue<'_>,
    ) -> Result<(), String> {
        let refused = |error: kube::Error| error.to_string();
        let name = &self.spec.name;
        let nodes = Api::<Node>::all(client.clone());
        let node = nodes.get(name).await.map_err(refused)?;
        let profiles = Api::<NodeNetworkProfile>::all(client.clone());
        let profile = profiles.get(name).await.map_err(refused)?;
        let owners = profile.metadata.owner_references.iter().flatten();
        let mut owners = owners.map(|owner| Some(&owner.uid));
        so(owners.any(|uid| uid == node.metadata.uid.as_ref()), || {
            "its profile is of another Node".to_owned()
        })?;
        let spec = &profile.spec;
        so(spec.tuning == wanted.tuning && !spec.release, || {
            format!("its profile says {spec:?}")
        })?;
        let status = profile.status.as_ref().ok_or("no status")?;
        let ready = conditions::is_true(&status.conditions, READY);
        let generation = profile.metadata.generation;
        let current = status.observed_generation == generation;
        so(
            ready && current && status.boot_id == self.spec.boot_id,
            || format!("generation {generation:?}, and its agent says {status:?}"),
        )?;
        for sysctl in &spec.sysctls {
            let of_key = status.sysctls.iter().find(|said| said.name == sysctl.name);
            let said = of_key.ok_or_else(|| format!("nothing is said of {}", sysctl.name))?;
            let held = self.directory.sysctl(&sysctl.name);
            let held = held.map_err(|error| error.to_string())?;
            let original = self.originals.get(&sysctl.name);
            let known = said.original.is_none() || said.original.as_ref() == original;
            let reported = said.state == KeyState::Applied && said.observed.as_ref() == Some(&held);
            so(reported && known && is_held(sysctl, &held), || {
                format!(
                    "{sysctl:?} wanted, {held} held, {original:?} before; its agent says {said:?}"
                )
            })?;
        }
        Ok(())
    }
}

fn is_held(sysctl: &ProfileSysctl, held: &str) -> bool {
    match sysctl.rule {
        Rule::Exact => held == sysctl.value,
        Rule::AtLeast => {
            let (held, least) = (held.parse::<u64>(), sysctl.value.parse::<u64>());
            matches!((held, least), (Ok(held), Ok(least)) if held >= least)
        }
    }
}

fn says_all_is_well(tuning: &NodeNetworkTuning, nodes: usize) -> Result<(), String> {
    let status = tuning.status.as_ref().ok_or("the tuning has no status")?;
    let count = status.nodes.unwrap_or_default();
    let all = i32::try_from(nodes).unwrap_or(i32::MAX);
    let reason = |type_| {
        let condition = conditions::find(&status.conditions, type_)?;
        Some((condition.status.as_str(), condition.reason.as_str()))
    };
    let well = status.observed_generation == tuning.metadata.generation
        && (
            count.selected,
            count.ready,
            count.failed,
            count.unresponsive,
        ) == (all, all, 0, 0)
        && reason(READY) == Some(("True", reasons::ALL_NODES_READY))
        && reason(PROGRESSING) == Some(("False", reasons::UP_TO_DATE));
    so(well, || format!("the tuning says {status:?}"))
}

fn so(is_so: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise()) }
}
