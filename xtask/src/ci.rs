//! `cargo xtask ci`: the checks that a change must pass. A failed step does not stop the next ones.

use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::cargo::{cargo, exit_code, finish};
use crate::test::{self, Count};
use crate::{deny, fuzz, generate, imports, structure, workflows};

pub(crate) async fn run() -> anyhow::Result<ExitCode> {
    let mut count = Count::default();
    count += step("format", by(cargo(["fmt", "--all", "--check"]))).await;
    let clippy = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    count += step("clippy", by(cargo(clippy))).await;
    let mut doc = cargo(["doc", "--quiet", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    count += step("docs", by(doc)).await;
    count += step("generated files", by(generate::command(true))).await;
    let chart = none(async { generate::chart(true) });
    count += step("generated files of the chart", chart).await;
    count += step("crate dependencies", none(imports::violations())).await;
    count += step("structure", none(async { structure::violations() })).await;
    count += step("workflows", workflows::check()).await;
    count += step("dependencies", dependencies()).await;
    let fuzz_format = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
    count += step("fuzzer format", by(cargo(fuzz_format))).await;
    count += step("fuzzing", fuzz::in_ci()).await;
    let started = Instant::now();
    count += test::run_all().await?;
    println!("tests: {:.1} s", started.elapsed().as_secs_f32());
    println!("{count}");
    Ok(exit_code(count.failed == 0))
}

/// Runs one step, prints how it went and how long it took, and counts it like a test.
async fn step(name: &str, work: impl Future<Output = anyhow::Result<String>>) -> Count {
    let started = Instant::now();
    let result = work.await;
    let seconds = started.elapsed().as_secs_f32();
    match result {
        Ok(remark) if remark.is_empty() => println!("{name}: ok in {seconds:.1} s"),
        Ok(remark) => println!("{name}: ok in {seconds:.1} s; {remark}"),
        Err(error) => {
            println!("{name}: failed in {seconds:.1} s\n{error:#}");
            return Count {
                failed: 1,
                ..Count::default()
            };
        }
    }
    Count {
        passed: 1,
        ..Count::default()
    }
}

async fn by(command: Command) -> anyhow::Result<String> {
    let line = nettune_tests::process::command_line(&command);
    finish(command, |_| ()).await?.succeeded(&line)?;
    Ok(String::new())
}

/// Fails if there are violations, and names them.
async fn none(
    violations: impl Future<Output = anyhow::Result<Vec<String>>>,
) -> anyhow::Result<String> {
    let violations = violations.await?;
    anyhow::ensure!(violations.is_empty(), "{}", violations.join("\n"));
    Ok(String::new())
}

async fn dependencies() -> anyhow::Result<String> {
    let lines = deny::check().await?.succeeded("cargo deny check")?;
    Ok(lines
        .into_iter()
        .find(|line| line.starts_with("advisories not checked"))
        .unwrap_or_default())
}
