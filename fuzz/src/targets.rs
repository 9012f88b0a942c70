//! What is fuzzed, and what must hold whatever comes in.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nettune_agent::kernel::facts::{self, Identity};
use nettune_agent::kernel::sysctl::Sysctls;
use nettune_agent::pressure::monitor::TableMonitor;
use nettune_agent::standalone::dry_run::dry_run;
use nettune_agent::standalone::host::ClusterHints;
use nettune_agent::standalone::policy::{Host, PolicyFile};
use nettune_agent::state::store::StateDir;
use nettune_crds::ProfileFacts;
use nettune_reconcile::desired::{DesiredState, Revision, Source};
use nettune_reconcile::memory::Memory;
use nettune_reconcile::observed::{Content, Counts, ObservedState, OverflowCounters};
use nettune_reconcile::step::keys_to_read;
use nettune_sizing::{KernelVersion, Mono, SysctlKey, keys, size};

use crate::node::Node;

/// Takes any bytes, and panics where something does not hold.
pub(crate) type Target = fn(&[u8]);

/// All of them, by name; each has its corpus in `corpus/NAME`.
pub(crate) const TARGETS: [(&str, Target); 9] = [
    ("counters", counters),
    ("devices", devices),
    ("identity", identity),
    ("memory", memory),
    ("policy", policy),
    ("profile", profile),
    ("routes", routes),
    ("state", state),
    ("sysctl", sysctl),
];

const HINTS: ClusterHints = ClusterHints {
    nodes: 605,
    pods: 30,
    cloud: false,
};

/// Several files in one input.
fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == 0xff)
        .chain(std::iter::repeat(&[][..]))
}

/// Statistics of the tables, at two moments.
fn counters(data: &[u8]) {
    let node = Node::get();
    let mut monitor = TableMonitor::new(&node.roots());
    let mut parts = parts(data);
    for second in [0, 1, 2] {
        for name in ["arp_cache", "ndisc_cache", "nf_conntrack"] {
            node.put(
                &format!("net/stat/{name}"),
                parts.next().unwrap_or_default(),
            );
        }
        let now = Mono::at(Duration::from_secs(second));
        let (counts, overflows) = monitor.read(Some(65536), now);
        let observed = observed(counts, overflows);
        monitor.observe(&observed, now);
        let _conditions = monitor.conditions(now);
    }
}

/// /proc/net/dev.
fn devices(data: &[u8]) {
    let node = Node::get();
    node.put("net/dev", data);
    let mut monitor = TableMonitor::new(&node.roots());
    monitor.observe(
        &observed(Counts::default(), OverflowCounters::default()),
        Mono::default(),
    );
    let _conditions = monitor.conditions(Mono::default());
}

/// Processors, and the kernel's version in both of its places.
fn identity(data: &[u8]) {
    let node = Node::get();
    let mut parts = parts(data);
    for name in ["stat", "version_signature", "sys/kernel/osrelease"] {
        node.put(name, parts.next().unwrap_or_default());
    }
    let identity = Identity::read(&node.roots()).expect("files that are there");
    assert!(identity.machine().cores >= 1);
    if let Some(kernel) = identity.machine().kernel {
        assert_eq!(KernelVersion::parse(&kernel.to_string()), Ok(kernel));
    }
}

/// /proc/meminfo, and what is sized from it.
fn memory(data: &[u8]) {
    let node = Node::get();
    node.put("meminfo", data);
    let identity = fixed_identity();
    let facts = HINTS.node(&node.roots(), &identity, &ProfileFacts::default());
    let _sizes = size(&nettune_sizing::Policy::default(), &HINTS.cluster(), &facts);
}

/// /proc/net/route.
fn routes(data: &[u8]) {
    let node = Node::get();
    node.put("net/route", data);
    let facts = facts::read(&node.roots(), &fixed_identity(), None);
    assert!(
        facts
            .on_link_addresses
            .is_none_or(|addresses| addresses > 0)
    );
}

/// What a sysctl holds.
fn sysctl(data: &[u8]) {
    let node = Node::get();
    node.put("sys/net/core/somaxconn", data);
    let mut sysctls = Sysctls::new(&node.roots().sysctl);
    sysctls.track(&BTreeSet::from([key("net.core.somaxconn")]));
    sysctls.read();
    assert_eq!(sysctls.seen().len(), 1);
    assert!(!sysctls.read(), "it has not changed");
}

