//! The operator against a real API server; agents play no part here.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use kube::Api;
use kube::api::ListParams;
use nettune_crds::{NodeNetworkProfile, NodeNetworkTuning};
use nettune_tests::{ControlPlane, ControlPlaneConfig, NodeSpec, Program, eventually, nodes};

const SOON: Duration = Duration::from_secs(30);

const ALL_BLOCKS: &str = "{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {name: default}, spec: {neighbors: {}, conntrack: {}, ipvs: {}}}";

/// A control plane with the CRDs and this many nodes of 64 pods.
async fn cluster(count: u16) -> anyhow::Result<(ControlPlane, kube::Client)> {
    let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    control_plane.install_crds().await?;
    let client = control_plane.client().await?;
    nodes::create_many(&client, (0..count).map(worker)).await?;
    Ok((control_plane, client))
}

/// Not Ready yet, as new nodes are: they get everything at once.
fn worker(index: u16) -> NodeSpec {
    NodeSpec {
        pods: 64,
        ready: false,
        ..NodeSpec::worker(&format!("node-{index}"), index)
    }
}

async fn profiles(client: &kube::Client) -> anyhow::Result<Vec<NodeNetworkProfile>> {
    let profiles = Api::<NodeNetworkProfile>::all(client.clone());
    Ok(profiles.list(&ListParams::default()).await?.items)
}

fn value<'a>(profile: &'a NodeNetworkProfile, name: &str) -> Option<&'a str> {
    let sysctls = &profile.spec.sysctls;
    let found = sysctls.iter().find(|sysctl| sysctl.name == name)?;
    Some(&found.value)
}

/// Waits until this many profiles hold this gc_thresh3.
async fn sized(
    client: &kube::Client,
    count: usize,
    gc_thresh3: &str,
) -> anyhow::Result<Vec<NodeNetworkProfile>> {
    let what = format!("{count} profiles with gc_thresh3 = {gc_thresh3}");
    let all = eventually(&what, SOON, || async {
        let all = profiles(client).await?;
        let held = |profile: &&NodeNetworkProfile| {
            value(profile, "net.ipv4.neigh.default.gc_thresh3") == Some(gc_thresh3)
        };
        let holding = all.iter().filter(held).count();
        ensure!(
            all.len() == count && holding == count,
            "{holding} of {}",
            all.len()
        );
        anyhow::Ok(all)
    });
    Ok(all.await?)
}

