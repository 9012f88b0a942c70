//! What holds for every input.

mod cluster;

use cluster::{Case, floor, thresholds, value};
use nettune_sizing::{
    ConnReuseMode, DesiredValue, EntryBounds, Factors, KernelVersion, PodLinks, PodNetwork,
    PodNetworkChoice,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

const INT_MAX: u64 = 2_147_483_647;

fn kernel() -> impl Strategy<Value = Option<KernelVersion>> {
    let patch = option::of(0..400_u16);
    let version = (3..8_u16, 0..22_u16, patch);
    option::of(version.prop_map(|(major, minor, patch)| KernelVersion::new(major, minor, patch)))
}

fn network() -> impl Strategy<Value = PodNetwork> {
    select(vec![
        PodNetwork::Routed,
        PodNetwork::Overlay,
        PodNetwork::OverlayIpip,
        PodNetwork::Flat,
    ])
}

fn links() -> impl Strategy<Value = PodLinks> {
    select(vec![PodLinks::PointToPoint, PodLinks::Bridge])
}

fn entries() -> impl Strategy<Value = EntryBounds> {
    let bound = || option::of(1..=i32::MAX as u32);
    (bound(), bound()).prop_filter_map("out of order", |(min, max)| EntryBounds::new(min, max).ok())
}

/// Numbers that include the smallest and the largest.
fn any_u32() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(1),
        0..10_000_u32,
        any::<u32>(),
        Just(u32::MAX)
    ]
}

fn any_u64() -> impl Strategy<Value = u64> {
    let memory = (0..600_u64).prop_map(|gib| gib << 30);
    prop_oneof![Just(1), memory, any::<u64>(), Just(u64::MAX)]
}

prop_compose! {
    fn factors()(growth in any_u32(), headroom in any_u32(), fan_in in any_u32()) -> Factors {
        Factors { growth_percent: growth, headroom_percent: headroom, bridge_fan_in: fan_in }
    }
}

prop_compose! {
    /// Anything that can be written down.
    fn any_case()(
        (nodes, pods, cores, connections_per_pod) in (any_u32(), any_u32(), any_u32(), any_u32()),
        (memory, kernel) in (any_u64(), kernel()),
        (network, links, entries) in (network(), links(), entries()),
        (ipv6, cloud) in any::<(bool, bool)>(),
        (same_l2, size_for_nodes) in (option::of(any_u32()), option::of(any_u32())),
        (on_link, neighbors_peak, conntrack_peak)
            in (option::of(any_u64()), option::of(any_u64()), option::of(any_u64())),
        factors in prop_oneof![Just(Factors::default()), factors()],
    ) -> Case {
        Case {
            nodes, pods, memory, cores, kernel, network, links, ipv6, cloud, same_l2, on_link,
            neighbors_peak, conntrack_peak, factors, size_for_nodes, connections_per_pod, entries,
            choice: PodNetworkChoice::Auto,
            fixed: None,
            reuse: ConnReuseMode::Auto,
            sysctls: Vec::new(),
        }
    }
}

prop_compose! {
    /// A cluster that Kubernetes supports.
    fn real_case()(
        pods in 1..=250_u32,
        gib in 1..=1024_u64,
        kernel in kernel(),
        (network, links) in (network(), links()),
        (ipv6, cloud) in any::<(bool, bool)>(),
        same_l2 in option::of(1..5000_u32),
        on_link in option::of(1..1_000_000_u64),
    ) -> Case {
        Case {
            pods, kernel, network, links, ipv6, cloud, same_l2, on_link,
            memory: gib << 30,
            ..Case::default()
        }
    }
}

fn is_power_of_two_or_zero(number: u64) -> bool {
    number == 0 || number.is_power_of_two()
}

