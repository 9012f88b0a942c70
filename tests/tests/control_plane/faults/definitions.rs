//! CustomResourceDefinitions of another version than the programs', and what such a version has let in.

use std::fmt::Display;
use std::time::Duration;

use anyhow::ensure;
use futures::{StreamExt, TryStreamExt, stream};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use nettune_crds::{NodeNetworkProfile, NodeNetworkTuning};
use nettune_tests::Cluster;
use serde_json::{Value, json};

use super::pool::{Fault, with_cluster};
use super::writes::{PROFILE_DELETED, SPEC_CHANGED, TUNING_SAID};
use super::{LARGE, SMALL, SOON};

const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";
const TUNINGS: &str = "nodenetworktunings.nettune.dev";
const PROFILES: &str = "nodenetworkprofiles.nettune.dev";

impl Fault {
    /// Changes a CRD.
    async fn redefine(&self, crd: &str, patch: Value) -> anyhow::Result<()> {
        let patch = patch.to_string();
        self.kubectl(&["patch", "crd", crd, "--type=json", "-p", &patch])
            .await?;
        Ok(())
    }
}

#[tokio::test]
async fn fields_of_a_newer_crd_change_nothing() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let reported = fault.listen();
        let future = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        for crd in [TUNINGS, PROFILES] {
            let at = |part| format!("{SCHEMA}/properties/{part}/properties/future");
            let add = |part| json!({"op": "add", "path": at(part), "value": future});
            fault
                .redefine(crd, json!([add("spec"), add("status")]))
                .await?;
        }
        let patch = r#"{"spec": {"future": {"a": 1}}, "status": {"future": {"b": 2}}}"#;
        let kept = "jsonpath={.spec.future.a}";
        for (kind, name) in [("nnt", "default"), ("nnp", "node-0"), ("nnp", "node-1")] {
            let args = ["patch", kind, name, "--type=merge", "-p", patch, "-o", kept];
            fault.prints(&args, |printed| printed == "1").await?;
            let status = [
                "patch",
                kind,
                name,
                "--subresource=status",
                "--type=merge",
                "-p",
                patch,
            ];
            fault.kubectl(&status).await?;
        }
        fault
            .ends_right("newer CRDs", &SMALL.values(), SOON)
            .await?;
        // The new field makes new generations, which each agent has to confirm.
        reported.never_said("being updated")?;
        drop(reported);
        fault.apply(&LARGE.at_once()).await?;
        let writes = fault
            .ends_right("a change under newer CRDs", &LARGE.values(), SOON)
            .await?;
        writes.have_just(3, SPEC_CHANGED)?;
        // Unknown fields are kept.
        fault
            .prints(&["get", "nnp", "node-0", "-o", kept], |printed| {
                printed == "1"
            })
            .await?;
        fault.cluster.control_plane.install_crds().await?;
        fault
            .prints(&["get", "nnp", "node-0", "-o", kept], str::is_empty)
            .await?;
        fault
            .ends_right("the former CRDs again", &LARGE.values(), SOON)
            .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_crd_that_prunes_fields_causes_no_write_loop() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let remove = |path| json!({"op": "remove", "path": format!("{SCHEMA}/properties/{path}")});
        let older = [
            remove("spec/properties/sysctls/items/properties/ceiling"),
            remove("status/properties/facts"),
            remove("status/properties/tables"),
        ];
        fault.redefine(PROFILES, json!(older)).await?;
        let ceilings = [
            "get",
            "nnp",
            "node-0",
            "-o",
            "jsonpath={.spec.sysctls[*].ceiling}",
        ];
        fault.prints(&ceilings, str::is_empty).await?;
        fault.apply(&LARGE.at_once()).await?;
        fault.cluster.holds(&LARGE.values(), SOON).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let why =
            "Progressing=False WritesRejected: the API server rejects the profiles of 3 nodes";
        let kept_other = "stored a different spec than was written";
        fault
            .comes_to_say(&[why, kept_other, "Ready=False NodesNotReady"])
            .await?;
        fault.cluster.control_plane.install_crds().await?;
        fault
            .prints(&ceilings, |printed| !printed.is_empty())
            .await?;
        let writes = fault
            .ends_right(
                "older CRDs, and the present ones again",
                &LARGE.values(),
                SOON * 2,
            )
            .await?;
        writes.have(0..=15, SPEC_CHANGED)?;
        Ok(())
    })
    .await
}

