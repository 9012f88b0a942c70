//! Machines whose clocks differ by hours, or jump: operators and agents with the time of day that libfaketime gives
//! them, on a real control plane. How fast time passes stays the kernel's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::jiff::Timestamp;
use nettune_tests::artifacts::debian::packages::{LIBFAKETIME, root_of};
use nettune_tests::cluster::{DesiredValue, Member, OPERATOR};
use nettune_tests::{Cluster, ClusterConfig, nodes};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const CALM: Duration = Duration::from_secs(3);
const LEASE_SECONDS: u16 = 6;
const FAILOVER: Duration = Duration::from_secs(8);
const SOMAXCONN: &str = "net.core.somaxconn";
const HOUR: i64 = 3600;

/// Who has another clock than the machine, by how much.
const CLOCKS: [(&str, i64); 4] = [
    ("operator-0", HOUR),
    ("operator-1", 0),
    ("node-0", HOUR),
    ("node-1", -HOUR),
];

fn tuning(somaxconn: &str, rollout: &str) -> String {
    format!(
        "{{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {{name: default}}, spec: {{
           neighbors: {{}}, conntrack: {{}}, sysctls: [{{name: {SOMAXCONN}, value: '{somaxconn}'}}],
           rollout: {rollout}}}}}"
    )
}

/// One file for each clock; who has it reads it whenever it looks at the clock.
struct Clocks(tempfile::TempDir);

impl Clocks {
    fn new() -> anyhow::Result<Self> {
        let this = Self(tempfile::tempdir()?);
        for (member, seconds) in CLOCKS {
            this.set(member, seconds)?;
        }
        Ok(this)
    }

    fn file(&self, member: &str) -> PathBuf {
        self.0.path().join(member)
    }

    /// As if that machine's clock had been set.
    fn set(&self, member: &str, seconds: i64) -> anyhow::Result<()> {
        // Renamed, so that no reader sees half of it.
        let new = self.0.path().join("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(new, self.file(member))?;
        Ok(())
    }

    /// Sets all clocks by so much, and has the operators decide by them: a Node changes.
    async fn jump(&self, client: &kube::Client, seconds: i64) -> anyhow::Result<()> {
        for (member, ahead) in CLOCKS {
            self.set(member, ahead + seconds)?;
        }
        let jump = format!("by{seconds}");
        nodes::label(client, "node-0", "jump", Some(&jump)).await?;
        Ok(())
    }

    fn environment(&self, library: &Path) -> Vec<(String, String, String)> {
        let of_member = |(member, _): (&str, i64)| {
            let file = self.file(member).display().to_string();
            let library = library.display().to_string();
            let variables = [
                ("LD_PRELOAD", library),
                ("FAKETIME_TIMESTAMP_FILE", file),
                ("FAKETIME_NO_CACHE", "1".to_owned()),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
                ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ];
            variables.map(|(name, value)| (member.to_owned(), name.to_owned(), value))
        };
        CLOCKS.into_iter().flat_map(of_member).collect()
    }
}

/// By how much a program's clock was ahead when it last said something, roughly.
fn ahead(member: &Member) -> anyhow::Result<i64> {
    let line: Value = serde_json::from_str(&member.end_of_log(1))?;
    let said: Timestamp = line["timestamp"].as_str().context("a time")?.parse()?;
    Ok(said.as_second() - Timestamp::now().as_second())
}

#[tokio::test]
async fn clocks_of_two_machines_are_never_compared_and_may_jump() -> anyhow::Result<()> {
    let root = tokio::task::spawn_blocking(|| root_of(&LIBFAKETIME)).await??;
    let library = root.join("usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1");
    ensure!(library.is_file(), "no {}", library.display());
    let clocks = Clocks::new()?;
    let mut cluster = Cluster::start(ClusterConfig {
        lease_seconds: LEASE_SECONDS,
        environment: clocks.environment(&library),
        ..ClusterConfig::default()
    })
    .await?;
    let client = cluster.client().await?;
    let at_once = "{type: AllAtOnce}";
    cluster
        .control_plane
        .apply(&tuning("8192", at_once))
        .await?;
    cluster.becomes(&client, "8192").await?;
    for (member, expected) in [
        (&cluster.operators[0], HOUR),
        (&cluster.machines[1].agent, -HOUR),
    ] {
        let ahead = ahead(member)?;
        ensure!(
            (ahead - expected).abs() < 120,
            "{} is {ahead} s ahead",
            member.name()
        );
    }

    // Each of the two follows the other, the one ahead and the one that is not.
    for somaxconn in ["2048", "16384"] {
        let leader = cluster
            .leader(&client)
            .await?
            .context("no operator leads")?;
        cluster.operators[leader].kill()?;
        let killed = Instant::now();
        cluster
            .control_plane
            .apply(&tuning(somaxconn, at_once))
            .await?;
        let follows = async |cluster: &Cluster| match cluster.leader(&client).await {
            Ok(Some(follower)) if follower != leader => Ok(()),
            other => Err(format!("{other:?} leads after {leader}")),
        };
        cluster.until(FAILOVER, follows).await?;
        let took = killed.elapsed();
        println!("operator {leader} was killed; followed after {took:.1?}");
        // It renews every fraction of a second.
        ensure!(
            took > Duration::from_secs(u64::from(LEASE_SECONDS) - 2),
            "{took:?}"
        );
        cluster.becomes(&client, somaxconn).await?;
    }

    // Nothing has happened for those whose clock jumps: neither to a cluster at rest, nor to a rollout.
    cluster.rests(CALM, SOON).await?;
    let mark = cluster.audit.mark();
    for jump in [HOUR, -HOUR] {
        clocks.jump(&client, jump).await?;
        tokio::time::sleep(CALM).await;
    }
    let writes = cluster.writes(mark)?;
    ensure!(writes.is_empty(), "{writes:?}");
    let slowly = "{type: Waves, minReadySeconds: 4}";
    cluster.control_plane.apply(&tuning("4096", slowly)).await?;
    for jump in [HOUR, -HOUR, 0] {
        tokio::time::sleep(Duration::from_secs(1)).await;
        clocks.jump(&client, jump).await?;
    }
    let reached = cluster.machines.iter().filter(|machine| {
        let held = machine.directory.sysctl(SOMAXCONN);
        held.is_ok_and(|held| held == "4096")
    });
    ensure!(
        reached.count() == 1,
        "a second node before the first has passed"
    );
    cluster.becomes(&client, "4096").await?;
    let writes = cluster.writes(mark)?;
    let specs = writes
        .iter()
        .filter(|write| write.user == OPERATOR && write.verb == "patch");
    ensure!(specs.count() == 3, "{writes:?}");
    Ok(())
}

/// What this test waits for again and again.
trait Becomes {
    async fn becomes(&mut self, client: &kube::Client, somaxconn: &str) -> anyhow::Result<()>;
}

impl Becomes for Cluster {
    async fn becomes(&mut self, client: &kube::Client, somaxconn: &str) -> anyhow::Result<()> {
        let wanted = DesiredValue {
            tuning: "default",
            values: &[(SOMAXCONN, somaxconn)],
        };
        self.comes_right(client, &wanted, SOON).await?;
        Ok(())
    }
}
