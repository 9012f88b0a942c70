//! The agent doubles a full table at once, up to the ceiling, on a real kernel.

use std::time::Duration;

use anyhow::ensure;
use nettune_tests::artifacts::debian::packages::IPROUTE2;
use nettune_tests::{
    ControlPlane, ControlPlaneConfig, Guest, GuestConfig, eventually, nodes, workspace,
};

use crate::pressure::{NEIGHBORHOOD, NFTABLES};

const NODE: &str = "kernel-0";
const DEADLINE: Duration = Duration::from_secs(60);
/// Counters are read once a second.
const AT_ONCE: Duration = Duration::from_secs(10);
const THRESH2: &str = "net.ipv4.neigh.default.gc_thresh2";
const THRESH3: &str = "net.ipv4.neigh.default.gc_thresh3";
const MAX: &str = "net.netfilter.nf_conntrack_max";

/// Smaller than any that the operator makes, so that little traffic fills them.
const PROFILE: &str = "
apiVersion: nettune.dev/v1alpha1
kind: NodeNetworkProfile
metadata: {name: kernel-0}
spec:
  tuning: default
  sysctls:
    - {name: net.ipv4.neigh.default.gc_thresh2, rule: AtLeast, value: '256', ceiling: 750}
    - {name: net.ipv4.neigh.default.gc_thresh3, rule: AtLeast, value: '512', ceiling: 1500}
    - {name: net.netfilter.nf_conntrack_max, rule: AtLeast, value: '1024', ceiling: 3000}
";

/// A route outside the main table, and IPv6.
const OTHER_NETWORKS: &str = "
ip route add 10.77.0.0/25 dev va table 100
ip -6 addr add 2001:db8:7::1/64 dev va nodad
";

struct Node {
    guest: Guest,
    control_plane: ControlPlane,
}

impl Node {
    async fn start() -> anyhow::Result<Self> {
        let control_plane = ControlPlane::start(ControlPlaneConfig::default()).await?;
        control_plane.install_crds().await?;
        let mut config = GuestConfig::joining(&control_plane)?;
        config.programs.push(workspace::binary("nettune-traffic")?);
        config.packages = vec![IPROUTE2, NFTABLES];
        let modules = ["nf_tables", "nft_ct"].map(str::to_owned);
        config.modules.extend(modules);
        let guest = Guest::boot(config).await?;
        guest
            .ok(&format!("set -e; {NEIGHBORHOOD}{OTHER_NETWORKS}"))
            .await?;
        for (key, value) in [(THRESH2, "256"), (THRESH3, "512"), (MAX, "1024")] {
            guest.set_sysctl(key, value).await?;
        }
        let spec = guest.node_spec(NODE, 0).await?;
        nodes::create(&control_plane.client().await?, &spec).await?;
        control_plane.apply(PROFILE).await?;
        guest.start_agent(NODE, &[]).await?;
        let node = Self {
            guest,
            control_plane,
        };
        node.status(".conditions[?(@.type==\"Ready\")].status", "True")
            .await?;
        Ok(node)
    }

    /// Waits until a field of the profile's status has this in it.
    async fn status(&self, path: &str, wanted: &str) -> anyhow::Result<()> {
        let path = format!("jsonpath={{.status{path}}}");
        eventually(&format!("{path} to have {wanted}"), DEADLINE, || async {
            let get = ["get", "nnp", NODE, "-o", &path];
            let found = self.control_plane.kubectl_ok(&get).await?;
            ensure!(found.contains(wanted), "it is {found:?}");
            anyhow::Ok(())
        })
        .await?;
        Ok(())
    }