#[tokio::test]
async fn profiles_follow_the_size_of_the_cluster_and_are_written_no_more_than_needed()
-> anyhow::Result<()> {
    let (control_plane, client) = cluster(3).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    for profile in sized(&client, 3, "8192").await? {
        let owner = profile.metadata.owner_references.unwrap_or_default();
        let node = profile.metadata.name.context("a name")?;
        ensure!(
            owner
                .iter()
                .any(|owner| owner.kind == "Node" && owner.name == node)
        );
        ensure!(
            profile
                .spec
                .sysctls
                .iter()
                .all(|sysctl| !sysctl.reason.is_empty())
        );
    }

    nodes::create_many(&client, (3..605).map(worker)).await?;
    let all = sized(&client, 605, "16384").await?;
    // The first three were sized for three, then for 605: nothing in between was worth a write.
    let first = all
        .iter()
        .find(|profile| profile.metadata.name.as_deref() == Some("node-0"));
    assert_eq!(first.context("node-0")?.metadata.generation, Some(2));

    let tunings = Api::<NodeNetworkTuning>::all(client.clone());
    eventually("the tuning's status to tell of 605 nodes", SOON, || async {
        let status = tunings.get("default").await?.status.unwrap_or_default();
        ensure!(
            status.nodes.is_some_and(|nodes| nodes.selected == 605),
            "{:?}",
            status.nodes
        );
        ensure!(
            status.gc_thresh3.as_deref() == Some("16384"),
            "{:?}",
            status.gc_thresh3
        );
        anyhow::Ok(())
    })
    .await?;
    eventually("an Event that tells of the new size", SOON, || async {
        let events = control_plane.kubectl_ok(&["get", "events", "-A"]).await?;
        ensure!(
            events.contains("gc_thresh3 goes from 8192 to 16384"),
            "{events}"
        );
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changes() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(3).await?;
    let operator = Program::operator(&control_plane, &[]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 3, "8192").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let writes = |page: String| {
        let lines = page
            .lines()
            .filter(|line| line.starts_with("nettune_operator_writes_total"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = writes(operator.get("/metrics").await?.body);
    ensure!(!before.is_empty());
    // A heartbeat is what changes on a Node all the time.
    nodes::update_status(&client, &worker(0)).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(before, writes(operator.get("/metrics").await?.body));
    Ok(())
}

#[tokio::test]
async fn without_a_tuning_it_does_nothing_and_says_so() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(1).await?;
    let mut operator = Program::operator(&control_plane, &[]).await?;
    let said =
        operator
            .process_mut()
            .wait_for_line("there is no NodeNetworkTuning", SOON, 0, |line| {
                line.contains("there is no NodeNetworkTuning").then_some(())
            });
    said.await?;
    ensure!(profiles(&client).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn crds_and_an_api_server_that_are_not_there_yet_are_waited_for() -> anyhow::Result<()> {
    let mut control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    control_plane.stop_api_server()?;
    let operator = Program::operator(&control_plane, &[]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    control_plane.start_api_server().await?;
    eventually("a hint at the missing CRDs", SOON, || async {
        let log = operator.process().log();
        ensure!(log.contains("kubectl apply -f crds/manifests"), "{log}");
        anyhow::Ok(())
    })
    .await?;
    control_plane.install_crds().await?;
    let client = control_plane.client().await?;
    nodes::create(&client, &worker(0)).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 1, "8192").await?;
    let failures = operator.process().log().matches("cannot watch").count();
    // Once for each way in which each kind fails (server away, starting, CRD missing), not for each try.
    ensure!(failures <= 9, "said {failures} times");
    Ok(())
}

#[tokio::test]
async fn it_goes_on_after_the_api_server_has_crashed() -> anyhow::Result<()> {
    let (mut control_plane, client) = cluster(2).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 2, "8192").await?;
    control_plane.kill_api_server()?;
    control_plane.start_api_server().await?;
    nodes::create(&client, &worker(2)).await?;
    sized(&client, 3, "8192").await?;
    Ok(())
}

#[tokio::test]
async fn sigterm_ends_it_within_two_seconds() -> anyhow::Result<()> {
    let (control_plane, _client) = cluster(1).await?;
    let mut operator = Program::operator(&control_plane, &[]).await?;
    let began = Instant::now();
    let status = operator.process_mut().stop()?;
    ensure!(status.success(), "{status}");
    ensure!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    Ok(())
}

#[tokio::test]
async fn a_start_that_fails_says_why() -> anyhow::Result<()> {
    let (control_plane, _client) = cluster(0).await?;
    let nowhere = control_plane.dir().join("no-such-kubeconfig");
    let failed = Program::operator_as(&control_plane, &nowhere, &[]).await;
    let said = format!("{:#}", anyhow!(failed.err().context("it started")?));
    ensure!(said.contains("no-such-kubeconfig"), "{said}");
    Ok(())
}

/// Lets in what the schema of today refuses, as an older one would have.
async fn with_an_older_schema(control_plane: &ControlPlane, object: &str) -> anyhow::Result<()> {
    let open = r#"[{"op": "remove", "path": "/spec/versions/0/selectableFields"}, {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value":
        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]"#;
    let crd = "crd/nodenetworktunings.nettune.dev";
    control_plane
        .kubectl_ok(&["patch", crd, "--type=json", "-p", open])
        .await?;
    eventually("the older schema to be in force", SOON, || async {
        control_plane.apply(object).await.map(drop)
    })
    .await?;
    let manifests = nettune_tests::workspace::root().join("crds/manifests");
    let manifests = manifests.to_str().context("a path in UTF-8")?;
    let current = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        manifests,
    ];
    control_plane.kubectl_ok(&current).await?;
    Ok(())
}

#[tokio::test]
async fn an_object_that_an_older_schema_let_in_says_so_itself_and_stops_nothing_else()
-> anyhow::Result<()> {
    let (control_plane, client) = cluster(1).await?;
    // One that can be read and is not valid, and one that cannot be read at all.
    let invalid = "{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {name: invalid}, spec: {sysctls: [{name: kernel.panic, value: '1'}]}}";
    let unreadable = "{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {name: unreadable}, spec: {priority: high}}";
    with_an_older_schema(&control_plane, invalid).await?;
    with_an_older_schema(&control_plane, unreadable).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    // What the invalid one selects is frozen, unless another one takes precedence.
    let upper = ALL_BLOCKS.replace("ipvs: {}", "ipvs: {}, priority: 1");
    control_plane.apply(&upper).await?;
    sized(&client, 1, "8192").await?;
    for (name, word) in [("invalid", "kernel.panic"), ("unreadable", "high")] {
        eventually(&format!("{name} to say so"), SOON, || async {
            let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].reason} {.status.conditions[?(@.type=="Ready")].message}"#;
            let said = control_plane.kubectl_ok(&["get", "nnt", name, "-o", ready]).await?;
            ensure!(said.starts_with("InvalidTuning") && said.contains(word), "{said}");
            anyhow::Ok(())
        })
        .await?;
    }
    // Said once: an object that cannot be used is not written for ever. What is still under way comes to
    // rest first.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let version = [
        "get",
        "nnt",
        "-o",
        "jsonpath={.items[*].metadata.resourceVersion}",
    ];
    let before = control_plane.kubectl_ok(&version).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(control_plane.kubectl_ok(&version).await?, before);
    Ok(())
}

