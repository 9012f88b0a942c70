//! The agent ended at every instant at which what it leaves behind can differ, and started again.
//!
//! The real process over a directory, with a real API server. It is run once to see by which system calls it changes
//! something, then once more for each of them, and the kernel kills it at that call. None is left to luck: each state
//! that a disk and a kernel can be left in lies before one of these calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use nettune_crds::{NodeNetworkProfile, conditions};
use nettune_tests::process::Process;
use nettune_tests::{ControlPlane, ControlPlaneConfig, FakeNode, Program, eventually};
use serde_json::{Value, json};

use trace::{KillPoint, Watch, kill_points, traced};

mod trace;

const DEADLINE: Duration = Duration::from_secs(60);
const AT_A_TIME: usize = 2;

/// What the directory holds before any agent has run. nf_conntrack_max is as large as kube-proxy would ever set it, or
/// it would not go back below that.
const ORIGINALS: [(&str, &str); 6] = [
    ("net.ipv4.neigh.default.gc_thresh1", "128"),
    ("net.ipv4.neigh.default.gc_thresh2", "512"),
    ("net.ipv4.neigh.default.gc_thresh3", "1024"),
    ("net.netfilter.nf_conntrack_max", "1048576"),
    ("net.core.somaxconn", "4096"),
    ("net.ipv4.vs.expire_nodest_conn", "0"),
];
const RAISED: [&str; 6] = ["2048", "4096", "8192", "2097152", "32768", "1"];
/// Lower than the originals, above them, and back to one.
const CHANGED: [&str; 6] = ["32", "64", "600", "2097152", "16384", "0"];

/// With the originals of what "drop" names no more, and what it still names.
const DROPPED: [&str; 6] = ["128", "512", "1024", "2097152", "4096", "1"];
const STILL_NAMED: [&str; 2] = [
    "net.netfilter.nf_conntrack_max",
    "net.ipv4.vs.expire_nodest_conn",
];

