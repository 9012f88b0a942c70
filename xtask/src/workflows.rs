//! actionlint: mistakes in `.github/workflows` that would only show once they are pushed.

use nettune_tests::artifacts::tools;
use nettune_tests::process::command;
use nettune_tests::workspace;

use crate::cargo::finish;

pub(crate) async fn check() -> anyhow::Result<String> {
    let program = tokio::task::spawn_blocking(tools::actionlint).await??;
    let mut actionlint = command(program);
    // It would run these where they happen to be installed, and find more on one machine than on another.
    actionlint
        .args(["-shellcheck=", "-pyflakes="])
        .current_dir(workspace::root());
    finish(actionlint, |_| ()).await?.succeeded("actionlint")?;
    Ok(String::new())
}
