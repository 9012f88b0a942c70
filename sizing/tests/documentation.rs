//! The tables of docs/sizing.md hold what the model gives.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests may fail them"
)]

mod cluster;

use cluster::{Case, thresholds, value};
use nettune_sizing::{KernelVersion, PodLinks, PodNetwork, SysctlKey};

const PAGE: &str = include_str!("../../docs/sizing.md");

const MAX: &str = "net.netfilter.nf_conntrack_max";

/// The rows of the table behind `<!-- checked: NAME -->`, cell by cell.
fn rows<const COLUMNS: usize>(name: &str) -> Vec<[&'static str; COLUMNS]> {
    let start = format!("<!-- checked: {name} -->");
    let (_, rest) = PAGE.split_once(&start).expect("the table's mark");
    let (table, _) = rest.split_once("<!-- end -->").expect("the table's end");
    let rows: Vec<_> = table.trim().lines().skip(2).map(cells).collect();
    assert!(rows.len() >= 5, "{name} has {} rows", rows.len());
    rows
}

fn cells<const COLUMNS: usize>(line: &'static str) -> [&'static str; COLUMNS] {
    let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
    cells.try_into().expect("as many cells as columns")
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("a number, not {text:?}"))
}

fn memory(text: &str) -> u64 {
    match text.split_once(' ') {
        Some(("1.5", "GiB")) => 3 << 29,
        Some((gib, "GiB")) => number::<u64>(gib) << 30,
        Some((mib, "MiB")) => number::<u64>(mib) << 20,
        _ => panic!("memory, not {text:?}"),
    }
}

#[test]
fn the_table_of_thresholds_is_what_the_model_gives() {
    for row in rows::<10>("neighbors") {
        let [
            nodes,
            pods,
            network,
            links,
            kernel,
            bytes,
            cloud,
            expected @ ..,
        ] = row;
        let case = Case {
            nodes: number(nodes),
            pods: number(pods),
            network: match network {
                "VXLAN" => PodNetwork::Overlay,
                "IPIP" => PodNetwork::OverlayIpip,
                "routed" => PodNetwork::Routed,
                "flat" => PodNetwork::Flat,
                other => panic!("a network, not {other}"),
            },
            links: match links {
                "bridge" => PodLinks::Bridge,
                "point-to-point" => PodLinks::PointToPoint,
                other => panic!("links, not {other}"),
            },
            kernel: KernelVersion::parse(kernel).ok(),
            memory: memory(bytes),
            cloud: cloud == "yes",
            ..Case::default()
        };
        let sizes = thresholds(&case.size()).map(|size| size.to_string());
        assert_eq!(sizes, expected, "{row:?}");
    }
}

#[test]
fn the_table_of_conntrack_is_what_the_model_gives() {
    for row in rows::<5>("conntrack") {
        let [pods, cores, bytes, max, cut_from] = row;
        let case = Case {
            pods: number(pods),
            cores: number(cores),
            memory: memory(bytes),
            ..Case::default()
        };
        let sizes = case.size();
        assert_eq!(value(&sizes, MAX).to_string(), max, "{row:?}");
        let key = SysctlKey::parse(MAX).unwrap();
        let reason = &sizes.get(&key).unwrap().reason;
        let wanted = format!("next power of two: {cut_from}; limited");
        assert_eq!(
            reason.contains(&wanted),
            !cut_from.is_empty(),
            "{row:?}: {reason}"
        );
        assert_eq!(
            reason.contains("limited"),
            !cut_from.is_empty(),
            "{row:?}: {reason}"
        );
    }
}

#[test]
fn the_table_of_kernels_is_what_the_model_gives() {
    for [release, mode] in rows::<2>("ipvs") {
        let release = release.trim_matches('`');
        let kernel = KernelVersion::parse(release);
        assert!(kernel.is_ok(), "{release}");
        let case = Case {
            kernel: kernel.ok(),
            ..Case::default()
        };
        let wanted = case.wanted("net.ipv4.vs.conn_reuse_mode");
        let given = wanted.map_or("left out".to_owned(), |wanted| wanted.value().to_string());
        assert_eq!(given, mode, "{release}");
    }
}
