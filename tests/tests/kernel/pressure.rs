//! Real problems of the kernel's tables, and the reasons that the agent reports for them.
//!
//! No control plane: the agent reads the kernel's counters whether it has a profile or not, and says
//! what it finds in its metrics, which are read in the guest.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use nettune_tests::artifacts::debian::packages::{IPROUTE2, Package};
use nettune_tests::{Guest, GuestConfig, eventually, workspace};

const DEADLINE: Duration = Duration::from_secs(25);

/// What makes the guest's kernel track connections.
pub(crate) const NFTABLES: Package = Package {
    name: "nftables",
    programs: &["/usr/sbin/nft"],
    files: &[],
};

/// A kubeconfig of an API server that is away: the agent works all the same. The certificate is any.
fn kubeconfig() -> anyhow::Result<Vec<u8>> {
    let certificate = rcgen::generate_simple_self_signed(["away".to_owned()])?;
    let authority = BASE64_STANDARD.encode(certificate.cert.pem());
    let cluster =
        format!("{{server: 'https://127.0.0.1:1', certificate-authority-data: {authority}}}");
    let config = format!(
        "{{apiVersion: v1, kind: Config, current-context: away,
          contexts: [{{name: away, context: {{cluster: away, user: nobody}}}}],
          clusters: [{{name: away, cluster: {cluster}}}],
          users: [{{name: nobody, user: {{token: none}}}}]}}"
    );
    Ok(config.into_bytes())
}

/// The host `va` with 10.99.0.1, and a network namespace that answers for 10.99.128.0/17.
pub(crate) const NEIGHBORHOOD: &str = "
ip netns add b
ip link add va type veth peer name vb netns b
ip addr add 10.99.0.1/16 dev va
ip link set va up
ip -n b addr add 10.99.0.2/16 dev vb
ip -n b link set vb up
ip -n b link set lo up
ip -n b route add local 10.99.128.0/17 dev vb
";

struct Host(Guest);

impl Host {
    async fn boot(modules: &[&str]) -> anyhow::Result<Self> {
        let mut config = GuestConfig {
            memory_mib: 1024,
            programs: vec![
                workspace::binary("nettune-agent")?,
                workspace::binary("nettune-traffic")?,
            ],
            packages: vec![IPROUTE2, NFTABLES],
            files: vec![("/etc/nettune/kubeconfig".to_owned(), kubeconfig()?)],
            ..GuestConfig::default()
        };
        config
            .modules
            .extend(modules.iter().map(|&name| name.to_owned()));
        let host = Self(Guest::boot(config).await?);
        host.0.ok(NEIGHBORHOOD).await?;
        Ok(host)
    }

    /// An agent that has seen nothing yet, after its first look at the counters.
    async fn fresh_agent(&self) -> anyhow::Result<()> {
        // There is none at first.
        let _ = self.0.stop_agent().await;
        self.0.start_agent("kernel-0", &[]).await?;
        self.has("nettune_pressure{condition=\"NeighborPressure\"", "1", "")
            .await
    }

    /// The value of the one metric whose line starts so.
    async fn metric(&self, start: &str) -> anyhow::Result<Option<u64>> {
        let page = self.0.agent_page("metrics").await?;
        let line = page.lines().find(|line| line.starts_with(start));
        line.and_then(|line| line.split_whitespace().last())
            .map(|value| value.parse().context("a metric is no number"))
            .transpose()
    }

