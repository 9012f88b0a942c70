//! Connection tracking, IPVS and the other sysctls of a tuning.

#![allow(clippy::unwrap_used, reason = "a helper of tests may fail them")]

mod cluster;

use cluster::{Case, exactly, floor};
use nettune_sizing::{ConnReuseMode, DesiredValue, EntryBounds, KernelVersion, SysctlKey, Value};

const MAX: &str = "net.netfilter.nf_conntrack_max";
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
const REUSE: &str = "net.ipv4.vs.conn_reuse_mode";

fn bounds(min: Option<u32>, max: Option<u32>) -> EntryBounds {
    EntryBounds::new(min, max).unwrap()
}

#[test]
fn a_node_gets_for_its_pods_what_little_s_law_says() {
    let case = Case {
        pods: 110,
        memory: 64 << 30,
        ..Case::default()
    };
    assert_eq!(floor(&case.size(), MAX), 524_288);
    assert_eq!(floor(&case.size(), BUCKETS), 524_288);
}

#[test]
fn a_node_never_gets_less_than_kube_proxy_would_set() {
    for (cores, entries) in [(1, 131_072), (8, 262_144), (96, 1_048_576)] {
        let case = Case {
            pods: 10,
            cores,
            memory: 64 << 30,
            ..Case::default()
        };
        assert_eq!(floor(&case.size(), MAX), entries, "{cores} cores");
    }
}

#[test]
fn memory_limits_a_small_node_with_a_warning() {
    let case = Case {
        pods: 64,
        memory: 3 << 29,
        ..Case::default()
    };
    let sizes = case.size();
    assert_eq!(floor(&sizes, MAX), 65_536);
    let warning = &sizes.warnings[0].0;
    for number in ["65536", "262144", "1.5 GiB"] {
        assert!(warning.contains(number), "{number} in {warning}");
    }
}

#[test]
fn the_smallest_node_gets_a_few_thousand_entries_and_never_none() {
    let case = Case {
        memory: 1,
        ..Case::default()
    };
    assert_eq!(floor(&case.size(), MAX), 8192);
}

#[test]
fn five_hundred_pods_want_more_than_the_most_and_the_cut_is_said() {
    let case = Case {
        pods: 500,
        memory: 256 << 30,
        ..Case::default()
    };
    let sizes = case.size();
    assert_eq!(floor(&sizes, MAX), 1_048_576);
    assert!(
        sizes.warnings[0].0.contains("2097152"),
        "{:?}",
        sizes.warnings
    );
}

#[test]
fn min_entries_win_over_the_memory_share() {
    let case = Case {
        memory: 1 << 30,
        entries: bounds(Some(500_000), None),
        ..Case::default()
    };
    assert_eq!(floor(&case.size(), MAX), 500_000);
}

#[test]
fn max_entries_may_allow_more_than_the_default_and_are_kept_as_given() {
    let case = Case {
        pods: 500,
        memory: 256 << 30,
        entries: bounds(None, Some(1_500_000)),
        ..Case::default()
    };
    assert_eq!(floor(&case.size(), MAX), 1_500_000);
}

#[test]
fn equal_bounds_ask_for_exactly_that_size_with_buckets_for_it() {
    let case = Case {
        entries: bounds(Some(300_000), Some(300_000)),
        ..Case::default()
    };
    let sizes = case.size();
    assert_eq!(exactly(&sizes, MAX), "300000");
    assert_eq!(floor(&sizes, BUCKETS), 300_000);
}

#[test]
fn a_table_that_was_seen_half_full_gets_twice_what_it_held() {
    let case = Case {
        conntrack_peak: Some(400_000),
        memory: 64 << 30,
        ..Case::default()
    };
    assert_eq!(floor(&case.size(), MAX), 1_048_576);
}

#[test]
fn an_agent_may_raise_conntrack_as_far_as_memory_and_the_most_allow() {
    for (memory, max, ceiling) in [
        (8 << 30, None, 524_288),
        (64 << 30, None, 1_048_576),
        (64 << 30, Some(600_000), 600_000),
    ] {
        let case = Case {
            pods: 10,
            memory,
            entries: bounds(None, max),
            ..Case::default()
        };
        let Some(DesiredValue::AtLeast(bounds)) = case.wanted(MAX) else {
            panic!("a limit")
        };
        assert_eq!(bounds.ceiling(), ceiling);
    }
}

