//! Clusters that tests take one after the other, since starting one takes longer than most faults.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use nettune_tests::control_plane::audit::Mark;
use nettune_tests::{Cluster, ClusterConfig};

use super::{SMALL, SOON, THRESH3, Writes, wanted};

/// Nothing is written for this long in a settled cluster.
const CALM: Duration = Duration::from_millis(1500);

static POOL: Mutex<Pool> = Mutex::new(Pool {
    users: 0,
    free: Vec::new(),
});

/// The clusters end with the last test that could use them.
struct Pool {
    users: usize,
    free: Vec<Cluster>,
}

/// A test that has, had or will have a cluster.
struct User;

impl User {
    fn new() -> Self {
        pool().users += 1;
        Self
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut pool = pool();
        pool.users -= 1;
        if pool.users == 0 {
            let ended = std::mem::take(&mut pool.free);
            drop(pool);
            drop(ended);
        }
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster at rest, with SMALL applied, and what is written to it from now on.
pub(super) struct Fault {
    pub(super) cluster: Cluster,
    pub(super) client: Client,
    pub(super) began: Mark,
}

/// Runs a test on a cluster at rest. One that fails takes its cluster with it.
pub(super) async fn with_cluster(
    test: impl AsyncFnOnce(&mut Fault) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _user = User::new();
    let free = pool().free.pop();
    let cluster = match free {
        Some(cluster) => cluster,
        None => Cluster::start(ClusterConfig::default()).await?,
    };
    let mut fault = Fault::on(cluster).await?;
    test(&mut fault).await?;
    pool().free.push(fault.cluster);
    Ok(())
}

impl Fault {
    pub(super) async fn on(mut cluster: Cluster) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        // A watch that has failed lately waits up to a minute before it tries again: the previous fault must not
        // affect this test.
        for machine in &mut cluster.machines {
            machine.agent.kill()?;
        }
        cluster.control_plane.apply(&SMALL.at_once()).await?;
        let values = SMALL.values();
        cluster
            .comes_right(&client, &wanted(&values), SOON * 2)
            .await?;
        cluster.rests(CALM, SOON).await?;
        let began = cluster.audit.mark();
        Ok(Self {
            cluster,
            client,
            began,
        })
    }

    pub(super) async fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        self.cluster.control_plane.apply(yaml).await?;
        Ok(())
    }

    pub(super) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        Ok(self.cluster.control_plane.kubectl_ok(args).await?)
    }

    /// Waits until a command of the administrator prints what is expected.
    pub(super) async fn prints(
        &mut self,
        args: &[&str],
        is: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        let look = async |cluster: &Cluster| {
            let printed = cluster.control_plane.kubectl_ok(args).await;
            let printed = printed.map_err(|error| error.to_string())?;
            if is(&printed) { Ok(()) } else { Err(printed) }
        };
        self.cluster.until(SOON, look).await?;
        Ok(())
    }

    /// Waits until all is right and nothing more is written. Returns all that was written since the test began.
    pub(super) async fn ends_right(
        &mut self,
        fault: &str,
        values: &[(&str, &str)],
        within: Duration,
    ) -> anyhow::Result<Writes> {
        let Self {
            cluster, client, ..
        } = self;
        let took = cluster.comes_right(client, &wanted(values), within).await?;
        cluster.rests(CALM, SOON).await?;
        let writes = self.writes()?;
        eprintln!("{fault}: right {took:.1?} later; {:?}", writes.counted());
        Ok(writes)
    }

    /// Another process changes a value on a node; its agent restores it.
    pub(super) fn machine_is_meddled_with(&self) -> anyhow::Result<()> {
        self.cluster.machines[0]
            .directory
            .set_sysctl(THRESH3, "1024")?;
        Ok(())
    }

    /// Another process changes values that SMALL has set; waits until the agents have restored them.
    pub(super) async fn is_still_kept(&mut self) -> anyhow::Result<()> {
        self.machine_is_meddled_with()?;
        self.cluster.holds(&SMALL.values(), SOON).await?;
        Ok(())
    }

    pub(super) fn writes(&self) -> anyhow::Result<Writes> {
        Ok(Writes::of(self.cluster.writes(self.began)?))
    }
}
