//! What people do to objects that are not theirs.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::DeleteParams;
use nettune_tests::cluster::Values;
use nettune_tests::nodes;

use super::pool::{Fault, with_cluster};
use super::{
    AGENT_SAID, PROFILE_CREATED, PROFILE_DELETED, SMALL, SOMAXCONN, SOON, SPEC_CHANGED, THRESH3,
    TUNING_SAID, done, told,
};

/// Changes a profile, or its status.
async fn edit(fault: &Fault, node: &str, subresource: &str, patch: &str) -> anyhow::Result<()> {
    let mut args = vec!["patch", "nnp", node, "--type=merge", "-p", patch];
    args.extend(Some(subresource).filter(|given| !given.is_empty()));
    fault.kubectl(&args).await?;
    Ok(())
}

#[tokio::test]
async fn a_profile_that_is_edited_by_hand_is_put_right() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let sysctls = format!(
            r#"{{"spec": {{"sysctls": [{{"name": "{SOMAXCONN}", "rule": "Exact", "value": "77"}}]}}}}"#
        );
        edit(fault, "node-0", "", &sysctls).await?;
        edit(fault, "node-1", "", r#"{"spec": {"mode": "Observe"}}"#).await?;
        edit(fault, "node-2", "", r#"{"spec": {"release": true}}"#).await?;
        let writes = fault
            .ends_right("profiles edited by hand", &SMALL.values(), SOON)
            .await?;
        ensure!(done(&writes)[SPEC_CHANGED] == 3, "{}", told(&writes));
        let of_another = r#"{"spec": {"tuning": "another"}}"#;
        edit(fault, "node-0", "", of_another).await?;
        let label = r#"{"metadata": {"labels": {"somebody": "was-here"}}}"#;
        edit(fault, "node-1", "", label).await?;
        let nothing = r#"{"status": {"conditions": [], "sysctls": []}}"#;
        edit(fault, "node-2", "--subresource=status", nothing).await?;
        let writes = fault
            .ends_right("profile, label, status edited", &SMALL.values(), SOON)
            .await?;
        // A label is nobody's business, and a status is the agent's.
        ensure!(done(&writes)[SPEC_CHANGED] == 4, "{}", told(&writes));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn profiles_that_are_deleted_come_back_and_no_value_moves() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let values = Values::of(&fault.cluster, &[THRESH3, SOMAXCONN]);
        fault.kubectl(&["delete", "nnp", "--all"]).await?;
        let writes = fault
            .ends_right("profiles deleted", &SMALL.values(), SOON)
            .await?;
        ensure!(done(&writes)[PROFILE_CREATED] == 3, "{}", told(&writes));
        ensure!(
            !done(&writes).contains_key(SPEC_CHANGED),
            "{}",
            told(&writes)
        );
        let moved = values.other_than(&["8192"]);
        ensure!(moved.is_empty(), "{moved:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_that_is_deleted_and_back_in_a_second_gets_a_profile_of_its_own()
-> anyhow::Result<()> {
    with_cluster(async |fault| {
        let values = Values::of(&fault.cluster, &[THRESH3, SOMAXCONN]);
        let api = Api::<Node>::all(fault.client.clone());
        let spec = fault.cluster.machines[1].spec.clone();
        let before = api.get(&spec.name).await?.metadata.uid.context("a uid")?;
        api.delete(&spec.name, &DeleteParams::default()).await?;
        let after = nodes::create(&fault.client, &spec).await?;
        ensure!(after.metadata.uid.as_ref() != Some(&before));
        let writes = fault
            .ends_right("Node deleted and back", &SMALL.values(), SOON)
            .await?;
        let done = done(&writes);
        ensure!(done[PROFILE_DELETED] == 1, "{}", told(&writes));
        ensure!(done[PROFILE_CREATED] == 1, "{}", told(&writes));
        // What its agent finds, and what else it says a moment later.
        ensure!(
            done[AGENT_SAID] <= 2 && done[TUNING_SAID] <= 6,
            "{}",
            told(&writes)
        );
        let moved = values.other_than(&["8192"]);
        ensure!(moved.is_empty(), "{moved:?}");
        Ok(())
    })
    .await
}