    async fn has(&self, start: &str, value: &str, why: &str) -> anyhow::Result<()> {
        eventually(&format!("{start}… {value} {why}"), DEADLINE, || async {
            match self.metric(start).await {
                Ok(Some(found)) if found.to_string() == value => Ok(()),
                Ok(found) => Err(format!("it is {found:?}")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        Ok(())
    }

    async fn has_some(&self, start: &str) -> anyhow::Result<()> {
        eventually(start, DEADLINE, || async {
            match self.metric(start).await {
                Ok(Some(1..)) => Ok(()),
                found => Err(format!("it is {found:?}")),
            }
        })
        .await?;
        Ok(())
    }

    async fn pressure(&self, condition: &str, reason: &str) -> anyhow::Result<()> {
        let metric = format!("nettune_pressure{{condition=\"{condition}\",reason=\"{reason}\"}}");
        self.has(&metric, "1", "").await
    }

    async fn set(&self, values: &[(&str, u64)]) -> anyhow::Result<()> {
        for (name, value) in values {
            self.0.set_sysctl(name, &value.to_string()).await?;
        }
        Ok(())
    }

    async fn traffic(&self, arguments: &str) -> anyhow::Result<()> {
        self.0.ok(&format!("nettune-traffic {arguments}")).await?;
        Ok(())
    }
}

fn thresholds(values: [u64; 3]) -> [(&'static str, u64); 3] {
    let names = ["gc_thresh3", "gc_thresh2", "gc_thresh1"].map(|name| match name {
        "gc_thresh3" => "net.ipv4.neigh.default.gc_thresh3",
        "gc_thresh2" => "net.ipv4.neigh.default.gc_thresh2",
        _ => "net.ipv4.neigh.default.gc_thresh1",
    });
    let [one, two, three] = values;
    [(names[0], three), (names[1], two), (names[2], one)]
}

#[tokio::test]
async fn a_neighbor_overflow_differs_from_a_table_full_of_permanent_entries() -> anyhow::Result<()>
{
    let host = Host::boot(&[]).await?;

    // A healthy cluster: 90 % of the table is what an overlay has programmed.
    host.set(&thresholds([1024, 4096, 8192])).await?;
    let entries = "awk 'BEGIN { for (n = 0; n < 7400; n++) \
                   printf \"neigh add 10.99.%d.%d lladdr 02:00:00:00:00:01 nud permanent dev va\\n\", \
                   n / 250 + 10, n % 250 + 1 }' | ip -batch -";
    host.0.ok(entries).await?;
    host.fresh_agent().await?;
    let counted = "nettune_table_counted_entries{table=\"neighbors_ipv4\"}";
    eventually("entries that count", DEADLINE, || async {
        match host.metric(counted).await {
            Ok(Some(0..100)) => Ok(()),
            found => Err(format!("it is {found:?}")),
        }
    })
    .await?;
    let all = host
        .metric("nettune_table_entries{table=\"neighbors_ipv4\"}")
        .await?;
    ensure!(all.is_some_and(|all| all >= 7400), "{all:?}");
    host.traffic("neighbors 10.99.128.1 500").await?;
    host.0.ok("sleep 3").await?;
    host.pressure("NeighborPressure", "NoPressure").await?;

    // More that count than gc_thresh2, and then more than gc_thresh3.
    host.set(&thresholds([100, 400, 3000])).await?;
    host.0.ok("sleep 6").await?;
    host.traffic("neighbors 10.99.132.1 500").await?;
    host.pressure("NeighborPressure", "GarbageCollection")
        .await?;
    host.has("nettune_neighbor_overflows_total{family=\"ipv4\"}", "0", "")
        .await?;
    host.set(&thresholds([50, 100, 200])).await?;
    host.traffic("neighbors 10.99.140.1 2000").await?;
    host.0.ok("sleep 2").await?;
    // While it overflows, not even the loopback gets new entries, and the agent cannot be queried.
    host.set(&thresholds([1024, 4096, 8192])).await?;
    host.pressure("NeighborPressure", "Overflow").await?;
    host.pressure("ConntrackPressure", "NoPressure").await
}

const MAX: &str = "net.netfilter.nf_conntrack_max";
/// More connections than any step of a test makes.
const ROOM: u64 = 262_144;
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";

#[tokio::test]
async fn conntrack_problems_have_their_own_reasons() -> anyhow::Result<()> {
    let host = Host::boot(&["nf_tables", "nft_ct"]).await?;
    let full = "nettune_conntrack_full_seconds_total";
    // Each hook with a rule on the connection's state makes the kernel track.
    host.0
        .ok("nft add table ip t
             nft add chain ip t out '{ type filter hook output priority 0; }'
             nft add rule ip t out ct state invalid counter")
        .await?;
    host.0
        .ok("ip -n b route add local 10.98.0.0/16 dev vb; ip route add 10.98.0.0/16 via 10.99.0.2")
        .await?;

    // Of UDP: unanswered connections are given up for new ones, and nothing is dropped.
    host.set(&thresholds([1024, 4096, 8192])).await?;
    host.fresh_agent().await?;
    // So few buckets that one which can be given up is always near.
    host.set(&[(BUCKETS, 512), (MAX, 2048)]).await?;
    host.traffic("flows 10.98.0.1 6000").await?;
    host.0.ok("sleep 2").await?;
    host.set(&[(MAX, ROOM)]).await?;
    host.pressure("ConntrackPressure", "TableFull").await?;
    let drops = host.metric("nettune_conntrack_drops_total").await?;
    assert_eq!(drops, Some(0), "early_drop alone");

    // Of TCP: established connections stay, and new ones are dropped.
    host.fresh_agent().await?;
    host.set(&[(MAX, 100)]).await?;
    host.traffic("connections 200 4").await?;
    // Meanwhile the agent could not be queried either.
    host.set(&[(MAX, ROOM)]).await?;
    host.pressure("ConntrackPressure", "TableFull").await?;
    let drops = host.metric("nettune_conntrack_drops_total").await?;
    ensure!(drops.is_some_and(|drops| drops > 0), "{drops:?}");
    ensure!(host.metric(full).await?.is_some_and(|seconds| seconds > 0));

    // A raised limit over few buckets.
    host.set(&[(BUCKETS, 1024)]).await?;
    host.fresh_agent().await?;
    host.traffic("flows 10.98.1.1 25000").await?;
    host.pressure("ConntrackPressure", "ChainsTooLong").await?;
    host.has(full, "0", "").await?;
    host.has("nettune_conntrack_insertion_races_total", "0", "")
        .await
}

#[tokio::test]
async fn a_source_port_race_differs_from_a_dns_race() -> anyhow::Result<()> {
    let modules = [
        "nf_tables",
        "nft_ct",
        "nft_chain_nat",
        "nft_nat",
        "nft_numgen",
    ];
    let host = Host::boot(&modules).await?;
    // A service of two backends, and pods that are masqueraded. Nothing answers at 10.98.0.0/16. Between NAT and the
    // moment at which an entry goes into the table lie rules that match nothing, 30,000 times, so that packets which
    // are sent at once are there at once.
    host.0
        .ok("set -e
             ip route add 10.96.0.0/16 via 10.99.0.2
             ip route add 10.98.0.0/16 via 10.99.0.2
             ip addr add 10.97.0.1/32 dev lo; ip addr add 10.97.0.2/32 dev lo
             nft add table ip t
             nft add chain ip t out '{ type nat hook output priority -100; }'
             nft add rule ip t out ip daddr 10.96.0.10 udp dport 53 \
                 dnat to numgen inc mod 2 map '{ 0 : 10.98.0.1, 1 : 10.98.0.2 }'
             nft add chain ip t post '{ type nat hook postrouting priority 100; }'
             nft add rule ip t post ip saddr 10.97.0.0/24 snat to 10.99.0.1
             nft add chain ip t slow '{ type filter hook postrouting priority 150; }'
             nft add rule ip t slow ip daddr != 10.98.0.0/16 accept
             for chain in slow1 slow2 slow3; do echo add chain ip t $chain; done >/tmp/rules
             for n in $(seq 10); do
                 echo add rule ip t slow1 jump slow2
                 echo add rule ip t slow2 jump slow3
                 echo add rule ip t slow jump slow1
                 for ttl in 1 2 3; do echo add rule ip t slow3 ip ttl $ttl; done
             done >>/tmp/rules
             nft -f /tmp/rules")
        .await?;
    let races = "nettune_conntrack_insertion_races_total";
    let resolved = "nettune_conntrack_clashes_resolved_total";

    host.fresh_agent().await?;
    host.traffic("lookups 10.96.0.10:53 50").await?;
    host.has_some(resolved).await?;
    host.0.ok("sleep 2").await?;
    host.has(races, "0", "of lookups").await?;
    host.pressure("ConntrackPressure", "NoPressure").await?;

    host.traffic("ports 10.98.0.2:80 10.97.0.1 10.97.0.2 100")
        .await?;
    host.pressure("ConntrackPressure", "SourcePortRace").await?;
    host.has_some(races).await
}

/// Adds what Flannel adds for the remote node of this number.
fn remote_node(n: u8) -> String {
    format!(
        "ip route add 10.244.{n}.0/24 via 10.244.{n}.0 dev flannel.1 onlink
         ip neigh add 10.244.{n}.0 lladdr 02:00:00:00:01:{n:02} nud permanent dev flannel.1
         bridge fdb add 02:00:00:00:01:{n:02} dev flannel.1 dst 10.99.0.{n} self permanent\n"
    )
}

#[tokio::test]
async fn missing_entries_of_flannels_device_are_reported() -> anyhow::Result<()> {
    let host = Host::boot(&["vxlan"]).await?;
    let device =
        "ip link add flannel.1 type vxlan id 1 local 10.99.0.1 dev va dstport 8472 nolearning
                  ip addr add 10.244.0.0/32 dev flannel.1
                  ip link set flannel.1 up\n";
    let nodes: String = (10..14).map(remote_node).collect();
    // Of DirectRouting: a node on the same network needs no tunnel.
    let direct = "ip route add 10.244.20.0/24 via 10.99.0.20 dev va";
    host.0
        .ok(&format!("set -e; {device}{nodes}{direct}"))
        .await?;
    let missing = |entry: &str| format!("nettune_flannel_missing_entries{{entry=\"{entry}\"}}");

    host.fresh_agent().await?;
    host.has("nettune_flannel_routes", "4", "").await?;
    host.0.ok("sleep 1").await?;
    host.pressure("NeighborPressure", "NoPressure").await?;

    host.0.ok("ip neigh del 10.244.11.0 dev flannel.1").await?;
    host.fresh_agent().await?;
    host.has(&missing("neighbor"), "1", "").await?;
    host.has(&missing("forwarding"), "0", "").await?;
    host.pressure("NeighborPressure", "FlannelEntriesMissing")
        .await?;

    host.0
        .ok("bridge fdb del 02:00:00:00:01:12 dev flannel.1 dst 10.99.0.12 self")
        .await?;
    host.has(&missing("forwarding"), "1", "").await?;

    // Flannel restarts.
    let again = "ip neigh replace 10.244.11.0 lladdr 02:00:00:00:01:11 nud permanent dev flannel.1
                 bridge fdb add 02:00:00:00:01:12 dev flannel.1 dst 10.99.0.12 self permanent";
    host.0.ok(again).await?;
    host.pressure("NeighborPressure", "NoPressure").await?;
    host.has(&missing("forwarding"), "0", "").await
}