/// What the agent is doing when it is killed.
struct Scenario {
    name: &'static str,
    /// The profile that was applied before.
    before: Option<Value>,
    profile: Value,
    values: [&'static str; 6],
}

impl Scenario {
    /// What the agent must remember in the end: a restored original of a sysctl that no profile names is forgotten.
    fn originals(&self) -> BTreeMap<String, String> {
        let named = self.profile["sysctls"].as_array().into_iter().flatten();
        let named: BTreeSet<_> = named.filter_map(|entry| entry["name"].as_str()).collect();
        let originals = ORIGINALS
            .into_iter()
            .filter(|(name, _)| named.contains(name));
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        originals.map(owned).collect()
    }
}

fn scenarios() -> [Scenario; 4] {
    let release = || {
        let mut spec = spec(RAISED);
        spec["release"] = true.into();
        spec
    };
    let dropped = || {
        let mut spec = spec(RAISED);
        spec["releasePolicy"] = "Restore".into();
        let is_named = |entry: &Value| STILL_NAMED.iter().any(|name| entry["name"] == *name);
        if let Some(sysctls) = spec["sysctls"].as_array_mut() {
            sysctls.retain(is_named);
        }
        spec
    };
    [
        Scenario {
            name: "apply",
            before: None,
            profile: spec(RAISED),
            values: RAISED,
        },
        Scenario {
            name: "change",
            before: Some(spec(RAISED)),
            profile: spec(CHANGED),
            values: CHANGED,
        },
        Scenario {
            name: "release",
            before: Some(spec(RAISED)),
            profile: release(),
            values: ORIGINALS.map(|(_, value)| value),
        },
        Scenario {
            name: "drop",
            before: Some(spec(RAISED)),
            profile: dropped(),
            values: DROPPED,
        },
    ]
}

fn spec(values: [&str; 6]) -> Value {
    let sysctls = ORIGINALS
        .iter()
        .zip(values)
        .map(|((name, _), value)| json!({"name": name, "rule": "Exact", "value": value}));
    json!({"tuning": "default", "sysctls": sysctls.collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_instant_loses_neither_values_nor_originals() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
    control_plane.install_crds().await?;
    let bench = Arc::new(Bench {
        client: control_plane.client().await?,
        control_plane,
        runs: AtomicUsize::new(0),
    });
    let mut jobs = Vec::new();
    for scenario in scenarios().map(Arc::new) {
        let points = bench.kill_points(&scenario).await?;
        let changes_something = |calls: &str| points.iter().any(|p| p.words.starts_with(calls));
        // At the least a save (its flush and its renaming) and the write of a sysctl.
        for call in ["fsync", "rename", "close gc_thresh3"] {
            ensure!(changes_something(call), "{}: no {call}", scenario.name);
        }
        for (index, point) in points.into_iter().enumerate() {
            jobs.push((Arc::clone(&scenario), index + 1, point));
        }
    }
    println!(
        "| in | at | killed at | the kernel held then | after the restart | after a release |"
    );
    println!("|---|---|---|---|---|---|");
    let rows = futures::stream::iter(jobs).map(|(scenario, index, point)| {
        let bench = Arc::clone(&bench);
        async move {
            let outcome = bench.kill_at(&scenario, &point).await;
            let (name, at) = (scenario.name, point.words);
            let row = outcome.with_context(|| format!("{name} {index}, killed at {at}"))?;
            anyhow::Ok(format!("| {name} | {index} | {at} | {row} |"))
        }
    });
    // In their order, as each is known.
    let mut rows = std::pin::pin!(rows.buffered(AT_A_TIME));
    while let Some(row) = rows.next().await {
        println!("{}", row?);
    }
    Ok(())
}

struct Bench {
    client: kube::Client,
    control_plane: ControlPlane,
    runs: AtomicUsize,
}

impl Bench {
    /// All calls by which a scenario changes something.
    async fn kill_points(&self, scenario: &Scenario) -> anyhow::Result<Vec<KillPoint>> {
        let mut points = Vec::new();
        for watch in [Watch::State, Watch::Sysctls] {
            let run = self.prepare(scenario).await?;
            let mut process = run.start_traced(watch, None)?;
            run.settles(scenario).await?;
            process.kill()?;
            let trace = fs::read_to_string(run.trace())?;
            points.extend(kill_points(watch, &run.paths(watch), &trace)?);
        }
        Ok(points)
    }

    /// Kills at one of them; the row says what was found.
    async fn kill_at(&self, scenario: &Scenario, point: &KillPoint) -> anyhow::Result<String> {
        let run = self.prepare(scenario).await?;
        let mut process = run.start_traced(point.watch, Some(point))?;
        eventually("the kernel to kill the agent", DEADLINE, || {
            let ended = process.exit_status().map(|status| status.is_some());
            async move {
                ensure!(ended?, "it runs");
                anyhow::Ok(())
            }
        })
        .await?;
        let trace = fs::read_to_string(run.trace())?;
        ensure!(trace.contains("+++ killed by SIGKILL +++"), "{trace}");
        let held = run.values()?;
        run.is_sound(&held)?;

        let agent = run.start().await?;
        run.settles(scenario).await?;
        run.remembers(&scenario.originals()).await?;
        run.patch(&json!({"release": true})).await?;
        run.is_released().await?;
        drop(agent);
        Ok(format!(
            "{} | right, originals known | originals back",
            held.join(" ")
        ))
    }

    /// A node and its profile at the moment at which the scenario begins.
    async fn prepare(&self, scenario: &Scenario) -> anyhow::Result<Run<'_>> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let node = FakeNode::new(&format!("00000000-0000-4000-8000-{number:012}"))?;
        for (name, value) in ORIGINALS {
            node.set_sysctl(name, value)?;
        }
        let run = Run {
            name: format!("node-{number}"),
            node,
            profiles: Api::all(self.client.clone()),
            control_plane: &self.control_plane,
        };
        let first = scenario.before.as_ref().unwrap_or(&scenario.profile);
        let profile = json!({
            "apiVersion": "nettune.dev/v1alpha1",
            "kind": "NodeNetworkProfile",
            "metadata": {"name": run.name},
            "spec": first,
        });
        let profile = serde_json::from_value(profile)?;
        run.profiles
            .create(&PostParams::default(), &profile)
            .await?;
        if scenario.before.is_some() {
            let mut agent = run.start().await?;
            run.holds(RAISED).await?;
            run.is(conditions::READY).await?;
            agent.process_mut().kill()?;
            run.patch(&scenario.profile).await?;
        }
        Ok(run)
    }
}

/// One node.
struct Run<'a> {
    name: String,
    node: FakeNode,
    profiles: Api<NodeNetworkProfile>,
    control_plane: &'a ControlPlane,
}

impl Run<'_> {
    async fn start(&self) -> anyhow::Result<Program> {
        Ok(Program::agent(self.control_plane, &self.name, &self.node, &[]).await?)
    }

