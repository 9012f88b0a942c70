//! Rules that only a real kernel can show to hold.

use anyhow::ensure;

use crate::e2e::{Cluster, NODE};

const THRESHOLDS: [&str; 3] = [
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
];
const REUSE: &str = "net.ipv4.vs.conn_reuse_mode";

/// Reads all three thresholds as fast as it can and writes each disorder down. A look counts only where
/// none of them changed while it was taken. In awk, since the shell reads byte by byte, and
/// the kernel answers only the first byte of such a read.
const WITNESS: &str = r#"
    function value(name,  text) { getline text <name; close(name); return text + 0 }
    BEGIN {
        while (1) {
            a = value("gc_thresh1"); b = value("gc_thresh2"); c = value("gc_thresh3")
            if (a != value("gc_thresh1") || b != value("gc_thresh2") || c != value("gc_thresh3")) continue
            print "x" >>"/looks"; fflush()
            if (a >= b || b >= c) { print a, b, c >>"/disorder"; fflush() }
        }
    }"#;

fn tuning(spec: &str) -> String {
    format!(
        "{{apiVersion: nettune.dev/v1alpha1, kind: NodeNetworkTuning, metadata: {{name: default}}, spec: {spec}}}"
    )
}

#[tokio::test]
async fn thresholds_stay_in_order_when_raised_and_lowered() -> anyhow::Result<()> {
    let cluster = Cluster::start(|config| config).await?;
    let start = format!(
        "touch /disorder /looks; cd /proc/sys/net/ipv4/neigh/default; awk '{WITNESS}' </dev/null >/dev/null 2>&1 &"
    );
    cluster.guest.ok(&start).await?;
    // The sampler detects a wrong order.
    let disorder = "for i in $(seq 50); do [ -s /disorder ] && exit 0; usleep 100000; done; exit 1";
    cluster.guest.set_sysctl(THRESHOLDS[1], "5000").await?;
    cluster.guest.ok(disorder).await?;
    cluster.guest.set_sysctl(THRESHOLDS[1], "512").await?;
    cluster.guest.ok("sleep 1; : >/disorder").await?;
    for values in [
        ["20000", "40000", "80000"],
        ["10", "20", "30"],
        ["5000", "6000", "7000"],
        ["25", "5500", "90000"],
    ] {
        let [one, two, three] = values;
        let thresholds = format!("{{gcThresh1: {one}, gcThresh2: {two}, gcThresh3: {three}}}");
        let spec = format!("{{neighbors: {{thresholds: {thresholds}}}}}");
        cluster.control_plane.apply(&tuning(&spec)).await?;
        for (name, value) in THRESHOLDS.into_iter().zip(values) {
            cluster.kernel_has(name, value).await?;
        }
    }
    let looks: u32 = cluster.guest.ok("wc -l </looks").await?.trim().parse()?;
    ensure!(looks > 100, "only {looks} samples");
    assert_eq!(cluster.guest.ok("cat /disorder").await?, "");
    Ok(())
}

#[tokio::test]
async fn a_release_restores_the_kernels_values_even_after_a_crash() -> anyhow::Result<()> {
    let cluster = Cluster::start(|config| config).await?;
    let mut before = Vec::new();
    for name in THRESHOLDS
        .into_iter()
        .chain([REUSE, "net.netfilter.nf_conntrack_max"])
    {
        before.push((name, cluster.guest.sysctl(name).await?));
    }
    let spec = "{releasePolicy: Restore, neighbors: {}, ipvs: {connReuseMode: Disabled}}";
    cluster.control_plane.apply(&tuning(spec)).await?;
    cluster.kernel_has(THRESHOLDS[2], "8192").await?;
    cluster.kernel_has(REUSE, "0").await?;
    cluster.guest.kill_agent().await?;
    cluster.guest.start_agent(NODE, &[]).await?;
    cluster
        .control_plane
        .kubectl_ok(&["delete", "nnt", "default"])
        .await?;
    for (name, value) in before {
        cluster.kernel_has(name, &value).await?;
    }
    Ok(())
}
