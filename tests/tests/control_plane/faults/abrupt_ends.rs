//! Operators and agents killed at random moments while a tuning keeps changing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use fastrand::Rng;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use nettune_crds::NodeNetworkTuning;
use nettune_tests::cluster::Machine;
use nettune_tests::cluster::chaos::Chaos;
use nettune_tests::{Cluster, ClusterConfig};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::writes::{SPEC_CHANGED, Writes};
use super::{LARGE, SMALL, SOMAXCONN, SOON, TUNING, wanted};

const NODES: u16 = 6;
/// The longest pause between two kills.
const PAUSE_MS: u64 = 400;
/// One of so many kills is of an operator: without a leader for a while nothing is under way that could be cut off.
const OPERATORS: usize = 10;
/// One of so many kills is followed by a change of the tuning.
const CHANGES: usize = 4;
/// The cluster has settled when nothing is written for this long.
const CALM: Duration = Duration::from_secs(3);

#[tokio::test]
async fn processes_killed_at_random_moments_lose_nothing() -> anyhow::Result<()> {
    let chaos = Chaos::from_environment()?;
    eprintln!("{chaos}");
    run(chaos).await.with_context(|| chaos.to_string())
}

async fn run(chaos: Chaos) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(ClusterConfig {
        nodes: NODES,
        lease_seconds: 3,
        ..ClusterConfig::default()
    })
    .await?;
    let client = cluster.client().await?;
    cluster.control_plane.apply(&SMALL.at_once()).await?;
    let began = cluster.audit.mark();
    let tunings = ApiResource::erase::<NodeNetworkTuning>(&());
    let tunings = Api::<DynamicObject>::all_with(client.clone(), &tunings);
    let mut random = Rng::with_seed(chaos.seed);
    let mut changes = 0;
    for _ in 0..chaos.kills {
        sleep(Duration::from_millis(random.u64(0..PAUSE_MS))).await;
        if random.usize(0..OPERATORS) == 0 {
            let killed = random.usize(0..cluster.operators.len());
            cluster.operators[killed].kill()?;
        } else {
            let killed = random.usize(0..cluster.machines.len());
            let machine = &mut cluster.machines[killed];
            machine.agent.kill()?;
            is_sound(machine).with_context(|| machine.agent.end_of_log(30))?;
        }
        if random.usize(0..CHANGES) == 0 {
            let patch = Patch::Merge(json!({"spec": spec(&mut random)}));
            tunings
                .patch(TUNING, &PatchParams::default(), &patch)
                .await?;
            changes += 1;
        }
        cluster.revive()?;
    }
    // A merge would keep fields of the last spec, such as a pause.
    cluster.control_plane.apply(&LARGE.at_once()).await?;
    let calm = json!({"spec": {"rollout": {"type": "AllAtOnce", "paused": false}, "releasePolicy": "Retain", "conntrack": {"minEntries": null}}});
    tunings
        .patch(TUNING, &PatchParams::default(), &Patch::Merge(calm))
        .await?;
    let values = LARGE.values();
    let took = cluster
        .comes_right(&client, &wanted(&values), SOON * 2)
        .await?;
    for machine in &cluster.machines {
        is_sound(machine).with_context(|| machine.agent.end_of_log(30))?;
    }
    cluster.rests(CALM, SOON).await?;
    let writes = Writes::of(cluster.writes(began)?);
    eprintln!(
        "{} kills, {changes} changes: right {took:.1?} later; {:?}",
        chaos.kills,
        writes.counted()
    );
    // One for what may go out at once, one for what waits for its turn, and one that was overtaken by the next change.
    let most = 3 * usize::from(NODES) * (changes + 2);
    writes.have(0..=most, SPEC_CHANGED)
}

/// Any of the specs that it may be changed to.
fn spec(random: &mut Rng) -> Value {
    let sizes = if random.bool() { LARGE } else { SMALL };
    let [first, second, third] = sizes
        .thresholds
        .map(|text| text.parse::<u32>().unwrap_or(0));
    let rollout = match random.u8(0..4) {
        0 => json!({"type": "Waves", "minReadySeconds": 0, "paused": false}),
        1 => json!({"type": "Waves", "minReadySeconds": 1, "paused": random.bool()}),
        _ => json!({"type": "AllAtOnce", "paused": false}),
    };
    let somaxconn = ["2048", "8192", "16384"][random.usize(0..3)];
    let sysctls = match random.u8(0..3) {
        0 => json!([]),
        _ => json!([{"name": SOMAXCONN, "value": somaxconn}]),
    };
    let least = [Value::Null, json!(524_288), json!(1_048_576)][random.usize(0..3)].clone();
    json!({
        "neighbors": {"thresholds": {"gcThresh1": first, "gcThresh2": second, "gcThresh3": third}},
        "conntrack": {"minEntries": least},
        "sysctls": sysctls,
        "rollout": rollout,
        "releasePolicy": if random.bool() { "Retain" } else { "Restore" },
    })
}

/// While an agent is down: thresholds are in order, and each changed value has its original on disk.
fn is_sound(machine: &Machine) -> anyhow::Result<()> {
    let held = machine.directory.sysctls()?;
    let saved = originals(machine)?;
    for (name, value) in &held {
        let original = &machine.originals[name];
        let known =
            saved.get(name) == Some(original) || (!saved.contains_key(name) && value == original);
        ensure!(
            known,
            "{name} holds {value}, was {original}; saved is {:?}",
            saved.get(name)
        );
    }
    for family in ["ipv4", "ipv6"] {
        let threshold = |number| {
            let name = format!("net.{family}.neigh.default.gc_thresh{number}");
            held.get(&name).and_then(|text| text.parse::<u64>().ok())
        };
        let thresholds: Vec<_> = (1..=3).filter_map(threshold).collect();
        let in_order = thresholds.len() == 3 && thresholds.is_sorted_by(u64::lt);
        ensure!(in_order, "{family}: {thresholds:?}");
    }
    Ok(())
}

/// What the agent's state says that the kernel held first.
fn originals(machine: &Machine) -> anyhow::Result<BTreeMap<String, String>> {
    let state = machine.directory.state_dir();
    // What is not flushed yet is the newer one.
    let files = ["state.json.new", "state.json"].map(|file| std::fs::read(state.join(file)));
    let Some(text) = files.into_iter().find_map(Result::ok) else {
        return Ok(BTreeMap::new());
    };
    let state: Value = serde_json::from_slice(&text).context("a torn state")?;
    let records = state["records"].as_object().into_iter().flatten();
    let original = |(name, record): (&String, &Value)| {
        Some((name.clone(), record["original"].as_str()?.to_owned()))
    };
    Ok(records.filter_map(original).collect())
}
