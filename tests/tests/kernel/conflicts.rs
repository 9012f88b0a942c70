//! Real programs that write sysctls that the agent manages.
//!
//! The agent runs with a policy file; no API server is needed. Each program writes its own key, so that the agent's
//! backoff for one does not affect another.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nettune_tests::artifacts::debian::packages;
use nettune_tests::artifacts::tools;
use nettune_tests::{ControlPlane, Guest, GuestConfig, eventually, nodes, workspace};

const DEADLINE: Duration = Duration::from_secs(120);
/// A write without an event is found by the next look, every 100 ms; the rest is the writer's own start.
/// The fastest of several counts: the others may have waited for the emulated processor.
const UNHEARD: Duration = Duration::from_millis(110 + 140);
const UNHEARD_AT_MOST: Duration = Duration::from_secs(10);

const POLICY: &str = "/etc/nettune/policy.yaml";
const TUNING: &str = r#"
apiVersion: nettune.dev/v1alpha1
kind: NodeNetworkTuning
metadata: {name: host}
spec:
  neighbors: {thresholds: {gcThresh1: 2048, gcThresh2: 4096, gcThresh3: 8192}}
  conntrack: {minEntries: 262144, maxEntries: 1048576}
  sysctls:
    - {name: net.core.somaxconn, value: "4096"}
    - {name: net.core.netdev_max_backlog, value: "5000"}
    - {name: net.netfilter.nf_conntrack_tcp_timeout_established, value: "7200"}
"#;

/// A guest whose agent has applied the policy.
struct Node {
    guest: Guest,
}

impl Node {
    async fn start(mut config: GuestConfig) -> anyhow::Result<Self> {
        let agent = workspace::binary("nettune-agent")?;
        if !config.programs.contains(&agent) {
            config.programs.push(agent);
        }
        config.files.push((POLICY.to_owned(), TUNING.into()));
        let guest = Guest::boot(config).await?;
        guest.start_agent("kernel-0", &["--policy", POLICY]).await?;
        let node = Self { guest };
        for (key, value) in [
            ("net.ipv4.neigh.default.gc_thresh3", "8192"),
            ("net.ipv6.neigh.default.gc_thresh3", "8192"),
            ("net.netfilter.nf_conntrack_max", "262144"),
            ("net.core.somaxconn", "4096"),
            ("net.core.netdev_max_backlog", "5000"),
        ] {
            node.holds(key, value).await?;
        }
        Ok(node)
    }

    async fn holds(&self, key: &str, value: &str) -> anyhow::Result<()> {
        eventually(&format!("{key} = {value}"), DEADLINE, || async {
            let held = self.guest.sysctl(key).await?;
            ensure!(held == value, "it is {held}");
            anyhow::Ok(())
        })
        .await?;
        Ok(())
    }

    /// How often the agent has seen another program change a key.
    async fn drifts(&self, key: &str) -> anyhow::Result<u64> {
        let name = format!("nettune_agent_drifts_total{{sysctl=\"{key}\"}} ");
        self.metric(&name).await
    }

    /// How many keys are contested.
    async fn contested(&self) -> anyhow::Result<u64> {
        let name = "nettune_agent_sysctls{state=\"Contested\"} ";
        self.metric(name).await
    }

    /// A metric by its name with labels; 0 where it was never counted.
    async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let page = self.guest.agent_page("metrics").await?;
        match page.lines().find_map(|line| line.strip_prefix(name)) {
            Some(value) => Ok(value.parse()?),
            None => Ok(0),
        }
    }

    /// Lets a rival write once; the agent says what it found, puts the value back and counts it once.
    async fn once(&self, rival: &Rival) -> anyhow::Result<()> {
        let Rival { name, key, .. } = *rival;
        let wanted = self.guest.sysctl(key).await?;
        let before = self.drifts(key).await?;
        let written = self.guest.ok(rival.script).await;
        written.with_context(|| format!("{name} did not run"))?;
        self.holds(key, &wanted).await.context(name)?;
        eventually(&format!("{name} to be counted"), DEADLINE, || async {
            let counted = self.drifts(key).await? - before;
            ensure!(counted == 1, "it was counted {counted} times");
            anyhow::Ok(())
        })
        .await?;
        let found = format!("\"key\":\"{key}\",\"found\":\"{}\"", rival.wrote);
        let log = self.guest.agent_log().await?;
        ensure!(log.contains(&found), "{name}: no {found} in\n{log}");
        Ok(())
    }
}

