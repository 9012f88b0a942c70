//! The guest of the harness does what the other tests take for granted.

use std::time::Duration;

use nettune_tests::artifacts::debian::packages;
use nettune_tests::{ControlPlane, Guest, GuestConfig};

#[tokio::test]
async fn a_guest_has_its_own_kernel() -> anyhow::Result<()> {
    let guest = Guest::boot(GuestConfig::default()).await?;

    assert_eq!(
        guest.sysctl("net.ipv4.neigh.default.gc_thresh3").await?,
        "1024"
    );
    guest
        .set_sysctl("net.ipv4.neigh.default.gc_thresh3", "2048")
        .await?;
    assert_eq!(
        guest.sysctl("net.ipv4.neigh.default.gc_thresh3").await?,
        "2048"
    );
    assert_eq!(guest.sysctl("net.ipv4.vs.conn_reuse_mode").await?, "1");

    let here = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let there = guest.node_spec("kernel-0", 1).await?;
    assert_ne!(there.boot_id, here.trim());
    assert_eq!((there.cpus, there.boot_id.len()), (2, 36));
    Ok(())
}

#[tokio::test]
async fn a_module_left_out_at_boot_can_be_loaded_later() -> anyhow::Result<()> {
    let guest = Guest::boot(GuestConfig::default().without_module("ip_vs")).await?;

    assert!(guest.sysctl("net.ipv4.vs.conn_reuse_mode").await.is_err());
    guest.load_module("ip_vs").await?;
    assert_eq!(guest.sysctl("net.ipv4.vs.conn_reuse_mode").await?, "1");
    Ok(())
}

#[tokio::test]
async fn a_script_in_the_guest_returns_its_status_and_output() -> anyhow::Result<()> {
    let guest = Guest::boot(GuestConfig::default()).await?;

    let output = guest
        .run("printf 'two\\nlines'; echo '@1 status 0' >&2; exit 3")
        .await?;
    assert_eq!(
        (
            output.status,
            output.stdout.as_str(),
            output.stderr.as_str()
        ),
        (3, "two\nlines", "@1 status 0\n")
    );

    let long = guest.ok("seq 20000").await?;
    assert_eq!(
        (long.lines().count(), long.lines().last()),
        (20_000, Some("20000"))
    );

    let script = format!("echo {}", "x".repeat(30_000));
    assert_eq!(guest.ok(&script).await?.len(), 30_000);

    let hangs = guest.run_within("sleep 60", Duration::from_secs(1)).await?;
    assert!(hangs.status != 0, "{hangs:?}");
    assert_eq!(guest.ok("echo still there").await?, "still there");
    Ok(())
}

#[tokio::test]
async fn a_guest_reaches_the_api_server_of_the_host() -> anyhow::Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let config = GuestConfig {
        api_server_port: Some(control_plane.port()),
        ..GuestConfig::default()
    };
    let guest = Guest::boot(config).await?;

    // Busybox has no TLS that the server takes; the server answers plain HTTP with a sentence of its own.
    let ask =
        "printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 10.0.2.100 6443 | grep -c 'to an HTTPS server'";
    let at_once = format!("for i in 1 2 3; do ({ask}) & done; wait");
    assert_eq!(guest.ok(&at_once).await?, "1\n1\n1");
    Ok(())
}

#[tokio::test]
async fn programs_of_packages_replace_those_of_busybox() -> anyhow::Result<()> {
    let config = GuestConfig::default()
        .with_package(packages::IPROUTE2, &["vxlan", "bridge"])
        .with_package(packages::PROCPS, &[])
        .with_package(packages::SYSTEMD_SYSCTL, &[]);
    let guest = Guest::boot(config).await?;

    assert!(guest.ok("ip -V").await?.contains("iproute2"));
    assert!(guest.ok("sysctl --version").await?.contains("procps"));
    let systemd = "/usr/lib/systemd/systemd-sysctl --version | head -n 1";
    assert!(guest.ok(systemd).await?.starts_with("systemd "));

    let script = "ip link add vx0 type vxlan id 1 dstport 8472 && ip link add br0 type bridge \
                  && ip link set vx0 master br0 && bridge fdb append 02:00:00:00:00:01 dev vx0 dst 192.0.2.1 \
                  && bridge fdb show dev vx0";
    assert!(guest.ok(script).await?.contains("dst 192.0.2.1"));
    let thresholds = guest
        .ok("ip ntable show name arp_cache | head -n 2")
        .await?;
    assert!(thresholds.contains("thresh3 1024"), "{thresholds}");
    Ok(())
}
