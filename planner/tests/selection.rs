//! Which tuning has which node, and what its pod network is taken for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, also outside their #[test] functions"
)]

mod cluster;

use cluster::timeline::{Effect, Timeline};
use cluster::{Cluster, name_of};
use serde_json::{Value, json};

const SOMAXCONN: &str = "net.core.somaxconn";

/// A tuning for a pool with a fixed value.
fn pool(pool: &str, value: u32) -> Value {
    json!({
        "nodeSelector": {"matchLabels": {"pool": pool}},
        "sysctls": [{"name": SOMAXCONN, "value": value.to_string()}],
        "releasePolicy": "Restore"
    })
}

fn node_of(pool: &str) -> Value {
    json!({"ready": "True", "labels": {"pool": pool}})
}

#[test]
fn many_pools_have_each_their_tuning_and_the_rest_has_the_one_for_all() {
    let mut cluster = Cluster::default();
    cluster.apply_tuning("rest", json!({"conntrack": {}, "priority": -1}));
    for index in 0..20 {
        let name = format!("pool-{index}");
        cluster.apply_tuning(&name, pool(&name, 1000 + u32::try_from(index).unwrap()));
        cluster.put_node(index, json!({"labels": {"pool": name}}));
    }
    cluster.put_node(20, json!({}));
    cluster.settle();
    for index in 0..20 {
        let wanted = cluster.wanted(&name_of(index), SOMAXCONN);
        assert_eq!(wanted, (1000 + index).to_string());
    }
    assert_eq!(cluster.profiles["node-20"].spec.tuning, "rest");
    assert_eq!(cluster.status("rest").nodes.unwrap().selected, 1);
}

#[test]
fn a_node_that_moves_goes_from_value_to_value_and_never_through_the_defaults() {
    let mut cluster = Cluster::default();
    for index in 0..6 {
        cluster.put_node(index, node_of("a"));
    }
    cluster.apply_tuning("a", pool("a", 1000));
    cluster.apply_tuning("b", pool("b", 2000));
    let mut timeline = Timeline::new(cluster, |_, _| Effect::Fine);
    timeline.run(600, 10);
    assert_eq!(timeline.holding(SOMAXCONN, "1000"), 6);
    for index in 0..6 {
        timeline.cluster.put_node(index, node_of("b"));
    }
    for _ in 0..60 {
        timeline.step(10);
        let held = timeline.holding(SOMAXCONN, "1000") + timeline.holding(SOMAXCONN, "2000");
        assert_eq!(held, 6);
        assert!(
            timeline
                .cluster
                .profiles
                .values()
                .all(|profile| !profile.spec.release)
        );
    }
    assert_eq!(timeline.holding(SOMAXCONN, "2000"), 6);
    assert_eq!(timeline.cluster.status("a").nodes.unwrap().selected, 0);
}

#[test]
fn a_node_that_moves_to_a_tuning_with_the_same_values_is_written_once() {
    let mut cluster = Cluster::default();
    cluster.put_node(0, node_of("a"));
    cluster.apply_tuning("a", pool("a", 1000));
    cluster.apply_tuning("b", pool("b", 1000));
    let mut timeline = Timeline::new(cluster, |_, _| Effect::Fine);
    timeline.run(120, 10);
    let before = timeline.writes_to_all();
    timeline.cluster.put_node(0, node_of("b"));
    timeline.step(1);
    assert_eq!(timeline.cluster.profiles["node-0"].spec.tuning, "b");
    assert_eq!(timeline.writes_to_all(), before + 1);
}

#[test]
fn overlapping_names_the_blocks_and_the_nodes_of_each_lower_tuning() {
    let mut cluster = Cluster::with_nodes(5);
    cluster.apply_tuning("all", json!({"neighbors": {}, "ipvs": {}}));
    cluster.apply_tuning("none", json!({}));
    let even = json!({"matchLabels": {"even": "true"}});
    let mut sysctls = json!({"priority": 1, "nodeSelector": even});
    sysctls["sysctls"] = json!([{"name": SOMAXCONN, "value": "1"}]);
    cluster.apply_tuning("even", sysctls);
    cluster.apply_tuning(
        "top",
        json!({"priority": 2, "nodeSelector": even, "conntrack": {}}),
    );
    cluster.settle();
    let overlapping = |tuning: &str| {
        let conditions = &cluster.status(tuning).conditions;
        let found = nettune_crds::conditions::find(conditions, "Overlapping").unwrap();
        (found.status.clone(), found.message.clone())
    };
    assert_eq!(
        overlapping("top"),
        (
            "True".to_owned(),
            "takes precedence over all on 3 nodes (neighbors, ipvs), even on 3 nodes (sysctls)"
                .to_owned()
        )
    );
    assert_eq!(overlapping("even").0, "False", "it has no node itself");
    assert_eq!(
        overlapping("all").0,
        "False",
        "a tuning that manages nothing is not hidden"
    );
}

