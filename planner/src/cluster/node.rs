//! The parts of a Node that decisions use.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeSystemInfo, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Resource, api::ObjectMeta};
use nettune_crds::ProfileFacts;
use nettune_sizing::{KernelVersion, NodeFacts};
use serde::{Deserialize, Deserializer, Serialize};

use crate::cluster::cni::{self as evidence, Evidence};
use crate::cluster::labels::Labels;

/// A Node with only the fields that are used. A full Node has about 6 KB, most of it images.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = "Node")]
pub struct ObservedNode {
    /// Name, uid, labels, annotations.
    #[serde(deserialize_with = "pruned")]
    pub metadata: ObjectMeta,
    /// Pod CIDRs and provider.
    #[serde(default)]
    pub spec: ObservedNodeSpec,
    /// Capacity and kernel.
    #[serde(default)]
    pub status: ObservedNodeStatus,
}

/// An object's metadata without unused fields. managedFields are skipped: in a Node they are as large as the
/// rest.
pub(crate) fn pruned<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Used {
        name: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let used = Used::deserialize(from)?;
    Ok(ObjectMeta {
        name: used.name,
        uid: used.uid,
        resource_version: used.resource_version,
        labels: used.labels,
        annotations: used.annotations,
        ..ObjectMeta::default()
    })
}

/// The used part of a Node's spec.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedNodeSpec {
    /// The first of its pod CIDRs.
    #[serde(rename = "podCIDR", default)]
    pub pod_cidr: Option<String>,
    /// All of its pod CIDRs, one of each family.
    #[serde(rename = "podCIDRs", default)]
    pub pod_cidrs: Option<Vec<String>>,
    /// The cloud provider's name for it.
    #[serde(rename = "providerID", default)]
    pub provider_id: Option<String>,
    /// All of its taints: one of them may be the startup taint.
    #[serde(default)]
    pub taints: Option<Vec<Taint>>,
}

/// The used part of a Node's status.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedNodeStatus {
    /// Resources for pods; `pods` is the number of pods.
    #[serde(default)]
    pub allocatable: Option<BTreeMap<String, Quantity>>,
    /// All resources: memory and cpu.
    #[serde(default)]
    pub capacity: Option<BTreeMap<String, Quantity>>,
    /// Kernel, operating system, boot id.
    #[serde(default)]
    pub node_info: Option<NodeSystemInfo>,
    /// Only `Ready` is used.
    #[serde(default)]
    pub conditions: Option<Vec<ObservedCondition>>,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Option<Vec<NodeAddress>>,
}

/// A condition of a Node, without its times: they change with every heartbeat.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ObservedCondition {
    /// Such as `Ready`.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
}

/// The taint that keeps pods off a node until its profile is first Ready.
pub const STARTUP_TAINT: &str = "nettune.dev/not-ready";

/// A Node's condition `Ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    True,
    /// `False`, or no condition.
    False,
    /// `Unknown`: its kubelet has stopped reporting.
    Unknown,
}

impl Readiness {
    pub(crate) fn is_true(self) -> bool {
        self == Self::True
    }

    fn of(conditions: Option<&[ObservedCondition]>) -> Self {
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "Ready");
        match ready.map(|ready| ready.status.as_str()) {
            Some("True") => Self::True,
            Some("Unknown") => Self::Unknown,
            _ => Self::False,
        }
    }
}

/// A Node with the startup taint, and what is needed to remove it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tainted {
    pub(crate) resource_version: Arc<str>,
    /// Its other taints.
    pub(crate) others: Vec<Taint>,
}

impl Tainted {
    fn of(node: &ObservedNode) -> Option<Arc<Self>> {
        let taints = node.spec.taints.as_deref().unwrap_or_default();
        let (ours, others): (Vec<_>, Vec<_>) =
            taints.iter().partition(|taint| taint.key == STARTUP_TAINT);
        (!ours.is_empty()).then(|| {
            let version = node.metadata.resource_version.as_deref();
            Arc::new(Self {
                resource_version: version.unwrap_or_default().into(),
                others: others.into_iter().cloned().collect(),
            })
        })
    }
}