/// A program that writes one key once.
struct Rival {
    name: &'static str,
    script: &'static str,
    key: &'static str,
    wrote: &'static str,
}

#[tokio::test]
async fn a_single_write_is_undone_and_counted_once() -> anyhow::Result<()> {
    let config = GuestConfig::default()
        .with_package(packages::PROCPS, &[])
        .with_package(packages::SYSTEMD_SYSCTL, &[])
        .with_package(packages::IPROUTE2, &[]);
    let node = Node::start(config).await?;
    let rivals = [
        Rival {
            name: "sysctl -w",
            script: "/usr/sbin/sysctl -w net.core.somaxconn=128",
            key: "net.core.somaxconn",
            wrote: "128",
        },
        Rival {
            name: "sysctl --system",
            script: "mkdir -p /etc/sysctl.d; cd /etc/sysctl.d
                     echo net.ipv4.neigh.default.gc_thresh3 = 4097 >99-tuning.conf
                     /usr/sbin/sysctl --system && rm 99-tuning.conf",
            key: "net.ipv4.neigh.default.gc_thresh3",
            wrote: "4097",
        },
        Rival {
            name: "systemd-sysctl",
            script: "echo net.core.netdev_max_backlog = 1000 >/etc/sysctl.d/99-tuning.conf
                     /usr/lib/systemd/systemd-sysctl && rm /etc/sysctl.d/99-tuning.conf",
            key: "net.core.netdev_max_backlog",
            wrote: "1000",
        },
        Rival {
            name: "a container with a /proc of its own",
            script: "unshare -m -p -f --mount-proc sh -c 'echo 65536 >/proc/sys/net/netfilter/nf_conntrack_max'",
            key: "net.netfilter.nf_conntrack_max",
            wrote: "65536",
        },
        Rival {
            name: "ip ntable",
            script: "ip ntable change name ndisc_cache thresh3 4097",
            key: "net.ipv6.neigh.default.gc_thresh3",
            wrote: "4097",
        },
    ];
    for rival in &rivals {
        node.once(rival).await?;
    }

    // A program that only raises a limit is no conflict.
    let limit = "net.netfilter.nf_conntrack_max";
    let before = node.drifts(limit).await?;
    node.guest.set_sysctl(limit, "524288").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(node.guest.sysctl(limit).await?, "524288");
    assert_eq!(node.drifts(limit).await?, before);
    Ok(())
}

/// Writes in a way that inotify does not report, and waits in the guest until the value is back; prints the
/// milliseconds. The clock has steps of 10 ms.
const UNHEARD_WRITE: &str = r#"
    now() { cut -d " " -f 1 /proc/uptime | tr -d .; }
    start=$(now)
    WRITE
    while [ "$(cat KEY)" != WANTED ]; do :; done
    echo $(( ($(now) - start) * 10 ))"#;

#[tokio::test]
async fn a_write_without_an_event_is_found_by_the_next_look() -> anyhow::Result<()> {
    let config = GuestConfig::default().with_package(packages::IPROUTE2, &[]);
    let node = Node::start(config).await?;
    let mut fastest = Duration::MAX;
    for (key, wanted, netlink) in [
        ("net/netfilter/nf_conntrack_max", "262144", None),
        ("net/core/somaxconn", "4096", None),
        (
            "net/ipv4/neigh/default/gc_thresh3",
            "8192",
            Some("arp_cache thresh3"),
        ),
        (
            "net/ipv4/neigh/default/gc_thresh2",
            "4096",
            Some("arp_cache thresh2"),
        ),
        (
            "net/ipv6/neigh/default/gc_thresh3",
            "8192",
            Some("ndisc_cache thresh3"),
        ),
    ] {
        let write = match netlink {
            Some(table) => format!("ip ntable change name {table} 3000"),
            None => format!("unshare -m -p -f --mount-proc sh -c 'echo 3000 >/proc/sys/{key}'"),
        };
        let script = UNHEARD_WRITE
            .replace("WRITE", &write)
            .replace("KEY", &format!("/proc/sys/{key}"))
            .replace("WANTED", wanted);
        let took = Duration::from_millis(node.guest.ok(&script).await?.parse()?);
        println!("{write}: undone within {took:?}, the writer's own start included");
        ensure!(took <= UNHEARD_AT_MOST, "{write}: {took:?}");
        fastest = fastest.min(took);
    }
    ensure!(fastest <= UNHEARD, "{fastest:?}");
    Ok(())
}

