//! Users who change objects of nettune by hand.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use nettune_crds::NodeNetworkProfile;
use nettune_tests::cluster::{Machine, Sampler};
use nettune_tests::{Cluster, eventually, nodes};

use super::pool::{Fault, with_cluster};
use super::writes::{AGENT_SAID, PROFILE_CREATED, PROFILE_DELETED, SPEC_CHANGED, TUNING_SAID};
use super::{LARGE, SMALL, SOMAXCONN, SOON, THRESH3, TUNING, Writes, has_kept_small};

/// Changes a profile, or its status.
async fn edit(fault: &Fault, node: &str, subresource: &str, patch: &str) -> anyhow::Result<()> {
    let mut args = vec!["patch", "nnp", node, "--type=merge", "-p", patch];
    args.extend(Some(subresource).filter(|given| !given.is_empty()));
    fault.kubectl(&args).await?;
    Ok(())
}

#[tokio::test]
async fn a_profile_edited_by_hand_is_corrected() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let said = fault.listen();
        let sysctls = format!(
            r#"{{"spec": {{"sysctls": [{{"name": "{SOMAXCONN}", "rule": "Exact", "value": "77"}}]}}}}"#
        );
        edit(fault, "node-0", "", &sysctls).await?;
        edit(fault, "node-1", "", r#"{"spec": {"mode": "Observe"}}"#).await?;
        edit(fault, "node-2", "", r#"{"spec": {"release": true}}"#).await?;
        let writes = fault
            .ends_right("profiles edited by hand", &SMALL.values(), SOON)
            .await?;
        writes.have_just(3, SPEC_CHANGED)?;
        said.has_said(&["Ready=False NodesNotReady", "being updated"])?;
        let of_another = r#"{"spec": {"tuning": "another"}}"#;
        edit(fault, "node-0", "", of_another).await?;
        let label = r#"{"metadata": {"labels": {"somebody": "was-here"}}}"#;
        edit(fault, "node-1", "", label).await?;
        let nothing = r#"{"status": {"conditions": [], "sysctls": []}}"#;
        edit(fault, "node-2", "--subresource=status", nothing).await?;
        let writes = fault
            .ends_right("profile, label, status edited", &SMALL.values(), SOON)
            .await?;
        // A foreign label stays, and the status belongs to the agent.
        writes.have_just(4, SPEC_CHANGED)?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn deleted_profiles_come_back_and_no_value_moves() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let values = Sampler::of(&fault.cluster, &[THRESH3, SOMAXCONN]);
        let said = fault.listen();
        fault.kubectl(&["delete", "nnp", "--all"]).await?;
        let writes = fault
            .ends_right("profiles deleted", &SMALL.values(), SOON)
            .await?;
        writes.have_just(3, PROFILE_CREATED)?;
        writes.have_just(0, SPEC_CHANGED)?;
        said.has_said(&["of 3 ready", "Ready=False NodesNotReady"])?;
        has_kept_small(&values)?;
        Ok(())
    })
    .await
}

/// Deletes a Node and creates it again, with the same name and another uid.
async fn a_node_comes_back(fault: &Fault) -> anyhow::Result<()> {
    let api = Api::<Node>::all(fault.client.clone());
    let spec = &fault.cluster.machines[1].spec;
    let before = api.get(&spec.name).await?.metadata.uid.context("a uid")?;
    api.delete(&spec.name, &DeleteParams::default()).await?;
    let after = nodes::create(&fault.client, spec).await?;
    ensure!(after.metadata.uid.as_ref() != Some(&before));
    Ok(())
}

/// The writes for a Node that comes back.
fn one_profile_was_made_anew(writes: &Writes) -> anyhow::Result<()> {
    writes.have_just(1, PROFILE_DELETED)?;
    writes.have_just(1, PROFILE_CREATED)?;
    writes.have_just(0, SPEC_CHANGED)?;
    // The agent's first report, and a second one a moment later.
    writes.have(0..=2, AGENT_SAID)?;
    writes.have(0..=6, TUNING_SAID)
}

#[tokio::test]
async fn a_node_recreated_within_a_second_gets_its_own_profile() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let values = Sampler::of(&fault.cluster, &[THRESH3, SOMAXCONN]);
        let said = fault.listen();
        a_node_comes_back(fault).await?;
        let writes = fault
            .ends_right("Node deleted and back", &SMALL.values(), SOON)
            .await?;
        one_profile_was_made_anew(&writes)?;
        // Of two or of three, as it is seen that the Node was gone.
        said.has_said(&["2 of "])?;
        has_kept_small(&values)
    })
    .await
}