    fn start_traced(&self, watch: Watch, kill_at: Option<&KillPoint>) -> anyhow::Result<Process> {
        let agent =
            Program::agent_command(self.control_plane.kubeconfig(), &self.name, &self.node)?;
        let command = traced(&agent, watch, &self.paths(watch), kill_at, &self.trace())?;
        let log = self.node.state_dir().with_file_name("traced-agent.log");
        Ok(Process::start("traced agent", command, &log)?)
    }

    fn trace(&self) -> PathBuf {
        self.node.state_dir().with_file_name("trace")
    }

    fn paths(&self, watch: Watch) -> Vec<PathBuf> {
        let (state, sysctls) = (self.node.state_dir(), self.node.sysctl_root());
        match watch {
            Watch::State => {
                let files = ["", ".tmp", ".new", ".bad"].map(|end| format!("state.json{end}"));
                let files = files.map(|file| state.join(file));
                std::iter::once(state).chain(files).collect()
            }
            Watch::Sysctls => ORIGINALS
                .map(|(name, _)| sysctls.join(name.replace('.', "/")))
                .to_vec(),
        }
    }

    fn values(&self) -> anyhow::Result<Vec<String>> {
        let value = |(name, _)| Ok(self.node.sysctl(name)?);
        ORIGINALS.into_iter().map(value).collect()
    }

    /// What the state says that the kernel held first; none where nothing was saved.
    fn originals(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let read = |file| fs::read(self.node.state_dir().join(file));
        let Ok(text) = read("state.json.new").or_else(|_| read("state.json")) else {
            return Ok(BTreeMap::new());
        };
        let state: Value = serde_json::from_slice(&text).context("a torn state")?;
        let records = state["records"].as_object().into_iter().flatten();
        let original = |(name, record): (&String, &Value)| {
            let original = record["original"].as_str()?.to_owned();
            Some((name.clone(), original))
        };
        Ok(records.filter_map(original).collect())
    }

    async fn remembers(&self, originals: &BTreeMap<String, String>) -> anyhow::Result<()> {
        eventually(&format!("{originals:?} on disk"), DEADLINE, || async {
            let found = self.originals()?;
            ensure!(found == *originals, "{found:?}");
            anyhow::Ok(())
        })
        .await?;
        Ok(())
    }

    /// Before any cleanup: thresholds are in order, and each changed value has its original on disk.
    fn is_sound(&self, held: &[String]) -> anyhow::Result<()> {
        let originals = self.originals()?;
        for ((name, original), value) in ORIGINALS.iter().zip(held) {
            let saved = originals.get(*name).map(String::as_str);
            let known = saved == Some(original) || (saved.is_none() && value == original);
            ensure!(
                known,
                "{name} holds {value}, its original on disk is {saved:?}"
            );
        }
        let thresholds: Vec<u64> = held.iter().take(3).flat_map(|text| text.parse()).collect();
        ensure!(
            thresholds.len() == 3 && thresholds.is_sorted_by(u64::lt),
            "{held:?}"
        );
        Ok(())
    }

    async fn settles(&self, scenario: &Scenario) -> anyhow::Result<()> {
        self.holds(scenario.values).await?;
        match scenario.profile["release"].as_bool() {
            Some(true) => self.is(conditions::RELEASED).await,
            _ => self.is(conditions::READY).await,
        }
    }

    async fn is_released(&self) -> anyhow::Result<()> {
        self.holds(ORIGINALS.map(|(_, value)| value)).await?;
        self.is(conditions::RELEASED).await
    }

    async fn holds(&self, values: [&str; 6]) -> anyhow::Result<()> {
        eventually(&format!("{values:?}"), DEADLINE, || async {
            let held = self.values()?;
            ensure!(held == values, "{held:?}");
            anyhow::Ok(())
        })
        .await?;
        Ok(())
    }

    /// Waits until the agent has said this of the profile as it is now.
    async fn is(&self, condition: &str) -> anyhow::Result<()> {
        eventually(condition, DEADLINE, || async {
            let profile = self.profiles.get(&self.name).await?;
            let status = profile.status.context("no status")?;
            let current = status.observed_generation == profile.metadata.generation;
            let is_so = current && conditions::is_true(&status.conditions, condition);
            ensure!(is_so, "{status:?}");
            anyhow::Ok(())
        })
        .await?;
        Ok(())
    }

    async fn patch(&self, spec: &Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        let params = PatchParams::default();
        self.profiles.patch(&self.name, &params, &patch).await?;
        Ok(())
    }
}