const PAIRS: usize = 6;
const LEAVES: [&str; 5] = [
    "app_solicit",
    "delay_first_probe_time",
    "gc_stale_time",
    "mcast_solicit",
    "ucast_solicit",
];

/// Heard and not heard are measured in turns in one guest: how fast it is does not matter then.
#[tokio::test]
async fn a_write_in_the_agents_own_procfs_is_undone_before_the_next_look() -> anyhow::Result<()> {
    // Each key once: a second write within 3 h is answered later on purpose.
    let device = |n| LEAVES.map(|leaf| format!("net/ipv4/neigh/{n}/{leaf}"));
    let devices: Vec<_> = (0..PAIRS)
        .flat_map(|n| [device(format!("near{n}")), device(format!("far{n}"))])
        .collect();
    let sysctls = devices.iter().flatten().map(|path| {
        let name = path.replace('/', ".");
        format!("    - {{name: {name}, value: \"7\"}}\n")
    });
    let tuning = format!(
        "apiVersion: nettune.dev/v1alpha1\nkind: NodeNetworkTuning\nmetadata: {{name: host}}\n\
         spec:\n  sysctls:\n{}",
        sysctls.collect::<String>()
    );
    let mut config = GuestConfig::default().with_package(packages::IPROUTE2, &[]);
    for program in ["nettune-agent", "nettune-traffic"] {
        config.programs.push(workspace::binary(program)?);
    }
    config.files.push((POLICY.to_owned(), tuning.into()));
    let guest = Guest::boot(config).await?;
    for n in 0..PAIRS {
        let pair = format!("ip link add near{n} type veth peer name far{n}");
        guest.ok(&pair).await?;
    }
    guest.start_agent("kernel-0", &["--policy", POLICY]).await?;
    let all = devices.concat().join(" ");
    let kept = format!("cd /proc/sys && cat {all} | sort -u");
    eventually("all keys", DEADLINE, || async {
        let held = guest.ok(&kept).await?;
        ensure!(held == "7", "{held}");
        anyhow::Ok(())
    })
    .await?;

    let mut times = [Vec::new(), Vec::new()];
    for (index, paths) in devices.iter().enumerate() {
        let files = paths.each_ref().map(|path| format!("/proc/sys/{path}"));
        let write = format!("nettune-traffic answers 9 {}", files.join(" "));
        let script = match index % 2 {
            0 => write,
            _ => format!("unshare -m -p -f --mount-proc {write}"),
        };
        for line in guest.ok(&script).await?.lines() {
            let time = Duration::from_micros(line.parse()?);
            times[index % 2].push(time);
        }
    }
    let [heard, unheard] = times.map(|mut times| {
        times.sort();
        let worst = times.last().copied().unwrap_or_default();
        (times.len(), times[times.len() / 2], worst)
    });
    for (how, (count, median, worst)) in [("heard", heard), ("not heard", unheard)] {
        println!("{count} writes {how}: undone after {median:?} in the median, {worst:?} at most");
        assert_eq!(count, PAIRS * LEAVES.len());
        ensure!(worst <= UNHEARD_AT_MOST, "{worst:?}");
    }
    ensure!(heard.1 * 3 <= unheard.1 * 2, "{heard:?}, {unheard:?}");
    Ok(())
}