#[tokio::test]
async fn a_status_from_a_newer_agent_is_left_alone() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(1).await?;
    let operator = Program::operator(&control_plane, &[]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 1, "8192").await?;
    let open = r#"[{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status", "value":
        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]"#;
    let crd = "crd/nodenetworkprofiles.nettune.dev";
    control_plane
        .kubectl_ok(&["patch", crd, "--type=json", "-p", open])
        .await?;
    let newer =
        r#"{"status": {"sysctls": [{"name": "net.core.somaxconn", "state": "Throttled"}]}}"#;
    let patch = [
        "patch",
        "nnp",
        "node-0",
        "--subresource=status",
        "--type=merge",
        "-p",
        newer,
    ];
    eventually("the newer schema to be in force", SOON, || async {
        control_plane.kubectl_ok(&patch).await?;
        let state = [
            "get",
            "nnp",
            "node-0",
            "-o",
            "jsonpath={.status.sysctls[0].state}",
        ];
        ensure!(control_plane.kubectl_ok(&state).await? == "Throttled");
        anyhow::Ok(())
    })
    .await?;
    let changed = || operator.process().log().matches("profile changed").count();
    let before = changed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(changed(), before);
    Ok(())
}

#[tokio::test]
async fn a_crd_that_is_lost_is_no_wish_to_release() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(2).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    let restore = ALL_BLOCKS.replace("ipvs: {}", "ipvs: {}, releasePolicy: Restore");
    control_plane.apply(&restore).await?;
    sized(&client, 2, "8192").await?;
    control_plane
        .kubectl_ok(&["delete", "crd", "nodenetworktunings.nettune.dev"])
        .await?;
    // Past the moment at which the end of the last tuning is looked into.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let left = profiles(&client).await?;
    ensure!(
        left.len() == 2 && left.iter().all(|profile| !profile.spec.release),
        "{left:?}"
    );
    // And when it is back, so is the work.
    control_plane.install_crds().await?;
    control_plane.apply(ALL_BLOCKS).await?;
    nodes::create(&client, &worker(2)).await?;
    sized(&client, 3, "8192").await?;
    Ok(())
}

