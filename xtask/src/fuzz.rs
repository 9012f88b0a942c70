//! `cargo xtask fuzz`: coverage-guided fuzzing of every parser, with a stable compiler and no tool to
//! install: rustc puts in the counters, libFuzzer comes as a crate.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use nettune_tests::process::{command, command_line};
use nettune_tests::workspace;

use crate::cargo::{Finished, cargo, exit_code, finish};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds per target
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Run only these targets; each is a folder of fuzz/corpus
    targets: Vec<String>,
    /// Add inputs that reach new code to fuzz/corpus
    #[arg(long)]
    keep: bool,
}

/// Seconds for each target in CI: enough to run the corpus, and to find what is easy to find.
const IN_CI: u32 = 5;

/// The flags of cargo-fuzz without the sanitizers: a stable compiler has none, and code without `unsafe` needs none.
const COVERAGE: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let fuzzer = build().await?;
    let known = targets()?;
    let wanted: BTreeSet<_> = if args.targets.is_empty() {
        known.clone()
    } else {
        args.targets.iter().cloned().collect()
    };
    let mut found = false;
    for target in &wanted {
        anyhow::ensure!(
            known.contains(target),
            "no target {target}; the targets are {known:?}"
        );
        match fuzz(&fuzzer, target, args.seconds).await {
            Ok(line) => println!("{line}"),
            Err(error) => {
                found = true;
                println!("{target}: {error:#}");
            }
        }
        if args.keep {
            keep(&fuzzer, target).await?;
        }
    }
    Ok(exit_code(!found))
}

/// Every target for a short time.
pub(crate) async fn in_ci() -> anyhow::Result<String> {
    let fuzzer = build().await?;
    let targets = targets()?;
    let count = targets.len();
    for target in targets {
        let fuzzed = fuzz(&fuzzer, &target, IN_CI).await;
        fuzzed.with_context(|| format!("target {target}"))?;
    }
    Ok(format!("{count} targets, {IN_CI} s each"))
}

/// Each has a folder with its corpus.
fn targets() -> anyhow::Result<BTreeSet<String>> {
    let dir = corpus();
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

fn corpus() -> PathBuf {
    workspace::root().join("fuzz/corpus")
}

/// Holds the inputs that were found, and the fuzzer's build.
fn out() -> PathBuf {
    workspace::root().join("target/fuzz")
}

async fn build() -> anyhow::Result<PathBuf> {
    let host = host().await?;
    // With --target, what runs while building (macros, build scripts) is left without counters.
    let mut build = cargo([
        "build",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target",
        &host,
    ]);
    build
        .arg("--target-dir")
        .arg(out())
        .env("RUSTFLAGS", COVERAGE);
    let line = command_line(&build);
    finish(build, |line| {
        if line.trim_start().starts_with("Compiling nettune") {
            println!("{line}");
        }
    })
    .await?
    .succeeded(&line)?;
    Ok(out().join(host).join("debug/nettune-fuzz"))
}

async fn host() -> anyhow::Result<String> {
    let mut rustc = command(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.arg("-vV");
    let lines = finish(rustc, |_| ()).await?.succeeded("rustc -vV")?;
    let host = lines.iter().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

/// The fuzzer's command for one target.
fn fuzzer(program: &Path, target: &str) -> anyhow::Result<Command> {
    let dir = out().join("corpus").join(target);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut fuzzer = command(program);
    fuzzer
        .env("NETTUNE_FUZZ_TARGET", target)
        .env("RUST_BACKTRACE", "1")
        .args([
            "-max_len=8192",
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-verbosity=1",
        ])
        .arg(format!("-artifact_prefix={}/{target}-", out().display()))
        .arg(format!(
            "-dict={}",
            workspace::root().join("fuzz/words.dict").display()
        ));
    Ok(fuzzer)
}

async fn fuzz(program: &Path, target: &str, seconds: u32) -> anyhow::Result<String> {
    let mut fuzzer = fuzzer(program, target)?;
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .args(["-use_value_profile=1", "-print_final_stats=1"])
        .arg(out().join("corpus").join(target))
        .arg(corpus().join(target));
    let line = command_line(&fuzzer);
    let finished = finish(fuzzer, |_| ()).await?;
    anyhow::ensure!(
        finished.status.success(),
        "`{line}` found a failure; the last lines name the input:\n{}",
        finished.text()
    );
    Ok(summary(target, &finished))
}

/// One line of statistics.
fn summary(target: &str, finished: &Finished) -> String {
    let reached = finished.lines.iter().filter_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "cov:");
        words.nth(1)
    });
    let reached: Vec<&str> = reached.collect();
    let [first, last] = [reached.first(), reached.last()].map(|cov| cov.copied().unwrap_or("?"));
    let stat = |name: &str| {
        let line = finished.lines.iter().find(|line| line.contains(name));
        line.and_then(|line| line.split_whitespace().last())
            .unwrap_or("?")
            .to_owned()
    };
    format!(
        "{target}: {} inputs, {} per second, {first} edges reached by the corpus, {last} in total, {} MiB",
        stat("number_of_executed_units"),
        stat("average_exec_per_sec"),
        stat("peak_rss_mb"),
    )
}

/// Merges inputs that reach new code into the corpus in the tree.
async fn keep(program: &Path, target: &str) -> anyhow::Result<()> {
    let mut merge = fuzzer(program, target)?;
    merge
        .arg("-merge=1")
        .arg(corpus().join(target))
        .arg(out().join("corpus").join(target));
    let line = command_line(&merge);
    finish(merge, |_| ()).await?.succeeded(&line)?;
    Ok(())
}