/// A Node in the [`ClusterState`](crate::ClusterState).
#[derive(Debug, Clone)]
pub struct PlannedNode {
    pub(crate) uid: Arc<str>,
    pub(crate) labels: Labels,
    /// Boot id from its kubelet; empty if not reported.
    pub(crate) boot_id: Arc<str>,
    pub(crate) ready: Readiness,
    pub(crate) tainted: Option<Arc<Tainted>>,
    /// Whether a tuning can select it: it runs Linux and has a kernel of its own.
    pub(crate) selectable: bool,
    /// Whether it exists on a network: virtual nodes do not.
    pub(crate) real: bool,
    /// Facts from the Node, without its agent's facts.
    pub(crate) facts: NodeFacts,
    pub(crate) evidence: Evidence,
}

impl PlannedNode {
    /// Reads a Node. Missing or unreadable fields are not errors: the model assumes values for them, and the
    /// tuning's status shows that.
    #[must_use]
    pub fn new(node: &ObservedNode) -> Self {
        let meta = &node.metadata;
        let none = BTreeMap::new();
        let annotations = meta.annotations.as_ref().unwrap_or(&none);
        let labels = meta.labels.as_ref().unwrap_or(&none);
        let provider = node.spec.provider_id.as_deref();
        let cidr = pod_cidr(&node.spec);
        let addresses = node.status.addresses.as_deref().unwrap_or_default();
        let evidence = Evidence::of(annotations, provider, cidr, addresses);
        let info = node.status.node_info.as_ref();
        let os = info.map_or("linux", |info| info.operating_system.as_str());
        let real = !is_virtual(labels, annotations, provider);
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            boot_id: info.map_or("", |info| info.boot_id.as_str()).into(),
            ready: Readiness::of(node.status.conditions.as_deref()),
            tainted: Tainted::of(node),
            selectable: real && matches!(os, "linux" | ""),
            real,
            facts: NodeFacts {
                pods: pods(&node.status, cidr, &evidence),
                memory: NodeFacts::comparable(quantity(node.status.capacity.as_ref(), "memory")),
                cores: u32::try_from(quantity(node.status.capacity.as_ref(), "cpu"))
                    .unwrap_or(u32::MAX),
                kernel: info.and_then(|info| KernelVersion::parse(&info.kernel_version).ok()),
                pod_network: evidence.pod_network,
                pod_links: evidence.pod_links,
                ipv6: true,
                cloud: provider.is_some_and(is_cloud),
                same_l2_nodes: evidence::nodes_on_the_same_network(annotations),
                on_link_addresses: None,
                neighbors_peak: None,
                conntrack_peak: None,
            },
            labels: Labels::of(labels),
            evidence,
        }
    }

    /// Its facts; those from its agent take precedence.
    pub(crate) fn facts(&self, seen: Option<&ProfileFacts>) -> NodeFacts {
        let mut facts = self.facts.clone();
        let Some(seen) = seen else { return facts };
        facts.ipv6 = seen.ipv6;
        if let Some(links) = seen.pod_links {
            facts.pod_links = match links {
                nettune_crds::PodLinks::Bridge => nettune_sizing::PodLinks::Bridge,
                nettune_crds::PodLinks::PointToPoint => nettune_sizing::PodLinks::PointToPoint,
            };
        }
        facts.on_link_addresses = seen.on_link_room();
        // Its network can hold as many nodes as it has addresses.
        if let Some(addresses) = seen.on_link_addresses {
            facts.same_l2_nodes = Some(u32::try_from(addresses).unwrap_or(u32::MAX));
        }
        // A base of another series is from the kernel before an upgrade.
        if let Some(base) = seen.base_kernel.as_deref()
            && let Ok(base) = KernelVersion::parse(base)
            && facts
                .kernel
                .is_none_or(|kernel| kernel.series() == base.series())
        {
            facts.kernel = Some(base);
        }
        facts
    }
}