#[test]
fn reused_ports_are_rescheduled_on_kernels_that_do_it_without_delay() {
    for (kernel, mode) in [
        ("3.10.0-1160.el7.x86_64", None),
        ("4.1.0", Some("0")),
        ("4.14.193", Some("0")),
        ("4.14.194", Some("1")),
        ("4.18.0-553.el8_10.x86_64", Some("0")),
        ("4.19.139", Some("0")),
        ("4.19.140", Some("1")),
        ("5.4.58", Some("0")),
        ("5.4.59", Some("1")),
        ("5.4.254-170.358.amzn2.x86_64", Some("1")),
        ("5.4.0-150-generic", Some("0")),
        ("5.7.19", Some("0")),
        ("5.8.2", Some("1")),
        ("5.9.0", Some("1")),
        ("5.15.0-1053-aws", Some("1")),
        ("6.12.48+deb13-cloud-amd64", Some("1")),
    ] {
        let case = Case {
            kernel: KernelVersion::parse(kernel).ok(),
            ..Case::default()
        };
        let wanted = case.wanted(REUSE).map(|wanted| wanted.value().to_string());
        assert_eq!(wanted.as_deref(), mode, "{kernel}");
    }
}

#[test]
fn the_reason_names_the_cost_of_both_modes() {
    let case = Case {
        kernel: KernelVersion::parse("5.4.0-150-generic").ok(),
        ..Case::default()
    };
    let reason = case.reason(REUSE);
    for part in ["1 s", "removed pods", "5.4.59"] {
        assert!(reason.contains(part), "{part} in {reason}");
    }
}

#[test]
fn a_mode_that_the_tuning_names_is_taken_on_every_kernel() {
    for (reuse, mode) in [
        (ConnReuseMode::Disabled, Some("0")),
        (ConnReuseMode::Enabled, Some("1")),
        (ConnReuseMode::Unmanaged, None),
    ] {
        for kernel in [None, Some(KernelVersion::new(4, 4, None))] {
            let case = Case {
                kernel,
                reuse,
                ..Case::default()
            };
            let wanted = case.wanted(REUSE).map(|wanted| wanted.value().to_string());
            assert_eq!(wanted.as_deref(), mode);
        }
    }
}

fn with(sysctls: &[(&str, &str)]) -> Case {
    let parse = |&(key, value): &(&str, &str)| {
        (SysctlKey::parse(key).unwrap(), Value::parse(value).unwrap())
    };
    Case {
        sysctls: sysctls.iter().map(parse).collect(),
        memory: 64 << 30,
        ..Case::default()
    }
}

#[test]
fn other_sysctls_are_exactly_what_the_tuning_says() {
    let case = with(&[("net.ipv4.tcp_rmem", "4096 131072 6291456")]);
    assert_eq!(
        exactly(&case.size(), "net.ipv4.tcp_rmem"),
        "4096 131072 6291456"
    );
    assert_eq!(case.reason("net.ipv4.tcp_rmem"), "set by the tuning");
    assert!(case.size().warnings.is_empty());
}

#[test]
fn sysctls_that_do_not_reach_pods_are_named_in_one_warning() {
    let case = with(&[
        ("net.core.somaxconn", "4096"),
        ("net.core.netdev_max_backlog", "5000"),
        ("net.ipv4.tcp_tw_reuse", "1"),
        ("net.netfilter.nf_conntrack_tcp_be_liberal", "1"),
    ]);
    let warnings = case.size().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0]
            .0
            .ends_with(": net.core.somaxconn, net.ipv4.tcp_tw_reuse"),
        "{warnings:?}"
    );
}

#[test]
fn values_that_endanger_a_cluster_are_taken_with_a_warning_each() {
    for (key, dangerous, harmless) in [
        ("net.ipv4.conf.all.rp_filter", "1", "2"),
        ("net.ipv4.conf.eth0.rp_filter", "1", "0"),
        ("net.bridge.bridge-nf-call-iptables", "0", "1"),
        ("net.ipv4.vs.conntrack", "0", "1"),
        (
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            "3599",
            "3600",
        ),
    ] {
        let warnings = with(&[(key, dangerous)]).size().warnings;
        assert!(
            matches!(&warnings[..], [warning] if warning.0.starts_with(key)),
            "{key}: {warnings:?}"
        );
        let warnings = with(&[(key, harmless)]).size().warnings;
        assert!(warnings.is_empty(), "{key}: {warnings:?}");
    }
}

#[test]
fn a_port_range_that_takes_node_ports_is_warned_of() {
    for (range, overlaps) in [
        ("1024 65535", true),
        ("1024 30000", true),
        ("32767 60999", true),
        ("32768 60999", false),
        ("1024 29999", false),
    ] {
        let warnings = with(&[("net.ipv4.ip_local_port_range", range)])
            .size()
            .warnings;
        let warned = warnings
            .iter()
            .any(|warning| warning.0.contains("NodePorts"));
        assert_eq!(warned, overlaps, "{range}");
    }
}
