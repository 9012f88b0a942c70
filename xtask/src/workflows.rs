//! actionlint: finds mistakes in `.github/workflows` before they are pushed.

use nettune_tests::artifacts::tools;
use nettune_tests::process::command;
use nettune_tests::workspace;

use crate::cargo::finish;

pub(crate) async fn check() -> anyhow::Result<String> {
    let program = tokio::task::spawn_blocking(tools::actionlint).await??;
    let mut actionlint = command(program);
    // Without these flags the result depends on what else is installed.
    actionlint
        .args(["-shellcheck=", "-pyflakes="])
        .current_dir(workspace::root());
    finish(actionlint, |_| ()).await?.succeeded("actionlint")?;
    Ok(String::new())
}
