//! What a tuning says while the API server does not take its profiles.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, also outside their #[test] functions"
)]

mod cluster;

use std::sync::Arc;

use cluster::{Cluster, name_of};
use jiff::Timestamp;
use kube::api::ObjectMeta;
use nettune_crds::conditions;
use nettune_planner::{
    Cache, Kind, Memory, Mono, Now, PlannedProfile, PlannedTuning, Write, decide,
};
use serde_json::json;

/// A cluster of nodes that are to get their first profile.
fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::with_nodes(nodes);
    cluster.apply_tuning("default", json!({"conntrack": {}}));
    cluster
}

/// What an operator has seen of it.
fn cache(cluster: &Cluster) -> Cache {
    let mut cache = Cache::default();
    for kind in [Kind::Node, Kind::Tuning, Kind::Profile] {
        cache.list_begins(kind);
    }
    for node in cluster.nodes.values() {
        cache.node(node);
    }
    for (name, tuning) in &cluster.tunings {
        cache.tuning(name, PlannedTuning::new(tuning));
    }
    for (name, profile) in &cluster.profiles {
        let (spec, status) = (Some(profile.spec.clone()), profile.status.as_ref());
        cache.profile(name, PlannedProfile::of(&profile.metadata, spec, status));
    }
    for kind in [Kind::Node, Kind::Tuning, Kind::Profile] {
        cache.list_ends(kind);
    }
    cache
}

fn refuse(cache: &mut Cache, node: usize, why: Option<&str>) {
    let name: Arc<str> = name_of(node).into();
    cache.refused_profile(&name, why.map(str::to_owned));
}

/// The condition `Progressing` that is to be written.
fn progressing(cache: &Cache) -> (String, String, String) {
    let now = Now {
        mono: Mono::default(),
        wall: Timestamp::UNIX_EPOCH,
    };
    let decision = decide(cache.state().unwrap(), &Memory::default(), now);
    let mut writes = decision.writes.into_iter();
    let status = writes.find_map(|write| match write {
        Write::TuningStatus { status, .. } => Some(status),
        _ => None,
    });
    let said = conditions::find(&status.unwrap().conditions, "Progressing").cloned();
    let said = said.unwrap();
    (said.status, said.reason, said.message)
}

#[test]
fn refusals_are_counted_and_the_first_is_told_in_the_api_servers_words() {
    let mut cache = cache(&cluster(3));
    refuse(&mut cache, 2, Some("exceeded quota"));
    refuse(&mut cache, 1, Some("frozen today"));
    let (status, reason, message) = progressing(&cache);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "WritesRejected")
    );
    assert_eq!(
        message,
        "the API server rejects the profiles of 2 nodes, retrying; node-1: frozen today"
    );
}

#[test]
fn a_write_that_is_taken_at_last_is_no_refusal_any_more() {
    let mut cache = cache(&cluster(2));
    for node in 0..2 {
        refuse(&mut cache, node, Some("frozen today"));
    }
    refuse(&mut cache, 0, None);
    assert!(
        progressing(&cache)
            .2
            .contains("rejects the profiles of 1 node,")
    );
    refuse(&mut cache, 1, None);
    assert_eq!(progressing(&cache).1, "RollingOut");
}

#[test]
fn what_was_refused_and_is_not_wanted_any_more_is_not_told() {
    let mut cluster = cluster(2);
    cluster.turn();
    // Both profiles are there, and say what they shall; their agents have not answered yet.
    let mut cache = cache(&cluster);
    refuse(&mut cache, 0, Some("frozen today"));
    let mut again = cluster.tunings["default"].clone();
    again.status = None;
    again.metadata.resource_version = Some("1000".to_owned());
    cache.tuning("default", PlannedTuning::new(&again));
    let (status, reason, message) = progressing(&cache);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "RollingOut"));
    assert!(message.contains("2 agents yet to report"), "{message}");
}

#[test]
fn a_node_that_goes_takes_its_refusal_with_it() {
    let mut cache = cache(&cluster(2));
    for node in 0..2 {
        refuse(&mut cache, node, Some("frozen today"));
    }
    let gone = ObjectMeta {
        name: Some(name_of(0)),
        ..ObjectMeta::default()
    };
    cache.gone(Kind::Node, &gone);
    let message = progressing(&cache).2;
    assert!(
        message.contains("rejects the profiles of 1 node,") && message.contains("; node-1: "),
        "{message}"
    );
    // One that comes back under its name begins anew.
    cache.node(&Cluster::with_nodes(1).nodes[&name_of(0)]);
    assert!(
        progressing(&cache)
            .2
            .contains("rejects the profiles of 1 node,")
    );
}
