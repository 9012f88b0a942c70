//! A leader that is cut off while its writes are on their way, and whose writes arrive when another one leads.

use anyhow::{Context, ensure};
use nettune_tests::cluster::OPERATOR;

use super::pool::with_cluster;
use super::writes::{SPEC_CHANGED, Writes};
use super::{LARGE, SMALL, SOON};

#[tokio::test]
async fn writes_of_a_former_leader_are_refused_by_the_api_server() -> anyhow::Result<()> {
    with_cluster(async |fault| {
        let leader = fault.cluster.leader(&fault.client).await?;
        let leader = leader.context("no operator leads")?;
        let starts = fault.cluster.operators[leader].starts();
        // It sees the change and writes, but nothing arrives: it cannot renew its Lease either.
        fault.cluster.proxies[leader].hold();
        fault.apply(&LARGE.at_once()).await?;
        fault.cluster.holds(&LARGE.values(), SOON).await?;
        let follower = fault.cluster.leader(&fault.client).await?;
        ensure!(
            follower.is_some_and(|follower| follower != leader),
            "{follower:?}"
        );
        let starts_since = fault.cluster.operators[leader].starts() - starts;
        ensure!(starts_since > 0, "it has not ended itself");
        fault.apply(&SMALL.at_once()).await?;
        fault.cluster.holds(&SMALL.values(), SOON).await?;

        let late = fault.cluster.audit.mark();
        fault.cluster.proxies[leader].release();
        let look = async |cluster: &nettune_tests::Cluster| {
            let requests = cluster.audit.since(late);
            let requests = Writes::of(requests.map_err(|error| error.to_string())?);
            let refused = requests.all().filter(|request| {
                let of_profile = request.resource == "nodenetworkprofiles";
                request.user == OPERATOR
                    && of_profile
                    && request.verb == "patch"
                    && request.code == 409
            });
            match refused.count() {
                1.. => Ok(()),
                _ => Err(format!("not refused: {requests}")),
            }
        };
        fault.cluster.until(SOON, look).await?;
        let writes = fault
            .ends_right("writes of a stale leader", &SMALL.values(), SOON)
            .await?;
        writes.have_just(6, SPEC_CHANGED)?;
        Ok(())
    })
    .await
}
