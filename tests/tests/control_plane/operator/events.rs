//! The operator's Events on Nodes.

use anyhow::ensure;
use kube::Api;
use kube::api::ListParams;
use nettune_crds::NodeNetworkProfile;
use nettune_tests::{Program, eventually};

use super::{ALL_BLOCKS, SOON, cluster, sized};

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
    let reported = |event: k8s_openapi::api::events::v1::Event| {
        (
            event.type_.unwrap_or_default(),
            event.reason.unwrap_or_default(),
        )
    };
    Ok(of_node.map(reported).collect())
}

#[tokio::test]
async fn a_node_gets_an_event_when_pressure_begins_and_ends() -> anyhow::Result<()> {
    let (control_plane, client) = cluster(2).await?;
    let mut operator = Program::operator(&control_plane, &["--leader-elect", "false"]).await?;
    control_plane.apply(ALL_BLOCKS).await?;
    sized(&client, 2, "8192").await?;
    let begun = ("Warning".to_owned(), "NeighborPressure".to_owned());
    let ended = ("Normal".to_owned(), "NeighborPressureEnded".to_owned());

    say_pressure(&client, "node-0", Some("Overflow")).await?;
    eventually("an event of the beginning", SOON, || async {
        let reported = node_events(&client, "node-0").await?;
        ensure!(reported == [begun.clone()], "{reported:?}");
        Ok(())
    })
    .await?;
    // Another operator knows what began before it started, and reports the end.
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
        let mut reported = node_events(&client, "node-0").await?;
        reported.sort();
        ensure!(reported == [ended.clone(), begun.clone()], "{reported:?}");
        Ok(())
    })
    .await?;
    ensure!(node_events(&client, "node-1").await?.is_empty());
    Ok(())
}
