//! The plan for the demo's cluster, before there is a cluster.

use nettune_tests::process::command;
use nettune_tests::workspace;

use super::show;
use super::stage::{GROWN, NODES, PODS};
use crate::cargo::finish;

pub(super) async fn show() -> anyhow::Result<()> {
    show::heading(&format!(
        "What nettune would do on {NODES} and on {GROWN} nodes (needs no cluster)"
    ))?;
    for nodes in [NODES, GROWN] {
        let args = format!("plan --nodes {nodes} --pods-per-node {PODS}");
        let mut plan = command(workspace::binary("kubectl-nettune")?);
        plan.args(args.split(' '));
        let output = finish(plan, |_| ())
            .await?
            .succeeded("kubectl-nettune plan")?;
        show::command("$", &format!("kubectl-nettune {args}"), &output.join("\n"))?;
    }
    Ok(())
}
