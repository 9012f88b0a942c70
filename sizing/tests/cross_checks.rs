//! What the model gives for clusters whose right sizes are known from elsewhere.

mod cluster;

use cluster::{Case, thresholds};
use nettune_sizing::{Factors, KernelVersion, PodLinks, PodNetwork, Thresholds};

/// The clusters that the model was checked against were sized as they stood.
const AS_IT_STANDS: Factors = Factors {
    growth_percent: 100,
    headroom_percent: 125,
    bridge_fan_in: 16,
};

#[test]
fn five_thousand_nodes_on_bridges_get_what_openshift_ships() {
    let case = Case {
        nodes: 5000,
        pods: 110,
        factors: AS_IT_STANDS,
        ..Case::default()
    };
    assert_eq!(thresholds(&case.size()), [8192, 32768, 65536]);
}

#[test]
fn tinders_cluster_gets_sixteen_times_what_overflowed() {
    for factors in [AS_IT_STANDS, Factors::default()] {
        let case = Case {
            nodes: 605,
            pods: 30,
            kernel: Some(KernelVersion::new(4, 9, None)),
            factors,
            ..Case::default()
        };
        assert_eq!(thresholds(&case.size()), [2048, 8192, 16384]);
    }
}

#[test]
fn the_same_cluster_on_a_kernel_that_does_not_count_vxlan_entries_needs_half() {
    let case = Case {
        nodes: 605,
        pods: 30,
        kernel: Some(KernelVersion::new(5, 0, None)),
        ..Case::default()
    };
    assert_eq!(thresholds(&case.size()), [1024, 4096, 8192]);
}

#[test]
fn entries_of_an_ipip_overlay_count_on_every_kernel() {
    let case = Case {
        nodes: 605,
        pods: 30,
        network: PodNetwork::OverlayIpip,
        ..Case::default()
    };
    assert_eq!(thresholds(&case.size()), [2048, 8192, 16384]);
}

#[test]
fn a_flat_aws_cluster_gets_every_address_of_its_vpc_and_keeps_no_stale_one() {
    for on_link in [Some(65_536), None] {
        let case = Case {
            nodes: 1000,
            pods: 58,
            network: PodNetwork::Flat,
            links: PodLinks::PointToPoint,
            cloud: true,
            on_link,
            memory: 8 << 30,
            ..Case::default()
        };
        assert_eq!(thresholds(&case.size()), [0, 65536, 131_072]);
        assert!(case.size().warnings.is_empty(), "the cap cuts nothing");
    }
}

#[test]
fn a_demo_of_three_nodes_grows_to_605() {
    let three = Case {
        nodes: 3,
        pods: 64,
        memory: 3 << 29,
        ..Case::default()
    };
    let grown = Case {
        nodes: 605,
        ..three.clone()
    };
    assert_eq!(thresholds(&three.size()), [1024, 4096, 8192]);
    assert_eq!(thresholds(&grown.size()), [2048, 8192, 16384]);
}

#[test]
fn nodes_of_a_cloud_provider_keep_no_stale_entry() {
    let case = Case {
        cloud: true,
        ..Case::default()
    };
    assert_eq!(thresholds(&case.size())[0], 0);
}

#[test]
fn nodes_behind_a_router_are_not_counted() {
    let case = Case {
        nodes: 5000,
        pods: 30,
        same_l2: Some(40),
        network: PodNetwork::Routed,
        ..Case::default()
    };
    assert_eq!(thresholds(&case.size()), [1024, 4096, 8192]);
}

#[test]
fn sizing_for_more_nodes_gives_on_the_first_day_what_they_will_need() {
    let small = Case {
        nodes: 3,
        pods: 110,
        size_for_nodes: Some(7500),
        ..Case::default()
    };
    let large = Case {
        nodes: 5000,
        pods: 110,
        ..Case::default()
    };
    for network in [PodNetwork::Routed, PodNetwork::OverlayIpip] {
        let [small, large] = [&small, &large].map(|case| Case {
            network,
            ..case.clone()
        });
        assert_eq!(thresholds(&small.size()), thresholds(&large.size()));
    }
}

#[test]
fn a_node_that_was_seen_fuller_than_the_model_says_gets_more() {
    let quiet = Case::default();
    let full = Case {
        neighbors_peak: Some(10_000),
        ..Case::default()
    };
    assert_eq!(thresholds(&quiet.size())[1], 8192);
    assert_eq!(thresholds(&full.size())[1], 32768);
    assert!(
        full.reason("net.ipv4.neigh.default.gc_thresh2")
            .contains("observed peak 10000")
    );
}

#[test]
fn memory_that_leaves_too_little_is_said_with_numbers() {
    let case = Case {
        nodes: 5000,
        pods: 110,
        memory: 1 << 30,
        ..Case::default()
    };
    let sizes = case.size();
    assert_eq!(thresholds(&sizes), [2048, 8192, 16384]);
    let warning = &sizes.warnings[0].0;
    for number in ["8192", "12679", "1 GiB", "16384"] {
        assert!(warning.contains(number), "{number} in {warning}");
    }
}

#[test]
fn fixed_thresholds_are_taken_as_they_are_and_said_to_be_small() {
    let fixed = Thresholds::new(0, 600, 1000).ok();
    let case = Case {
        nodes: 605,
        fixed,
        ..Case::default()
    };
    let sizes = case.size();
    assert_eq!(thresholds(&sizes), [0, 600, 1000]);
    assert_eq!(sizes.warnings.len(), 1, "{:?}", sizes.warnings);
}

#[test]
fn a_reason_names_the_numbers_that_went_in() {
    let case = Case {
        nodes: 605,
        pods: 30,
        ..Case::default()
    };
    assert_eq!(
        case.reason("net.ipv6.neigh.default.gc_thresh2"),
        "605 nodes, sized for 908; 30 pods on a bridge: 1451 entries on IPv4, 1631 on IPv6; \
         next power of two above 2 × 1.25 × 1631"
    );
}

#[test]
fn a_kernel_that_cannot_be_read_is_taken_for_a_recent_one_and_the_reason_says_so() {
    let unknown = Case {
        nodes: 605,
        pods: 30,
        kernel: None,
        ..Case::default()
    };
    assert_eq!(thresholds(&unknown.size()), [1024, 4096, 8192]);
    for key in [
        "net.ipv4.neigh.default.gc_thresh2",
        "net.ipv4.vs.conn_reuse_mode",
    ] {
        assert!(unknown.reason(key).contains("kernel unknown"), "{key}");
    }
}
