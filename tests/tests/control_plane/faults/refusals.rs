//! An API server that refuses requests.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::ensure;
use base64::Engine as _;

use nettune_tests::Proxy;
use nettune_tests::cluster::{BINDINGS, Sampler};

use super::pool::{Fault, with_cluster};
use super::writes::{PROFILE_DELETED, SPEC_CHANGED};
use super::{LARGE, SMALL, SOMAXCONN, SOON, THRESH3, has_kept_small};

const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: frozen}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [nettune.dev], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: [nodenetworkprofiles]}
  validations: [{expression: "false", message: "profiles are frozen today"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: frozen}
spec: {policyName: frozen, validationActions: [Deny]}
"#;

/// Waits until a write of a profile is refused with these words.
async fn is_refused(fault: &mut Fault, words: &str) -> anyhow::Result<()> {
    let probe = [
        "label",
        "nnp",
        "node-0",
        "probe=1",
        "--overwrite",
        "--dry-run=server",
    ];
    let look = async |cluster: &nettune_tests::Cluster| match cluster
        .control_plane
        .kubectl_ok(&probe)
        .await
    {
        Ok(_) => Err("profiles can be written".to_owned()),
        Err(error) if error.to_string().contains(words) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    fault.cluster.until(SOON, look).await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_that_denies_writes_is_reported_and_survived() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let values = Sampler::of(&fault.cluster, &[THRESH3, SOMAXCONN]);
        fault.apply(POLICY).await?;
        is_refused(fault, "frozen today").await?;
        fault.apply(&LARGE.at_once()).await?;
        let why =
            "Progressing=False WritesRejected: the API server rejects the profiles of 3 nodes";
        fault
            .comes_to_say(&[why, "frozen today", "Ready=False NodesNotReady"])
            .await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let nodes = fault.nodes_that_say("Ready").await?;
        ensure!(nodes == 3, "{nodes} nodes hold what their profiles say");
        let tried = fault.writes()?;
        let tried = tried.all().filter(|write| write.code == 422).count();
        // A tenth of a second, then twice as long each time: six times in five seconds for each of three.
        ensure!((3..=24).contains(&tried), "{tried} tries");
        has_kept_small(&values)?;
        let delete = ["delete", "validatingadmissionpolicybinding", "frozen"];
        fault.kubectl(&delete).await?;
        fault
            .kubectl(&["delete", "validatingadmissionpolicy", "frozen"])
            .await?;
        let writes = fault
            .ends_right("writes denied by a policy", &LARGE.values(), SOON)
            .await?;
        writes.have_just(3, SPEC_CHANGED)?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_webhook_that_never_answers_is_reported_and_survived() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        // Takes connections, and says nothing on them.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let authority = base64::engine::general_purpose::STANDARD
            .encode(std::fs::read(fault.cluster.control_plane.dir().join("apiserver.crt"))?);
        fault
            .apply(&format!(
                "{{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration,
                  metadata: {{name: unresponsive}}, webhooks: [{{name: unresponsive.example.org, failurePolicy: Fail,
                  timeoutSeconds: 1, sideEffects: None, admissionReviewVersions: [v1],
                  clientConfig: {{url: 'https://127.0.0.1:{port}/', caBundle: {authority}}},
                  rules: [{{apiGroups: [nettune.dev], apiVersions: ['*'], operations: [CREATE, UPDATE],
                  resources: [nodenetworkprofiles, nodenetworkprofiles/status]}}]}}]}}"
            ))
            .await?;
        is_refused(fault, "unresponsive.example.org").await?;
        fault.apply(&LARGE.at_once()).await?;
        let why = "Progressing=False WritesRejected: the API server rejects the profiles of 3 nodes";
        fault.comes_to_say(&[why, "unresponsive.example.org", "Ready=False NodesNotReady"]).await?;
        fault.cluster.holds(&SMALL.values(), Duration::from_millis(100)).await?;
        fault.kubectl(&["delete", "validatingwebhookconfiguration", "unresponsive"]).await?;
        let writes = fault
            .ends_right("writes held up by a webhook", &LARGE.values(), SOON)
            .await?;
        writes.have_just(3, SPEC_CHANGED)?;
        drop(listener);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn revoked_rights_move_no_value_and_work_resumes_when_they_are_back() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let values = Sampler::of(&fault.cluster, &[THRESH3, SOMAXCONN]);
        for binding in ["nettune-operator", "nettune-agent"] {
            fault
                .kubectl(&["delete", "clusterrolebinding", binding])
                .await?;
        }
        // Watches that are open stay open without the right to begin one.
        fault.cluster.proxies.iter().for_each(Proxy::cut);
        fault.apply(&LARGE.at_once()).await?;
        fault.agents_reach_the_api_server(false).await?;
        // Longer than a leader goes on without its Lease.
        tokio::time::sleep(Duration::from_secs(7)).await;
        fault.no_operator_leads().await?;
        fault.is_unanswered().await?;
        let reported = fault.cluster.operators.iter().filter(|operator| {
            let log = operator.log();
            log.contains("cannot watch (the operator's ClusterRole does not allow it)")
        });
        ensure!(reported.count() == 2, "no operator says what it may not");
        has_kept_small(&values)?;
        fault.is_still_kept().await?;
        fault.apply(BINDINGS).await?;
        let writes = fault
            .ends_right(
                "rights taken away and given back",
                &LARGE.values(),
                SOON * 2,
            )
            .await?;
        writes.have_just(3, SPEC_CHANGED)?;
        writes.have_just(0, PROFILE_DELETED)?;
        Ok(())
    })
    .await
}