proptest! {
    #[test]
    fn thresholds_ascend_with_gaps_for_the_garbage_collector(case in any_case()) {
        let [one, two, three] = thresholds(&case.size());
        prop_assert!(one < two, "{one} < {two}");
        prop_assert!(two >= 4096 && two <= three / 2, "{two} and {three}");
        prop_assert!(three <= INT_MAX, "{three}");
    }

    #[test]
    fn what_is_computed_is_a_power_of_two(case in any_case()) {
        let case = Case { entries: EntryBounds::default(), ..case };
        for sized in case.size().sysctls {
            if let DesiredValue::AtLeast(bounds) = sized.wanted {
                prop_assert!(bounds.floor().is_power_of_two(), "{} {bounds:?}", sized.key);
                prop_assert!(bounds.ceiling().is_power_of_two(), "{} {bounds:?}", sized.key);
            }
        }
        prop_assert!(thresholds(&case.size()).into_iter().all(is_power_of_two_or_zero));
    }

    #[test]
    fn conntrack_is_never_unlimited_nor_more_than_the_kernel_takes(case in any_case()) {
        let sizes = case.size();
        for key in ["net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_buckets"] {
            let entries = value(&sizes, key);
            prop_assert!((1..=INT_MAX).contains(&entries), "{key} = {entries}");
        }
    }

    #[test]
    fn bounds_of_conntrack_are_kept(case in any_case()) {
        let entries = value(&case.size(), "net.netfilter.nf_conntrack_max");
        prop_assert!(case.entries.min().is_none_or(|min| u64::from(min) <= entries));
        prop_assert!(case.entries.max().is_none_or(|max| entries <= u64::from(max)));
    }

    #[test]
    fn ipv4_and_ipv6_move_together(case in any_case()) {
        let sizes = case.size();
        for sized in &sizes.sysctls {
            let Some(rest) = sized.key.name().strip_prefix("net.ipv4.neigh.") else { continue };
            let twin = case.wanted(&format!("net.ipv6.neigh.{rest}"));
            let expected = case.ipv6.then(|| sized.wanted.clone());
            prop_assert_eq!(twin, expected);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_output_sorted_by_key(case in any_case()) {
        let sizes = case.size();
        prop_assert_eq!(&sizes, &case.size());
        prop_assert!(sizes.sysctls.is_sorted_by(|a, b| a.key < b.key));
    }

    #[test]
    fn more_nodes_never_get_smaller_tables(case in any_case(), more in any_u32()) {
        let larger = Case { nodes: case.nodes.max(1).saturating_add(more), ..case.clone() };
        let (before, after) = (thresholds(&case.size()), thresholds(&larger.size()));
        prop_assert!(before.iter().zip(after).all(|(before, after)| *before <= after));
    }

    #[test]
    fn more_memory_never_gives_less(case in any_case(), more in any_u64()) {
        prop_assume!(case.memory > 0);
        let larger = Case { memory: case.memory.saturating_add(more), ..case.clone() };
        let (before, after) = (case.size(), larger.size());
        for key in ["net.ipv4.neigh.default.gc_thresh3", "net.netfilter.nf_conntrack_max"] {
            prop_assert!(value(&before, key) <= value(&after, key), "{key}");
        }
    }

    #[test]
    fn a_cap_that_leaves_less_than_the_need_is_never_silent(case in real_case()) {
        let uncapped = Case { memory: u64::MAX, ..case.clone() };
        let quiet = |case: &Case| case.size().warnings.is_empty();
        if quiet(&case) {
            let (here, there) = (thresholds(&case.size())[1], thresholds(&uncapped.size())[1]);
            // Twice 1.25 times the entries, to the next power of two, may lose its doubling.
            prop_assert!(here >= there / 4, "{here} of {there}");
            let max = "net.netfilter.nf_conntrack_max";
            prop_assert_eq!(floor(&case.size(), max), floor(&uncapped.size(), max));
        }
    }

    #[test]
    fn a_profile_with_thirteen_keys_stays_small(case in any_case()) {
        let sizes = case.size();
        let bytes: usize = sizes.sysctls.iter().map(|sized| sized.reason.len()).sum();
        prop_assert!(bytes < 4096, "{bytes} bytes of reasons");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn growing_from_one_node_to_five_thousand_rewrites_at_most_five_times(case in real_case()) {
        let wanted = |nodes: u32| -> Vec<DesiredValue> {
            let sizes = Case { nodes, ..case.clone() }.size();
            sizes.sysctls.into_iter().map(|sized| sized.wanted).collect()
        };
        let mut rewrites = 0;
        let mut last = wanted(1);
        for nodes in 2..=5000 {
            let now = wanted(nodes);
            if now != last {
                rewrites += 1;
                last = now;
            }
        }
        prop_assert!(rewrites <= 5, "{rewrites} rewrites");
    }
}