#[test]
fn virtual_and_windows_nodes_are_not_waited_for() {
    let mut cluster = Cluster::with_ready_nodes(1);
    for (index, node) in [
        json!({"ready": "True", "os": "windows"}),
        json!({"ready": "True", "labels": {"type": "virtual-kubelet"}}),
        json!({"ready": "True", "labels": {"type": "kwok"}}),
        json!({"ready": "True", "provider": "kwok://node"}),
        json!({"ready": "True", "annotations": {"kwok.x-k8s.io/node": "fake"}}),
    ]
    .into_iter()
    .enumerate()
    {
        cluster.put_node(index + 1, node);
    }
    cluster.apply_tuning(
        "default",
        json!({"sysctls": [{"name": SOMAXCONN, "value": "1"}]}),
    );
    let mut timeline = Timeline::new(cluster, |_, _| Effect::Fine);
    timeline.run(600, 10);
    let status = timeline.cluster.status("default");
    let nodes = status.nodes.unwrap();
    assert_eq!((nodes.selected, nodes.ready, nodes.unresponsive), (1, 1, 0));
    let ready = nettune_crds::conditions::find(&status.conditions, "Ready").unwrap();
    assert_eq!(ready.reason, "AllNodesReady");
}

/// What the tuning's status says of the pod network of its one group.
fn pod_network(cluster: &Cluster) -> &str {
    let [group] = &cluster.status("default").groups[..] else {
        panic!("one group: {:?}", cluster.status("default").groups)
    };
    &group.inputs.pod_network
}

#[test]
fn the_status_says_what_the_pod_network_was_told_by_and_what_disagrees() {
    let flannel = json!({"flannel.alpha.coreos.com/backend-type": "host-gw"});
    let both = json!({
        "flannel.alpha.coreos.com/backend-type": "host-gw",
        "projectcalico.org/IPv4VXLANTunnelAddr": "10.1.0.1"
    });
    for (annotations, choice, expected) in [
        (&flannel, "Auto", "Routed: Flannel's backend type host-gw"),
        (
            &both,
            "Auto",
            "Overlay: Calico's VXLAN tunnel address; but Flannel's backend type host-gw suggests Routed",
        ),
        (&both, "Flat", "Flat: set by the tuning"),
    ] {
        let mut cluster = Cluster::default();
        cluster.put_node(0, json!({"annotations": annotations}));
        cluster.apply_tuning("default", json!({"neighbors": {"podNetwork": choice}}));
        cluster.settle();
        assert_eq!(pod_network(&cluster), expected);
    }
}

#[test]
fn what_the_agent_sees_on_link_outweighs_calicos_prefix() {
    let thresh3 = "net.ipv4.neigh.default.gc_thresh3";
    let mut cluster = Cluster::default();
    for index in 0..1500 {
        let annotations = json!({"projectcalico.org/IPv4Address": "10.0.0.4/24"});
        cluster.put_node(index, json!({"annotations": annotations, "ready": "True"}));
    }
    cluster.apply_tuning("default", json!({"neighbors": {}}));
    cluster.settle();
    assert_eq!(
        cluster.wanted("node-0", thresh3),
        "8192",
        "254 nodes are near"
    );
    cluster.see(
        "node-0",
        json!({"initialNetworkNamespace": true, "ipv6": true, "modules": [], "onLinkAddresses": 65_536}),
    );
    cluster.settle();
    assert_eq!(
        cluster.wanted("node-0", thresh3),
        "16384",
        "all of them are"
    );
    assert_eq!(cluster.wanted("node-1", thresh3), "8192");
}
