//! `cargo xtask test`: builds once, then runs the tiers, cheapest first, and counts.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use nettune_tests::cluster::chaos::{self, Chaos};
use nettune_tests::workspace::BIN_DIR_VARIABLE;
use tempfile::TempDir;

use self::binaries::TestBinary;
pub(crate) use self::count::Count;
use self::tier::Tier;
use crate::cargo::{cargo, exit_code, finish};

mod binaries;
mod count;
mod tier;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only these tiers
    #[arg(long, value_delimiter = ',', default_values = ["pure", "host", "model", "control-plane", "kernel"])]
    tier: Vec<Tier>,

    /// Repeat the random kills of a run that printed this seed
    #[arg(long)]
    seed: Option<u64>,

    /// How many processes to kill at random moments
    #[arg(long, default_value_t = chaos::KILLS)]
    kills: u32,
}

impl Args {
    fn chaos(&self) -> Chaos {
        let new = Chaos::new();
        Chaos {
            seed: self.seed.unwrap_or(new.seed),
            kills: self.kills,
        }
    }
}

/// Killed processes need a moment to close their files before their folder can be removed.
const AFTER_A_KILL: Duration = Duration::from_millis(300);

pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let count = run_tiers(&args.tier, args.chaos()).await?;
    println!("{count}");
    Ok(exit_code(count.failed == 0))
}

/// All tiers, for `cargo xtask ci`.
pub(crate) async fn run_all() -> anyhow::Result<Count> {
    run_tiers(&Tier::ALL, Chaos::new()).await
}

async fn run_tiers(tiers: &[Tier], chaos: Chaos) -> anyhow::Result<Count> {
    let folder = TemporaryFolder::new()?;
    let binaries = binaries::build().await?;
    let mut total = Count::default();
    for tier in Tier::ALL.into_iter().filter(|tier| tiers.contains(tier)) {
        let started = Instant::now();
        let count = run_tier(tier, &binaries, &folder, chaos).await?;
        println!(
            "{tier}: {count} in {:.1} s",
            started.elapsed().as_secs_f32()
        );
        total += count;
    }
    Ok(total)
}

async fn run_tier(
    tier: Tier,
    binaries: &[TestBinary],
    folder: &TemporaryFolder,
    chaos: Chaos,
) -> anyhow::Result<Count> {
    let of_tier: Vec<_> = binaries
        .iter()
        .filter(|binary| binary.tier == tier)
        .collect();
    if let Err(reason) = tier.prepare().await {
        return cannot_run(tier, &reason, &of_tier).await;
    }
    if tier == Tier::ControlPlane {
        println!("{tier}: {chaos}");
    }
    let mut counts: Vec<BoxFuture<'_, anyhow::Result<Count>>> = Vec::new();
    if tier == Tier::Pure {
        counts.push(run_doc_tests().boxed());
    }
    for binary in of_tier {
        counts.push(run_binary(binary, folder, chaos).boxed());
    }
    let running = stream::iter(counts).buffer_unordered(tier.binaries_at_a_time());
    running
        .try_fold(Count::default(), async |mut sum, count| {
            sum += count;
            Ok(sum)
        })
        .await
}

/// A tier that cannot run is reported and skipped; in CI it fails.
async fn cannot_run(
    tier: Tier,
    reason: &anyhow::Error,
    binaries: &[&TestBinary],
) -> anyhow::Result<Count> {
    let mut tests = 0;
    for binary in binaries {
        tests += binary.list().await?;
    }
    println!("{tier}: cannot run: {reason:#}");
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    Ok(if is_ci {
        Count {
            failed: tests.max(1),
            ..Count::default()
        }
    } else {
        Count {
            skipped: tests,
            ..Count::default()
        }
    })
}

async fn run_binary(
    binary: &TestBinary,
    folder: &TemporaryFolder,
    chaos: Chaos,
) -> anyhow::Result<Count> {
    let mut command = binary.command();
    command
        .args(binary.tier.arguments())
        .envs(chaos.environment())
        .env("TMPDIR", folder.path())
        .env(BIN_DIR_VARIABLE, binaries::bin_dir(binary));
    let finished = finish(command, |_| ()).await?;
    // How many states each model has.
    let models = finished.lines.iter();
    for line in models.filter(|line| binary.tier == Tier::Model && line.starts_with("model ")) {
        println!("  {line}");
    }
    let count = Count::of_run(&finished.lines, finished.status.success());
    if count.failed > 0 {
        println!("{} failed:\n{}", binary.name, finished.text());
    }
    Ok(count)
}

async fn run_doc_tests() -> anyhow::Result<Count> {
    let finished = finish(cargo(["test", "--quiet", "--workspace", "--doc"]), |_| ()).await?;
    let count = Count::of_run(&finished.lines, finished.status.success());
    if count.failed > 0 {
        println!("doc tests failed:\n{}", finished.text());
    }
    Ok(count)
}

/// Temporary files of the tests; removed even if the tests were killed.
struct TemporaryFolder(Option<TempDir>);

impl TemporaryFolder {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(Some(
            tempfile::Builder::new()
                .prefix("nettune-tests-")
                .tempdir()?,
        )))
    }

    fn path(&self) -> &std::path::Path {
        self.0
            .as_ref()
            .map_or(std::path::Path::new("/tmp"), TempDir::path)
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let Some(folder) = self.0.take() else { return };
        if std::fs::read_dir(folder.path()).is_ok_and(|mut entries| entries.next().is_some()) {
            std::thread::sleep(AFTER_A_KILL);
        }
        if let Err(error) = folder.close() {
            eprintln!("cannot remove the tests' temporary folder: {error}");
        }
    }
}