    /// Runs traffic that fills a table, and waits for the answer.
    async fn raises(&self, traffic: &str, key: &str, to: &str) -> anyhow::Result<()> {
        // What is counted soon after a raise belongs to the burst before.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let from = self.guest.sysctl(key).await?;
        self.guest.ok(&format!("nettune-traffic {traffic}")).await?;
        eventually(&format!("{key} = {to}"), AT_ONCE, || async {
            let held = self.guest.sysctl(key).await?;
            ensure!(held == to, "it is {held}");
            anyhow::Ok(())
        })
        .await?;
        let set = format!("\"key\":\"{key}\",\"from\":\"{from}\",\"to\":\"{to}\"");
        let log = self.guest.agent_log().await?;
        ensure!(log.contains(&set), "no {set} in\n{log}");
        Ok(())
    }

    /// How often the kernel has refused a neighbor since it started, for each processor.
    async fn overflows(&self) -> anyhow::Result<String> {
        let script = "awk 'NR == 1 && $NF != \"table_fulls\" { exit 1 } NR > 1 { print $NF }' \
                      /proc/net/stat/arp_cache";
        Ok(self.guest.ok(script).await?)
    }
}

#[tokio::test]
async fn an_overflowing_neighbor_table_is_doubled_up_to_the_ceiling() -> anyhow::Result<()> {
    let node = Node::start().await?;
    let before = node.overflows().await?;
    node.raises("neighbors 10.99.128.1 700", THRESH3, "1024")
        .await?;
    let overflowed = node.overflows().await?;
    ensure!(before != overflowed, "{before:?}");
    assert_eq!(node.guest.sysctl(THRESH2).await?, "512");
    let log = node.guest.agent_log().await?;
    let set = |key: &str, to: &str| {
        log.lines()
            .position(|line| line.contains(key) && line.contains(to))
    };
    let (outer, inner) = (
        set(THRESH3, "\"to\":\"1024\""),
        set(THRESH2, "\"to\":\"512\""),
    );
    ensure!(outer.is_some() && outer < inner, "{log}");
    let reason = ".conditions[?(@.type==\"NeighborPressure\")].reason";
    node.status(reason, "Overflow").await?;
    let message = format!(".sysctls[?(@.name==\"{THRESH3}\")].message");
    node.status(
        &message,
        "raised to 1024 by the agent because the table was full",
    )
    .await?;

    // As many as before, and there is room for them.
    node.guest
        .ok("nettune-traffic neighbors 10.99.136.1 300")
        .await?;
    assert_eq!(node.overflows().await?, overflowed);

    node.raises("neighbors 10.99.140.1 2000", THRESH3, "1500")
        .await?;
    assert_eq!(node.guest.sysctl(THRESH2).await?, "750");
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.guest
        .ok("nettune-traffic neighbors 10.99.150.1 2500")
        .await?;
    node.status(
        &message,
        "the limit is not raised further: 1500 is the maximum",
    )
    .await?;
    assert_eq!(node.guest.sysctl(THRESH3).await?, "1500");
    Ok(())
}

#[tokio::test]
async fn a_full_connection_table_is_doubled_up_to_the_ceiling() -> anyhow::Result<()> {
    let node = Node::start().await?;
    // Of eth0, of va, and of va in the other table.
    let addresses = (256 + 65_536 + 128).to_string();
    node.status(".facts.onLinkAddresses", &addresses).await?;
    let prefixes = ".facts.onLinkPrefixesIpv6";
    node.status(prefixes, "\"2001:db8:7::/64\"").await?;

    // A rule on the connection's state makes the kernel track.
    node.guest
        .ok("nft add table ip t
             nft add chain ip t out '{ type filter hook output priority 0; }'
             nft add rule ip t out ct state invalid counter
             ip -n b route add local 10.98.0.0/16 dev vb; ip route add 10.98.0.0/16 via 10.99.0.2")
        .await?;
    node.raises("flows 10.98.0.1 2000", MAX, "2048").await?;
    let reason = ".conditions[?(@.type==\"ConntrackPressure\")].reason";
    node.status(reason, "TableFull").await?;
    let message = format!(".sysctls[?(@.name==\"{MAX}\")].message");
    node.status(&message, "raised to 2048 by the agent because")
        .await?;
    node.raises("flows 10.98.1.1 4000", MAX, "3000").await
}