/// Whether a provider id is a cloud's. kind, k3s and metal3 write ids too, but do not reuse addresses soon.
fn is_cloud(provider: &str) -> bool {
    let scheme = provider.split("://").next().unwrap_or_default();
    !matches!(
        scheme,
        "" | "kind" | "k3s" | "metal3" | "metal3io" | "baremetalhost" | "kwok"
    )
}

/// Whether a Node has no kernel of its own: virtual-kubelet's and kwok's.
fn is_virtual(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    provider: Option<&str>,
) -> bool {
    labels
        .get("type")
        .is_some_and(|kind| kind == "virtual-kubelet" || kind == "kwok")
        || annotations.contains_key("kwok.x-k8s.io/node")
        || provider.is_some_and(|id| id.starts_with("kwok://"))
}

/// The IPv4 pod CIDR, else the first of any family.
fn pod_cidr(spec: &ObservedNodeSpec) -> Option<IpNet> {
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let parsed: Vec<IpNet> = all.filter_map(|cidr| cidr.parse().ok()).collect();
    parsed
        .iter()
        .find(|cidr| matches!(cidr, IpNet::V4(_)))
        .or(parsed.first())
        .copied()
}

/// The kubelet's default of `--max-pods`, if the Node does not say.
const DEFAULT_PODS: u64 = 110;

fn pods(status: &ObservedNodeStatus, cidr: Option<IpNet>, evidence: &Evidence) -> u32 {
    let reported = |from: Option<&BTreeMap<String, Quantity>>| {
        from.is_some_and(|map| map.contains_key("pods"))
            .then(|| quantity(from, "pods"))
    };
    let pods = reported(status.allocatable.as_ref())
        .or_else(|| reported(status.capacity.as_ref()))
        .unwrap_or(DEFAULT_PODS);
    let bounded = match cidr {
        Some(cidr) if evidence.pod_cidr_bounds_pods => pods.min(usable_addresses(cidr)),
        _ => pods,
    };
    u32::try_from(bounded).unwrap_or(u32::MAX)
}

/// Addresses that host-local assigns: all but the network's own, the broadcast and the gateway.
fn usable_addresses(cidr: IpNet) -> u64 {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    1_u64
        .checked_shl(bits)
        .unwrap_or(u64::MAX)
        .saturating_sub(3)
}

/// A quantity as a whole number, rounded down; 0 if it is missing or not a number.
fn quantity(map: Option<&BTreeMap<String, Quantity>>, name: &str) -> u64 {
    map.and_then(|map| map.get(name))
        .and_then(|quantity| parse_quantity(&quantity.0))
        .unwrap_or(0)
}

