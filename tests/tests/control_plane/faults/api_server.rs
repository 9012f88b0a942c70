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
async fn values_are_kept_while_the_api_server_is_down_and_work_resumes_after() -> anyhow::Result<()>
{
    with_cluster(async |fault| {
        fault.cluster.control_plane.kill_api_server()?;
        // No condition can be read now.
        fault.agents_reach_the_api_server(false).await?;
        fault.no_operator_leads().await?;
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
async fn a_watch_older_than_etcds_history_lists_again() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        // Changes that no watch has seen are compacted away, and a new API server does not know them.
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
        // Agents have not been restarted: only a watch that gets a 410 lists again. It lists in pages, unlike the list
        // by which an agent learns that an outage is over.
        let requests = Writes::of(fault.cluster.audit.since(fault.began)?);
        let listed = requests
            .all()
            .filter(|request| request.user == AGENT && request.verb == "list")
            .filter(|request| request.uri.contains("limit="));
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
async fn watches_cut_every_second_still_deliver_changes() -> anyhow::Result<()> {
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
async fn new_operators_resume_after_both_are_killed() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        for operator in &mut fault.cluster.operators {
            operator.kill()?;
        }
        fault.apply(&LARGE.at_once()).await?;
        fault.machine_is_meddled_with()?;
        // Nothing restarts them meanwhile.
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
