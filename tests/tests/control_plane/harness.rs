//! The harness's control plane does what other tests rely on.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use nettune_tests::control_plane::StaticToken;
use nettune_tests::{ControlPlane, ControlPlaneConfig, NodeSpec, Program, nodes};

#[tokio::test]
async fn a_created_node_is_seen_by_kubectl() -> anyhow::Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let client = control_plane.client().await?;
    nodes::create(&client, &NodeSpec::worker("seen", 1)).await?;

    let columns = "custom-columns=POD_CIDR:.spec.podCIDR,PODS:.status.allocatable.pods,BOOT:.status.nodeInfo.bootID";
    let printed = control_plane
        .kubectl_ok(&["get", "node", "seen", "--no-headers", "-o", columns])
        .await?;

    let words: Vec<&str> = printed.split_whitespace().collect();
    assert_eq!(
        words,
        ["11.0.1.0/24", "110", "00000000-0000-4000-8000-000000000001"]
    );
    Ok(())
}

#[tokio::test]
async fn nodes_survive_a_crash_of_the_api_server() -> anyhow::Result<()> {
    let mut control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    let client = control_plane.client().await?;
    nodes::create_many(
        &client,
        (0..605).map(|i| NodeSpec::worker(&format!("node-{i}"), i)),
    )
    .await?;

    control_plane.kill_api_server()?;
    assert!(
        !control_plane
            .kubectl(&["get", "nodes", "--request-timeout=2s"])
            .await?
            .status
            .success()
    );
    control_plane.start_api_server().await?;

    let nodes = Api::<Node>::all(client)
        .list(&ListParams::default())
        .await?;
    assert_eq!(nodes.items.len(), 605);
    control_plane.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_token_without_rights_is_refused() -> anyhow::Result<()> {
    let token = StaticToken::of("system:serviceaccount:default:nobody", "secret-of-nobody");
    let config = ControlPlaneConfig {
        tokens: vec![token],
        ..ControlPlaneConfig::default()
    };
    let control_plane = ControlPlane::start(config).await?;

    let client = control_plane.client_for_token("secret-of-nobody").await?;
    let refused = Api::<Node>::all(client).list(&ListParams::default()).await;

    let Err(kube::Error::Api(status)) = refused else {
        panic!("not refused: {refused:?}")
    };
    assert!(
        status.is_forbidden() && status.message.contains("default:nobody"),
        "{status:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_operator_logs_its_address_and_stops_on_sigterm() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    control_plane.install_crds().await?;

    let mut operator = Program::operator(&control_plane, &[]).await?;
    assert_eq!(operator.get("/healthz").await?.status, 200);
    assert!(operator.get("/metrics").await?.body.ends_with("# EOF\n"));
    assert!(operator.process_mut().stop()?.success());
    Ok(())
}