/// The state file: what is taken from it can be saved and is the same afterwards.
fn state(data: &[u8]) {
    let node = Node::get();
    node.put("state/state.json", data);
    let dir = StateDir::new(&node.path("state"), "n1", "boot");
    let taken = dir.load();
    assert_eq!(
        taken.set_aside.is_some(),
        dir.peek().is_ok_and(|now| now.originals_lost) && taken.set_aside.is_some()
    );
    dir.note(&taken.persisted).expect("a note");
    dir.flush().expect("a flush");
    let again = dir.load();
    assert!(again.set_aside.is_none());
    assert_eq!(again.persisted, taken.persisted);
}

/// A policy file: what is taken can be sized, and every size is one that the agent takes.
fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(policy) = PolicyFile::parse(Path::new("policy.yaml"), text) else {
        return;
    };
    let roots = Node::get().roots();
    let host = Host {
        roots,
        identity: fixed_identity(),
        hints: HINTS,
    };
    let sized = policy
        .size(&host, &ProfileFacts::default())
        .expect("a policy that was read");
    let desired = DesiredState::read(sized.after(None)).expect("a profile");
    assert_eq!(desired.invalid, Vec::new());
    assert_eq!(desired.values.len(), sized.spec.sysctls.len());
    keeps_the_rules(&desired);
}

/// A profile's spec.
fn profile(data: &[u8]) {
    let Ok(spec) = serde_json::from_slice(data) else {
        return;
    };
    let revision = Revision {
        uid: "u".to_owned(),
        generation: 1,
    };
    if let Ok(desired) = DesiredState::read(Arc::new(Source { revision, spec })) {
        keeps_the_rules(&desired);
    }
}

/// Steps to a desired state without a kernel: the thresholds stay in order, conntrack is never unlimited,
/// and the number of steps is bounded.
fn keeps_the_rules(desired: &DesiredState) {
    let mut sysctls = Sysctls::new(&Node::get().roots().sysctl);
    let memory = Memory::default();
    sysctls.track(&keys_to_read(desired, &memory));
    sysctls.read();
    let counts = Counts {
        neighbors_ipv4: Some(5),
        neighbors_ipv6: Some(5),
        conntrack: Some(10),
    };
    let mut observed = ObservedState {
        keys: sysctls.seen(),
        ..observed(counts, OverflowCounters::default())
    };
    let outcome = dry_run(desired, &observed, &memory);
    assert!(
        outcome.writes.len() <= 2 * desired.values.len() + 6,
        "{:?}",
        outcome.writes
    );
    for (key, content) in outcome.writes {
        assert!(key != keys::NF_CONNTRACK_MAX || content.number() != Some(0));
        observed
            .keys
            .insert(key, nettune_reconcile::observed::Seen::Content(content));
        for [one, two, three] in [
            [
                &keys::IPV4_GC_THRESH1,
                &keys::IPV4_GC_THRESH2,
                &keys::IPV4_GC_THRESH3,
            ],
            [
                &keys::IPV6_GC_THRESH1,
                &keys::IPV6_GC_THRESH2,
                &keys::IPV6_GC_THRESH3,
            ],
        ] {
            let [one, two, three] = [one, two, three].map(|key| observed.number(key));
            assert!(one <= two && two <= three, "{one:?} {two:?} {three:?}");
            assert!(
                one.is_none() || (one < two && two < three),
                "{one:?} {two:?} {three:?}"
            );
        }
    }
}

fn observed(counts: Counts, overflows: OverflowCounters) -> ObservedState {
    let mut observed = ObservedState {
        initial_namespace: true,
        keys: Default::default(),
        counts,
        overflows: overflows,
        machine: fixed_identity().machine(),
        wall: Default::default(),
    };
    for key in [
        &keys::IPV4_GC_THRESH3,
        &keys::IPV6_GC_THRESH3,
        &keys::NF_CONNTRACK_MAX,
    ] {
        let limit = Content::from(1024);
        observed.keys.insert(
            key.clone(),
            nettune_reconcile::observed::Seen::Content(limit),
        );
    }
    observed
}

fn fixed_identity() -> Arc<Identity> {
    Arc::new(Identity {
        boot_id: "boot".to_owned(),
        kernel_release: "6.1.0".to_owned(),
        base_kernel: None,
        cores: 4,
    })
}

fn key(name: &str) -> SysctlKey {
    SysctlKey::parse(name).expect("an allow-listed name")
}
