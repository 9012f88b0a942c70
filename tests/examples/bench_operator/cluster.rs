//! A control plane with Nodes as large as real ones, and what all benchmarks do with it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerImage, Node};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use nettune_crds::{NodeNetworkProfile, NodeNetworkTuning};
use nettune_planner::PlannedProfile;
use nettune_tests::{ControlPlane, ControlPlaneConfig, NodeSpec};
use tokio::sync::watch;

/// Requests under way at once, in the operator and in every bare loop beside it.
pub(crate) const AT_ONCE: usize = 32;

/// A long time: what does not come within it does not come.
const DEADLINE: Duration = Duration::from_secs(600);

/// A tuning of all blocks, 13 sysctls for each node, sized for this many nodes at least.
pub(crate) fn tuning(size_for_nodes: u32) -> String {
    format!(
        "{{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {{name: default}}, \
         spec: {{neighbors: {{podNetwork: Routed, sizeForNodes: {size_for_nodes}}}, conntrack: {{}}, ipvs: {{}}, \
         sysctls: [{{name: net.core.somaxconn, value: '4096'}}, {{name: net.core.netdev_max_backlog, value: '5000'}}]}}}}"
    )
}

/// A control plane with the CRDs.
pub(crate) async fn control_plane() -> anyhow::Result<(ControlPlane, Client)> {
    let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    control_plane.install_crds().await?;
    let client = control_plane.client().await?;
    Ok((control_plane, client))
}

/// Creates Nodes `from..to` of about 6 KB each.
pub(crate) async fn create_nodes(client: &Client, from: u16, to: u16) -> anyhow::Result<()> {
    let nodes: &Api<Node> = &Api::all(client.clone());
    stream::iter(from..to)
        .map(|index| async move {
            nodes
                .create(&PostParams::default(), &node(index))
                .await
                .map(drop)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(())
}

pub(crate) fn name(index: u16) -> String {
    format!(
        "ip-10-1-{}-{}.eu-west-1.compute.internal",
        index >> 8,
        index & 255
    )
}

pub(crate) fn boot_id(index: u16) -> String {
    NodeSpec::worker("", index).boot_id
}

/// A Node of about 6 KB.
pub(crate) fn node(index: u16) -> Node {
    let text = |prefix: &str, count: usize| -> BTreeMap<String, String> {
        (0..count)
            .map(|at| {
                (
                    format!("{prefix}.example.com/key-{at}"),
                    format!("value-{at}-of-{index}"),
                )
            })
            .collect()
    };
    let spec = NodeSpec {
        labels: text("labels", 20),
        annotations: text("annotations", 10),
        ..NodeSpec::worker(&name(index), index)
    };
    let mut node = spec.node();
    let images = (0..20).map(|at| ContainerImage {
        names: Some(vec![format!(
            "registry.example.com/team/service-{at}@sha256:{at:064x}"
        )]),
        size_bytes: Some(100_000_000 + i64::from(at)),
    });
    if let Some(status) = &mut node.status {
        status.images = Some(images.collect());
    }
    node
}

/// A value of every profile, as a watch that parses each of them has it: the same load beside the
/// bare loops that the operator has beside its writes.
pub(crate) struct Parsed {
    state: watch::Receiver<State>,
    task: tokio::task::JoinHandle<()>,
}

/// What the watch has brought until now.
#[derive(Debug, Default, Clone)]
pub(crate) struct State {
    listed: bool,
    thresholds: BTreeMap<String, (String, i64)>,
    /// What each profile says, without the reasons.
    wanted: BTreeMap<String, Vec<(String, String)>>,
    /// Writes that changed none of it.
    pub(crate) without_a_change: usize,
}

impl State {
    /// The gc_thresh3 that this many profiles have, where it is one for all.
    pub(crate) fn agreed(&self, count: usize) -> Option<&str> {
        let mut values = self.thresholds.values().map(|(value, _)| value.as_str());
        let first = values.next()?;
        (self.thresholds.len() == count && values.all(|value| value == first)).then_some(first)
    }

    /// The generations of all profiles.
    pub(crate) fn generations(&self) -> impl Iterator<Item = i64> {
        self.thresholds.values().map(|(_, generation)| *generation)
    }
}

impl Parsed {
    /// Begins to watch.
    pub(crate) async fn begin(client: &Client) -> anyhow::Result<Self> {
        let api = Api::<NodeNetworkProfile>::all(client.clone());
        let (tell, state) = watch::channel(State::default());
        let task = tokio::spawn(async move {
            let mut events =
                std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::InitApply(profile) | watcher::Event::Apply(profile)) => {
                        std::hint::black_box(PlannedProfile::new(&profile));
                        tell.send_modify(|state| state.take(&profile));
                    }
                    Ok(watcher::Event::Delete(profile)) => tell.send_modify(|state| {
                        state
                            .thresholds
                            .remove(profile.metadata.name.as_deref().unwrap_or_default());
                    }),
                    Ok(watcher::Event::InitDone) => tell.send_modify(|state| state.listed = true),
                    Ok(watcher::Event::Init) | Err(_) => {}
                }
            }
        });
        let mut parsed = Self { state, task };
        parsed
            .until("the list of profiles", |state| state.listed)
            .await?;
        Ok(parsed)
    }

    /// Waits until this is so.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        is: impl FnMut(&State) -> bool,
    ) -> anyhow::Result<()> {
        tokio::time::timeout(DEADLINE, self.state.wait_for(is))
            .await
            .with_context(|| format!("waited {DEADLINE:?} for {what}"))??;
        Ok(())
    }

    /// Waits until this many profiles have one gc_thresh3, another one than `before`, and says which.
    pub(crate) async fn agreement(&mut self, count: usize, before: &str) -> anyhow::Result<String> {
        let agreed = |state: &State| {
            state
                .agreed(count)
                .filter(|value| *value != before)
                .map(str::to_owned)
        };
        self.until("all profiles to have one size", |state| {
            agreed(state).is_some()
        })
        .await?;
        agreed(&self.state()).context("they differ again")
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }
}