const MALFORMED: usize = 1000;
const AT_ONCE: usize = 32;

/// One of a thousand objects that no schema of today lets in.
fn malformed(index: usize) -> (bool, Value) {
    let name = format!("malformed-{index}");
    let metadata = json!({"name": name, "labels": {"malformed": "true"}});
    let spec = match index % 4 {
        0 => json!({"priority": "high"}),
        1 => {
            json!({"priority": 7, "nodeSelector": {"matchLabels": {"no": "node"}}, "sysctls": [{"name": "kernel.panic", "value": "1"}]})
        }
        2 => json!({"tuning": 7, "sysctls": "all of them"}),
        _ => json!([1, 2, 3]),
    };
    let is_tuning = index % 4 < 2;
    let kind = if is_tuning {
        "NodeNetworkTuning"
    } else {
        "NodeNetworkProfile"
    };
    let object = json!({"apiVersion": "nettune.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
    (is_tuning, object)
}

fn words(error: impl Display) -> String {
    error.to_string()
}

#[tokio::test]
async fn a_thousand_malformed_objects_stop_nothing_and_are_written_once() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        for crd in [TUNINGS, PROFILES] {
            let loosen = json!([
                {"op": "remove", "path": "/spec/versions/0/selectableFields"},
                {"op": "replace", "path": SCHEMA, "value": open},
            ]);
            fault.redefine(crd, loosen).await?;
        }
        let tunings = ApiResource::erase::<NodeNetworkTuning>(&());
        let tunings = &Api::<DynamicObject>::all_with(fault.client.clone(), &tunings);
        let profiles = ApiResource::erase::<NodeNetworkProfile>(&());
        let profiles = &Api::<DynamicObject>::all_with(fault.client.clone(), &profiles);
        let create = async |index| {
            let (is_tuning, object) = malformed(index);
            let object = serde_json::from_value(object).map_err(words)?;
            let api = if is_tuning { tunings } else { profiles };
            api.create(&PostParams::default(), &object)
                .await
                .map(drop)
                .map_err(words)
        };
        // The looser schema is in force when the first of each kind is let in.
        for index in 0..4 {
            let look = async |_: &Cluster| create(index).await;
            fault.cluster.until(SOON, look).await?;
        }
        let rest = stream::iter((4..MALFORMED).map(create)).buffer_unordered(AT_ONCE);
        rest.try_collect::<()>().await.map_err(anyhow::Error::msg)?;
        fault.cluster.control_plane.install_crds().await?;
        fault.apply(&LARGE.at_once()).await?;
        let took = fault.cluster.holds(&LARGE.values(), SOON).await?;
        let writes = fault
            .ends_right("a thousand malformed objects", &LARGE.values(), SOON * 2)
            .await?;
        eprintln!("the good ones held what is wanted after {took:.1?}");
        writes.have_just(3, SPEC_CHANGED)?;
        // A profile without a Node is ignored; an invalid tuning is reported once.
        writes.have_just(MALFORMED / 2, PROFILE_DELETED)?;
        let said = writes
            .all()
            .filter(|write| write.name.starts_with("malformed") && write.is_done());
        let said = said
            .filter(|write| write.resource == "nodenetworktunings/status")
            .count();
        ensure!(
            said == MALFORMED / 2,
            "{said} said so of {}",
            writes.done(TUNING_SAID)
        );
        let reasons = r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].reason}{"\n"}{end}"#;
        let reasons = fault
            .kubectl(&["get", "nnt", "-l", "malformed=true", "-o", reasons])
            .await?;
        let reported = reasons.lines().filter(|line| *line == "InvalidTuning");
        ensure!(reported.count() == MALFORMED / 2, "{reasons}");
        fault
            .kubectl(&["delete", "nnt", "-l", "malformed=true", "--wait=false"])
            .await?;
        Ok(())
    })
    .await
}