/// The agent answers at once, then after 1, 2, 4, 8, 16 and 32 s, and then no more.
const MOST_ANSWERS: usize = 7;
const FIGHT: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_persistent_writer_is_left_alone_until_the_policy_changes() -> anyhow::Result<()> {
    let config = GuestConfig::default().with_package(packages::PROCPS, &[]);
    let node = Node::start(config).await?;
    let key = "net.core.somaxconn";
    let script = format!(
        "setsid sh -c 'while :; do /usr/sbin/sysctl -q -w {key}=128; usleep 50000; done' </dev/null >/dev/null 2>&1 & \
         echo $! >/run/rival"
    );
    node.guest.ok(&script).await?;
    eventually("the key to be contested", FIGHT, || async {
        let contested = node.contested().await?;
        ensure!(contested == 1, "{contested} contested keys");
        anyhow::Ok(())
    })
    .await?;
    let count = format!(
        r#"grep -c '"message":"set sysctl".*"key":"{key}","from":"128"' /var/log/agent.log"#
    );
    let answers: usize = node.guest.ok(&count).await?.parse()?;
    println!("{answers} answers to a rival that never rests");
    ensure!((2..=MOST_ANSWERS).contains(&answers), "{answers} answers");
    let log = node.guest.agent_log().await?;
    for said in ["keeps setting it to 128", "4096 is desired"] {
        ensure!(log.contains(said), "it does not say {said:?}:\n{log}");
    }

    // The other keys are kept as before, and this one is not touched.
    node.once(&Rival {
        name: "sysctl -w of another key",
        script: "/usr/sbin/sysctl -w net.core.netdev_max_backlog=1000",
        key: "net.core.netdev_max_backlog",
        wrote: "1000",
    })
    .await?;
    assert_eq!(node.guest.sysctl(key).await?, "128");

    let change = format!("kill $(cat /run/rival) && sed -i 's/\"4096\"/\"8192\"/' {POLICY}");
    node.guest.ok(&change).await?;
    node.holds(key, "8192").await
}

/// kube-proxy ends soon, for want of iptables(8), but only after it has set its sysctls, as at each start.
const KUBE_PROXY: &str = "kube-proxy --kubeconfig /etc/nettune/kubeconfig --hostname-override kernel-0 --v 1 2>&1 \
                          | grep 'Set sysctl'";

#[tokio::test]
async fn a_start_of_kube_proxy_is_undone_and_no_conflict() -> anyhow::Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let mut config = GuestConfig {
        memory_mib: 2048,
        ..GuestConfig::joining(&control_plane)?
    };
    config.programs.push(tools::kube_proxy()?);
    let node = Node::start(config).await?;
    let spec = node.guest.node_spec("kernel-0", 1).await?;
    nodes::create(&control_plane.client().await?, &spec).await?;
    let start = Rival {
        name: "kube-proxy",
        script: KUBE_PROXY,
        key: "net.netfilter.nf_conntrack_max",
        wrote: "131072",
    };
    let timeout = "net.netfilter.nf_conntrack_tcp_timeout_established";
    // A second time, as in an upgrade that restarts its pod.
    for times in 1..=2 {
        node.once(&start).await?;
        node.holds(timeout, "7200").await?;
        assert_eq!(node.drifts(timeout).await?, times);
    }
    assert_eq!(node.contested().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_profile_of_tuned_is_undone_and_counted_once() -> anyhow::Result<()> {
    let mut config = GuestConfig {
        memory_mib: 1024,
        ..GuestConfig::default().with_package(packages::TUNED, &[])
    };
    let profile = "[main]\nsummary=Somebody else's\n[sysctl]\nnet.core.somaxconn=2048\n";
    let path = "/etc/tuned/somebody/tuned.conf";
    config.files.push((path.to_owned(), profile.into()));
    let node = Node::start(config).await?;
    node.once(&Rival {
        name: "TuneD",
        script: "mkdir -p /run/tuned /var/log/tuned
                 setsid /usr/sbin/tuned --no-dbus --no-socket --profile somebody </dev/null >/tmp/tuned 2>&1 &
                 for attempt in $(seq 300); do
                     grep -q 'static tuning from profile .* applied' /tmp/tuned && exit 0
                     usleep 100000
                 done
                 cat /tmp/tuned >&2; exit 1",
        key: "net.core.somaxconn",
        wrote: "2048",
    })
    .await
}
