//! An API server that goes away, forgets, or cannot be held on to; operators that go away.

use std::time::Duration;

use anyhow::ensure;
use kube::Api;
use kube::api::ListParams;
use nettune_crds::NodeNetworkProfile;
use nettune_tests::Proxy;
use nettune_tests::cluster::AGENT;
use nettune_tests::control_plane::proxy::{Cut, Cutting};
use tokio::time::{Instant, sleep, sleep_until};

use super::pool::with_cluster;
use super::writes::{SPEC_CHANGED, Writes};
use super::{LARGE, LONG, SMALL, SOON};

#[tokio::test]
async fn while_the_api_server_is_away_values_are_kept_and_afterwards_work_goes_on()
-> anyhow::Result<()> {
    with_cluster(async |fault| {
        fault.cluster.control_plane.kill_api_server()?;
        // Nobody can read a condition now.
        fault.agents_reach_the_api_server(false).await?;
        fault.nobody_leads().await?;
        fault.is_still_kept().await?;
        fault.cluster.control_plane.start_api_server().await?;
        fault.agents_reach_the_api_server(true).await?;
        fault.apply(&LARGE.at_once()).await?;
        let writes = fault
            .ends_right("API server killed and back", &LARGE.values(), SOON)
            .await?;
        writes.have_just(3, SPEC_CHANGED)?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_watch_that_is_older_than_what_etcd_keeps_begins_anew() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        // What is changed while nobody can watch is compacted away, and forgotten by an API server that starts.
        fault.cluster.proxies.iter().for_each(Proxy::close);
        fault.apply(&LARGE.at_once()).await?;
        fault.cluster.control_plane.kill_api_server()?;
        fault.cluster.control_plane.compact_etcd().await?;
        fault.cluster.control_plane.start_api_server().await?;
        fault.agents_reach_the_api_server(false).await?;
        fault.is_unanswered().await?;
        fault.is_still_kept().await?;
        fault.cluster.proxies.iter().for_each(Proxy::open);
        let writes = fault
            .ends_right("etcd compacted under a watch", &LARGE.values(), SOON)
            .await?;
        writes.have_just(3, SPEC_CHANGED)?;
        // Agents have not been restarted: only a watch that is told 410 lists again.
        let requests = Writes::of(fault.cluster.audit.since(fault.began)?);
        let listed = requests
            .all()
            .filter(|request| request.user == AGENT && request.verb == "list");
        ensure!(listed.count() == 3, "{requests}");
        Ok(())
    })
    .await
}

const CUT_FOR: Duration = Duration::from_secs(30);

/// How often the specs of all profiles have been written, and one for each.
async fn generations(client: &kube::Client) -> anyhow::Result<i64> {
    let profiles = Api::<NodeNetworkProfile>::all(client.clone());
    let all = profiles.list(&ListParams::default()).await?.items;
    let generations = all.iter().filter_map(|profile| profile.metadata.generation);
    Ok(generations.sum())
}

#[tokio::test]
async fn watches_that_are_cut_each_second_still_bring_what_changes() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let before = generations(&fault.client).await?;
        let mut all_cuts = 0;
        let mut took = Vec::new();
        // A watch that is reset has failed, and is begun again less and less often.
        for (how, sizes, within) in [(Cut::InOrder, LARGE, SOON), (Cut::Reset, SMALL, LONG)] {
            let until = Instant::now() + CUT_FOR;
            let proxies = fault.cluster.proxies.iter();
            let cutting = proxies.map(|proxy| proxy.cut_every(Duration::from_secs(1), how));
            let cutting: Vec<_> = cutting.collect();
            sleep(CUT_FOR / 3).await;
            fault.apply(&sizes.at_once()).await?;
            took.push(fault.cluster.holds(&sizes.values(), within).await?);
            sleep_until(until).await;
            all_cuts += cutting.into_iter().map(Cutting::end).sum::<usize>();
        }
        ensure!(all_cuts >= 150, "{all_cuts} cuts");
        let writes = fault
            .ends_right("watch cut each second for a minute", &SMALL.values(), LONG)
            .await?;
        println!("{all_cuts} cuts; held {took:.1?} after the changes in between");
        // The audit log has no code for an answer that was cut off.
        let written = generations(&fault.client).await? - before;
        ensure!(written == 6, "{written}: {writes}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn when_both_operators_are_killed_the_next_ones_go_on() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        for operator in &mut fault.cluster.operators {
            operator.kill()?;
        }
        fault.apply(&LARGE.at_once()).await?;
        fault.machine_is_meddled_with()?;
        // Nobody starts them again meanwhile.
        sleep(Duration::from_secs(2)).await;
        let held = fault.cluster.all_hold(&SMALL.values());
        held.map_err(anyhow::Error::msg)?;
        fault.is_unanswered().await?;
        let said = fault.nodes_that_say("Ready").await?;
        ensure!(said == 3, "{said} nodes hold what their profiles say");
        fault.writes()?.have_just(0, SPEC_CHANGED)?;
        let writes = fault
            .ends_right("both operators killed", &LARGE.values(), SOON)
            .await?;
        writes.have_just(3, SPEC_CHANGED)?;
        Ok(())
    })
    .await
}
