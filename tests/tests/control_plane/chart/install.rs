//! The chart as helm installs, upgrades and removes it.

use nettune_tests::{ControlPlane, ControlPlaneConfig};

use super::{NAMESPACE, helm, run};

async fn on(control_plane: &ControlPlane, args: &[&str]) -> anyhow::Result<String> {
    let mut all = vec!["--namespace", NAMESPACE];
    all.extend(args);
    let mut helm = helm(&all).await?;
    helm.env("KUBECONFIG", control_plane.kubeconfig());
    for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(folder, control_plane.dir().join("helm"));
    }
    run(helm).await
}

/// The commands in the notes are run as they stand, but for the one that removes the chart, which comes last anyway.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_installed_upgraded_and_removed_and_its_notes_are_true() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    let said = on(
        &control_plane,
        &["install", "nettune", "charts/nettune", "--create-namespace"],
    )
    .await?;
    control_plane.wait_for_crds().await?;

    let label = "kubectl label namespace nettune-system pod-security.kubernetes.io/enforce=privileged --overwrite";
    assert!(said.contains(label), "{said}");
    let words: Vec<&str> = label.split(' ').skip(1).collect();
    control_plane.kubectl_ok(&words).await?;
    let tuning = said
        .split("<<END\n")
        .nth(1)
        .and_then(|rest| rest.split("END").next());
    control_plane.apply(tuning.unwrap_or_default()).await?;
    control_plane.kubectl_ok(&["get", "nnt"]).await?;
    let enforce = r#"kubectl patch nnt default --type merge -p '{"spec":{"mode":"Enforce"}}'"#;
    let restore =
        r#"kubectl patch nnt default --type merge -p '{"spec":{"releasePolicy":"Restore"}}'"#;
    for patch in [enforce, restore] {
        assert!(said.contains(patch), "{said}");
        let words: Vec<&str> = patch
            .split(' ')
            .skip(1)
            .map(|word| word.trim_matches('\''))
            .collect();
        control_plane.kubectl_ok(&words).await?;
    }

    on(
        &control_plane,
        &[
            "upgrade",
            "nettune",
            "charts/nettune",
            "--set",
            "operator.startupTaint=true",
        ],
    )
    .await?;
    let role = control_plane
        .kubectl_ok(&["get", "clusterrole", "nettune-operator", "-o", "yaml"])
        .await?;
    assert!(role.contains("patch"), "{role}");

    control_plane
        .kubectl_ok(&["delete", "nnt", "default"])
        .await?;
    on(&control_plane, &["uninstall", "nettune"]).await?;
    let left = control_plane
        .kubectl_ok(&[
            "get",
            "deployments,daemonsets",
            "--namespace",
            NAMESPACE,
            "-o",
            "name",
        ])
        .await?;
    assert_eq!(left, "");
    Ok(())
}