#[tokio::test]
async fn a_node_replaced_while_no_operator_runs_gets_its_own_profile() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let values = Sampler::of(&fault.cluster, &[THRESH3, SOMAXCONN]);
        for operator in &mut fault.cluster.operators {
            operator.kill()?;
        }
        // The next ones see nothing but another uid.
        a_node_comes_back(fault).await?;
        let writes = fault
            .ends_right("Node replaced unseen", &SMALL.values(), SOON)
            .await?;
        one_profile_was_made_anew(&writes)?;
        has_kept_small(&values)
    })
    .await
}

/// Applies LARGE, which reaches only one node; returns its index.
async fn first_of_a_rollout(fault: &mut Fault, release: &str) -> anyhow::Result<usize> {
    let slowly = format!("releasePolicy: {release}, rollout: {{minReadySeconds: 3600}}");
    fault.apply(&LARGE.tuning(&slowly)).await?;
    let large = |machine: &Machine| {
        let held = machine.directory.sysctl(SOMAXCONN);
        held.is_ok_and(|held| held == LARGE.somaxconn)
    };
    let look = async |cluster: &Cluster| {
        if cluster.machines.iter().any(large) {
            Ok(())
        } else {
            Err("no node holds it")
        }
    };
    fault.cluster.until(SOON, look).await?;
    let status = ["get", "nnt", TUNING, "-o", "yaml"];
    let is_told = |said: &str| said.contains("2 nodes queued");
    fault.prints(&status, is_told).await?;
    let first = fault.cluster.machines.iter().position(large);
    first.context("it is gone again")
}

#[tokio::test]
async fn a_tuning_deleted_during_its_rollout_moves_no_value() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let first = first_of_a_rollout(fault, "Retain").await?;
        let values = Sampler::of(&fault.cluster, &[SOMAXCONN]);
        fault.kubectl(&["delete", "nnt", "default"]).await?;
        let profiles = Api::<NodeNetworkProfile>::all(fault.client.clone());
        eventually("the profiles to go", SOON, || async {
            let left = profiles.list(&ListParams::default()).await?.items.len();
            ensure!(left == 0, "{left} left");
            anyhow::Ok(())
        })
        .await?;
        // No object is left to watch. This is longer than an agent waits before it believes the deletion.
        tokio::time::sleep(Duration::from_secs(6)).await;
        for (index, machine) in fault.cluster.machines.iter().enumerate() {
            let expected = if index == first { LARGE } else { SMALL }.somaxconn;
            let name = machine.spec.name.clone();
            let held = values.of_node(&name, SOMAXCONN);
            ensure!(held == [expected], "{name}: {held:?}");
        }
        fault.apply(&SMALL.at_once()).await?;
        let writes = fault
            .ends_right("tuning deleted in a rollout, Retain", &SMALL.values(), SOON)
            .await?;
        writes.have_just(3, PROFILE_DELETED)?;
        writes.have_just(3, PROFILE_CREATED)?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_restore_in_waves_stops_when_the_tuning_is_back() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let restore = "releasePolicy: Restore, rollout: {type: AllAtOnce}";
        fault.apply(&SMALL.tuning(restore)).await?;
        fault
            .ends_right("releasePolicy changed", &SMALL.values(), SOON)
            .await?;
        first_of_a_rollout(fault, "Restore").await?;
        fault.kubectl(&["delete", "nnt", "default"]).await?;
        let original = |machine: &Machine| machine.originals.get(THRESH3).cloned();
        let released = |cluster: &Cluster| {
            let machines = cluster.machines.iter();
            let back = machines
                .filter(|machine| machine.directory.sysctl(THRESH3).ok() == original(machine));
            back.count()
        };
        // The first of each group: the node that the rollout had reached, and one of the others.
        let look = async |cluster: &Cluster| match released(cluster) {
            0 | 1 => Err("no node has been released"),
            _ => Ok(()),
        };
        fault.cluster.until(SOON, look).await?;
        // The next one comes a minute later.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let released = released(&fault.cluster);
        ensure!(released == 2, "{released} released");
        let reported = fault.nodes_that_say("Released").await?;
        ensure!(reported == 2, "{reported} nodes say that they are released");
        fault.apply(&SMALL.at_once()).await?;
        let writes = fault
            .ends_right(
                "tuning deleted in a rollout, Restore",
                &SMALL.values(),
                SOON,
            )
            .await?;
        writes.have_just(0, PROFILE_DELETED)?;
        Ok(())
    })
    .await
}
