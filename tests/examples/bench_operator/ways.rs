//! The ways of writing a profile and its status, each as fast as the API server takes it.

use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use nettune_crds::{NodeNetworkProfile, ProfileSysctl, Rule, SysctlStatus};
use serde_json::json;

use crate::cluster::{self, AT_ONCE, Parsed};
use crate::report::{Report, median, rate};

/// Objects that are written in turn.
const PROFILES: u16 = 300;

#[derive(Clone, Copy)]
enum Way {
    Apply,
    Merge,
    Put,
}

const WAYS: [(Way, &str); 3] = [
    (Way::Apply, "server-side apply"),
    (Way::Merge, "merge patch"),
    (Way::Put, "PUT"),
];

pub(crate) async fn measure(report: &mut Report, runs: usize) -> anyhow::Result<()> {
    report.doing("ways of writing");
    let (_control_plane, client) = cluster::control_plane().await?;
    let api = Api::<NodeNetworkProfile>::all(client.clone());
    for index in 0..PROFILES {
        api.create(&PostParams::default(), &profile(&cluster::name(index), 0))
            .await?;
    }
    let watched = Parsed::begin(&client).await?;
    for of_status in [false, true] {
        let what = if of_status { "status" } else { "spec" };
        let mut rates = vec![Vec::new(); WAYS.len()];
        for run in 1..=runs {
            for (rates, (way, _)) in rates.iter_mut().zip(WAYS) {
                // Apply keeps who owns which field: it comes first in each run, so that none gains by it.
                rates.push(write_all(&client, way, of_status, run).await?);
            }
        }
        for (rates, (_, name)) in rates.into_iter().zip(WAYS) {
            let rate = median(rates);
            report.figure(
                format!("{what} of a profile of 13 keys by {name}"),
                format!("{rate:.0} writes/s"),
            );
        }
    }
    drop(watched);
    Ok(())
}

async fn write_all(client: &Client, way: Way, of_status: bool, run: usize) -> anyhow::Result<f64> {
    let profiles = cluster::profiles(client).await?;
    let count = profiles.len();
    let began = Instant::now();
    stream::iter(profiles)
        .map(|profile| write(client, profile, way, of_status, run))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(rate(count, began.elapsed()))
}

async fn write(
    client: &Client,
    there: NodeNetworkProfile,
    way: Way,
    of_status: bool,
    run: usize,
) -> anyhow::Result<()> {
    let api = Api::<NodeNetworkProfile>::all(client.clone());
    let name = there.name_any();
    // Each way writes another value than the one before it.
    let step = run * WAYS.len() + way as usize;
    let wanted = profile(&name, step);
    let content = if of_status {
        json!({"status": {"sysctls": statuses(step)}})
    } else {
        json!({"spec": wanted.spec})
    };
    let mut body = content.clone();
    body["metadata"] = json!({"name": name, "resourceVersion": there.resource_version()});
    let manager = PatchParams::apply("bench").force();
    let merge = PatchParams {
        force: false,
        ..manager.clone()
    };
    match (way, of_status) {
        (Way::Apply, _) => {
            body["apiVersion"] = json!("nettune.dev/v1alpha1");
            body["kind"] = json!("NodeNetworkProfile");
            let body = Patch::Apply(&body);
            if of_status {
                drop(api.patch_status(&name, &manager, &body).await?)
            } else {
                drop(api.patch(&name, &manager, &body).await?)
            }
        }
        (Way::Merge, true) => drop(
            api.patch_status(&name, &merge, &Patch::Merge(&body))
                .await?,
        ),
        (Way::Merge, false) => drop(api.patch(&name, &merge, &Patch::Merge(&body)).await?),
        (Way::Put, true) => {
            let mut whole = there;
            whole.metadata.managed_fields = None;
            let mut status = whole.status.take().unwrap_or_default();
            status.sysctls = statuses(step);
            whole.status = Some(status);
            api.replace_status(&name, &PostParams::default(), &whole)
                .await?;
        }
        (Way::Put, false) => {
            let mut whole = there;
            whole.metadata.managed_fields = None;
            whole.spec = wanted.spec;
            api.replace(&name, &PostParams::default(), &whole).await?;
        }
    }
    Ok(())
}

fn names() -> impl Iterator<Item = String> {
    (0..13).map(|at| format!("net.ipv4.neigh.default.key_{at}"))
}

fn profile(name: &str, step: usize) -> NodeNetworkProfile {
    let sysctl = |name| ProfileSysctl {
        name,
        rule: Rule::AtLeast,
        value: (8192 + step).to_string(),
        ceiling: Some(262_144),
        reason: "5,000 nodes on one L2, 110 pods, point-to-point: 8.1 k entries, next power of two"
            .into(),
    };
    let mut profile = NodeNetworkProfile::new(name, Default::default());
    profile.spec.tuning = "default".into();
    profile.spec.sysctls = names().map(sysctl).collect();
    profile
}

fn statuses(step: usize) -> Vec<SysctlStatus> {
    let status = |name| SysctlStatus {
        name,
        observed: Some((8192 + step).to_string()),
        original: Some("1024".into()),
        state: nettune_crds::KeyState::Applied,
        message: String::new(),
        drift_count: 0,
    };
    names().map(status).collect()
}