impl Drop for Parsed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn take(&mut self, profile: &NodeNetworkProfile) {
        let name = profile.metadata.name.clone().unwrap_or_default();
        let value = gc_thresh3(profile).unwrap_or_default().to_owned();
        let generation = profile.metadata.generation.unwrap_or_default();
        let wanted = profile.spec.sysctls.iter();
        let wanted = wanted.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()));
        let before = self.wanted.insert(name.clone(), wanted.collect());
        let known = self.thresholds.insert(name.clone(), (value, generation));
        let is_written = known.is_some_and(|(_, known)| known < generation);
        if is_written && before.as_ref() == self.wanted.get(&name) {
            self.without_a_change += 1;
        }
    }
}

fn gc_thresh3(profile: &NodeNetworkProfile) -> Option<&str> {
    let name = "net.ipv4.neigh.default.gc_thresh3";
    let mut sysctls = profile.spec.sysctls.iter();
    sysctls
        .find(|sysctl| sysctl.name == name)
        .map(|sysctl| sysctl.value.as_str())
}

pub(crate) async fn profiles(client: &Client) -> anyhow::Result<Vec<NodeNetworkProfile>> {
    let api = Api::<NodeNetworkProfile>::all(client.clone());
    Ok(api.list(&ListParams::default()).await?.items)
}

/// Sets `sizeForNodes` of the tuning.
pub(crate) async fn size_for(client: &Client, nodes: u32) -> anyhow::Result<()> {
    let api = Api::<NodeNetworkTuning>::all(client.clone());
    let patch = serde_json::json!({"spec": {"neighbors": {"sizeForNodes": nodes}}});
    api.patch("default", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}