/// Parses the forms that a kubelet writes: plain, with a binary or decimal suffix, in thousandths,
/// with an exponent or a fraction.
fn parse_quantity(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_f64.powi(exponent)
        }
    };
    // `as` saturates: a number that is too large becomes the maximum. None is negative.
    Some((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: serde_json::Value) -> PlannedNode {
        PlannedNode::new(&serde_json::from_value(json).unwrap())
    }

    fn flannel_node(pods: &str, cidr: &str) -> PlannedNode {
        node(serde_json::json!({
            "metadata": {"name": "a", "annotations": {"flannel.alpha.coreos.com/backend-type": "vxlan"}},
            "spec": {"podCIDRs": ["fd00::/64", cidr]},
            "status": {"allocatable": {"pods": pods}}
        }))
    }

    #[test]
    fn of_metadata_only_what_is_used_is_kept() {
        let meta = serde_json::json!({
            "name": "a", "uid": "u", "resourceVersion": "7", "labels": {"b": "c"}, "annotations": {"d": "e"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}], "generation": 3
        });
        let node: ObservedNode =
            serde_json::from_value(serde_json::json!({"metadata": meta})).unwrap();
        let kept = serde_json::to_value(node.metadata).unwrap();
        let used = serde_json::json!({
            "name": "a", "uid": "u", "resourceVersion": "7", "labels": {"b": "c"}, "annotations": {"d": "e"}
        });
        assert_eq!(kept, used);
    }

    #[test]
    fn quantities_are_read_as_kubelets_write_them() {
        for (text, expected) in [
            ("110", 110),
            ("16393244Ki", 16_393_244 << 10),
            ("16Gi", 16 << 30),
            ("3920m", 3),
            ("0.5", 0),
            ("12e3", 12_000),
            ("2k", 2000),
        ] {
            assert_eq!(parse_quantity(text), Some(expected), "{text}");
        }
        assert_eq!(parse_quantity("lots"), None);
        assert_eq!(parse_quantity("5x"), None);
    }

    #[test]
    fn a_pod_cidr_bounds_the_pods_where_its_plugin_hands_it_out() {
        assert_eq!(flannel_node("110", "10.1.0.0/26").facts.pods, 61);
        assert_eq!(flannel_node("110", "10.1.0.0/24").facts.pods, 110);
    }

    #[test]
    fn a_node_that_says_nothing_is_guessed_and_selectable() {
        let planned = node(serde_json::json!({"metadata": {"name": "a"}}));
        assert_eq!(planned.facts.pods, 110);
        assert!(planned.selectable);
    }

    #[test]
    fn windows_and_virtual_nodes_are_not_selectable() {
        let windows = node(serde_json::json!({
            "metadata": {"name": "a"},
            "status": {"nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "10.0",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "windows",
                "osImage": "", "systemUUID": ""}}
        }));
        assert!(!windows.selectable && windows.real);
        let kwok = node(serde_json::json!({"metadata": {"name": "a", "labels": {"type": "kwok"}}}));
        assert!(!kwok.selectable && !kwok.real);
    }

    #[test]
    fn what_the_agent_has_seen_outweighs_the_guess() {
        let planned = flannel_node("110", "10.1.0.0/24");
        let seen = ProfileFacts {
            ipv6: false,
            pod_links: Some(nettune_crds::PodLinks::PointToPoint),
            on_link_addresses: Some(65_536),
            base_kernel: Some("5.4.233".into()),
            ..ProfileFacts::default()
        };
        let facts = planned.facts(Some(&seen));
        assert!(!facts.ipv6);
        assert_eq!(facts.pod_links, nettune_sizing::PodLinks::PointToPoint);
        assert_eq!(facts.on_link_addresses, Some(65_536));
        assert_eq!(facts.kernel, KernelVersion::parse("5.4.233").ok());
    }

    #[test]
    fn a_small_ipv4_network_does_not_bound_the_ipv6_table() {
        let planned = flannel_node("110", "10.1.0.0/24");
        let with = |addresses, prefix: &str| {
            let seen = ProfileFacts {
                on_link_addresses: addresses,
                on_link_prefixes_ipv6: vec![prefix.to_owned()],
                ..ProfileFacts::default()
            };
            let facts = planned.facts(Some(&seen));
            (facts.on_link_addresses, facts.same_l2_nodes)
        };
        assert_eq!(
            with(Some(256), "2001:db8::/64"),
            (Some(u64::MAX), Some(256))
        );
        assert_eq!(with(Some(256), "2001:db8::/118"), (Some(1024), Some(256)));
        assert_eq!(with(Some(256), "2001:db8::/124"), (Some(256), Some(256)));
        assert_eq!(with(None, "2001:db8::/64"), (None, None));
    }

    #[test]
    fn the_base_of_a_kernel_that_ran_before_an_upgrade_is_not_believed() {
        let mut planned = flannel_node("110", "10.1.0.0/24");
        planned.facts.kernel = KernelVersion::parse("6.1.0-18-amd64").ok();
        let seen = ProfileFacts {
            base_kernel: Some("5.4.233".into()),
            ..ProfileFacts::default()
        };
        assert_eq!(planned.facts(Some(&seen)).kernel, planned.facts.kernel);
    }
}