#[tokio::test]
async fn a_tuning_that_is_deleted_retains_values_and_takes_the_profiles_away() -> anyhow::Result<()>
{
    let (control_plane, client) = cluster(2).await?;
    let _operator = Program::operator(&control_plane, &[]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 2, "8192").await?;
    control_plane
        .kubectl_ok(&["delete", "nnt", "default"])
        .await?;
    eventually("the profiles to go", SOON, || async {
        let left = profiles(&client).await?.len();
        ensure!(left == 0, "{left} left");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

/// What an agent says of its node's tables.
async fn say_pressure(
    client: &kube::Client,
    node: &str,
    reason: Option<&str>,
) -> anyhow::Result<()> {
    let condition = serde_json::json!({
        "type": "NeighborPressure", "status": if reason.is_some() { "True" } else { "False" },
        "reason": reason.unwrap_or("NoPressure"), "message": "a table was full",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = serde_json::json!({"status": {"sysctls": [], "kernelRelease": "6.1.0", "bootID": "b",
        "agentVersion": "0", "conditions": [condition]}});
    let profiles = Api::<NodeNetworkProfile>::all(client.clone());
    let params = kube::api::PatchParams::default();
    profiles
        .patch_status(node, &params, &kube::api::Patch::Merge(status))
        .await?;
    Ok(())
}

async fn node_events(client: &kube::Client, node: &str) -> anyhow::Result<Vec<(String, String)>> {
    let events = Api::<k8s_openapi::api::events::v1::Event>::namespaced(client.clone(), "default");
    let all = events.list(&ListParams::default()).await?.items;
    let of_node = all.into_iter().filter(|event| {
        let regarding = event.regarding.as_ref();
        regarding.is_some_and(|object| {
            object.kind.as_deref() == Some("Node") && object.name.as_deref() == Some(node)
        })
    });
    let told = |event: k8s_openapi::api::events::v1::Event| {
        (
            event.type_.unwrap_or_default(),
            event.reason.unwrap_or_default(),
        )
    };
    Ok(of_node.map(told).collect())
}

#[tokio::test]
async fn a_node_whose_tables_begin_or_end_to_suffer_gets_an_event() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(2).await?;
    let mut operator = Program::operator(&control_plane, &["--leader-elect", "false"]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 2, "8192").await?;
    let begun = ("Warning".to_owned(), "NeighborPressure".to_owned());
    let ended = ("Normal".to_owned(), "NeighborPressureEnded".to_owned());

    say_pressure(&client, "node-0", Some("Overflow")).await?;
    eventually("an event of the beginning", SOON, || async {
        let told = node_events(&client, "node-0").await?;
        ensure!(told == [begun.clone()], "{told:?}");
        Ok(())
    })
    .await?;
    // Another operator knows what has begun before it, and tells the end.
    operator.process_mut().stop()?;
    let operator = Program::operator(&control_plane, &["--leader-elect", "false"]).await?;
    eventually("an operator that knows the cluster", SOON, || async {
        let page = operator.get("/metrics").await?.body;
        let line = r#"nettune_operator_nodes_under_pressure{tuning="default",condition="NeighborPressure"} 1"#;
        ensure!(page.lines().any(|found| found == line), "{page}");
        Ok(())
    })
    .await?;
    say_pressure(&client, "node-0", None).await?;
    eventually("an event of the end", SOON, || async {
        let mut told = node_events(&client, "node-0").await?;
        told.sort();
        ensure!(told == [ended.clone(), begun.clone()], "{told:?}");
        Ok(())
    })
    .await?;
    ensure!(node_events(&client, "node-1").await?.is_empty());
    Ok(())
}
