//! What the chart renders, without an API server.

use anyhow::ensure;
use serde_json::{Value, json};

use super::{container, find, helm, objects, run, template};

#[tokio::test]
async fn helm_lint_finds_nothing() -> anyhow::Result<()> {
    run(helm(&["lint", "--strict", "charts/nettune"]).await?).await?;
    Ok(())
}

#[tokio::test]
async fn vendors_versions_of_kubernetes_are_accepted() -> anyhow::Result<()> {
    for version in [
        "v1.30.0",
        "v1.33.2-eks-1552ad0",
        "v1.32.4-gke.1767000",
        "v1.31.4+k3s1",
    ] {
        template(&["--kube-version", version]).await?;
    }
    let refused = template(&["--kube-version", "v1.29.9"]).await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("1.30")));
    Ok(())
}

#[tokio::test]
async fn a_value_that_does_not_exist_is_refused_by_its_name() -> anyhow::Result<()> {
    let refused = template(&["--set", "agent.hostPort=1"]).await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("hostPort")));
    Ok(())
}

/// A parent chart passes `global` and may have `enabled` among the values.
#[tokio::test]
async fn a_parent_charts_values_are_accepted() -> anyhow::Result<()> {
    template(&["--set", "enabled=true", "--set", "global.someone.else=1"]).await?;
    Ok(())
}

#[tokio::test]
async fn images_come_from_the_registry_and_digest_in_the_values() -> anyhow::Result<()> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let objects = objects(&[
        "--set",
        "global.imageRegistry=registry.example/mirror/",
        "--set",
        &format!("agent.image.digest={digest}"),
        "--set",
        "operator.image.tag=9.9.9",
        "--set",
        "global.imagePullSecrets[0].name=pull",
    ])
    .await?;
    let operator = find(&objects, "Deployment", "nettune-operator")?;
    let agent = find(&objects, "DaemonSet", "nettune-agent")?;
    assert_eq!(
        container(operator)["image"],
        "registry.example/mirror/nettune/nettune-operator:9.9.9"
    );
    let image = container(agent)["image"].as_str().unwrap_or_default();
    assert!(image.ends_with(&format!("@{digest}")), "{image}");
    for workload in [operator, agent] {
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
    }
    Ok(())
}

#[tokio::test]
async fn pods_have_no_more_rights_on_the_node_than_the_agent_needs() -> anyhow::Result<()> {
    let objects = objects(&[]).await?;
    let agent = &find(&objects, "DaemonSet", "nettune-agent")?["spec"]["template"]["spec"];
    let operator = &find(&objects, "Deployment", "nettune-operator")?["spec"]["template"]["spec"];
    for pod in [agent, operator] {
        assert_eq!(
            pod["containers"][0]["securityContext"],
            json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            })
        );
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        for absent in ["hostPID", "hostIPC", "initContainers"] {
            assert_eq!(pod[absent], Value::Null, "{absent}");
        }
    }
    assert_eq!(operator["securityContext"]["runAsNonRoot"], true);
    assert_eq!(operator["volumes"], Value::Null);
    let paths: Vec<_> = agent["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|volume| volume["hostPath"]["path"].as_str().unwrap_or("no hostPath"))
        .collect();
    assert_eq!(paths, ["/proc/sys/net", "/var/lib/nettune"]);
    Ok(())
}

#[tokio::test]
async fn one_replica_has_no_disruption_budget() -> anyhow::Result<()> {
    let budgets = async |replicas: &str| {
        let objects = objects(&["--set", replicas]).await?;
        let budgets = objects
            .iter()
            .filter(|object| object["kind"] == "PodDisruptionBudget");
        anyhow::Ok(budgets.count())
    };
    assert_eq!(budgets("operator.replicas=2").await?, 1);
    assert_eq!(budgets("operator.replicas=1").await?, 0);
    Ok(())
}

/// Each option renders what it is for, and nothing without it.
#[tokio::test]
async fn options_render_their_objects() -> anyhow::Result<()> {
    let defaults = objects(&[]).await?;
    for (option, kind) in [
        ("operator.networkPolicy.enabled=true", "NetworkPolicy"),
        ("priorityQuota.enabled=true", "ResourceQuota"),
        (
            "openshift.securityContextConstraints=true",
            "SecurityContextConstraints",
        ),
        ("extraObjects[0].kind=Extra", "Extra"),
    ] {
        let is_it = |object: &Value| object["kind"] == kind;
        assert!(!defaults.iter().any(is_it), "{kind} by default");
        assert!(
            objects(&["--set", option]).await?.iter().any(is_it),
            "{option}"
        );
    }
    let without = objects(&[
        "--set",
        "admission.enabled=false",
        "--set",
        "rbac.create=false",
    ])
    .await?;
    for kind in [
        "ValidatingAdmissionPolicy",
        "ClusterRole",
        "Role",
        "ClusterRoleBinding",
    ] {
        assert!(
            !without.iter().any(|object| object["kind"] == kind),
            "{kind}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_address_of_the_api_server_reaches_the_agent() -> anyhow::Result<()> {
    let objects = objects(&["--set", "agent.apiServer.host=10.1.2.3"]).await?;
    let environment = &container(find(&objects, "DaemonSet", "nettune-agent")?)["env"];
    let has = |name: &str, value: &str| {
        let mut variables = environment.as_array().into_iter().flatten();
        variables.any(|variable| variable["name"] == name && variable["value"] == value)
    };
    assert!(has("KUBERNETES_SERVICE_HOST", "10.1.2.3"), "{environment}");
    assert!(has("KUBERNETES_SERVICE_PORT", "443"), "{environment}");
    Ok(())
}
