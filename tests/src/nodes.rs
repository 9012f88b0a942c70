//! Node objects as kubelets create them.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{
    Node, NodeAddress, NodeCondition, NodeSpec as Spec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

/// Requests on their way at once; more do not make the API server faster.
const CONCURRENCY: usize = 64;

/// The content of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    pub name: String,
    /// Labels beside those that every kubelet sets.
    pub labels: BTreeMap<String, String>,
    /// Annotations, for example those of a CNI.
    pub annotations: BTreeMap<String, String>,
    /// Its pod networks, one for each family.
    pub pod_cidrs: Vec<String>,
    /// Its internal addresses, one for each family.
    pub internal_ips: Vec<String>,
    /// Pods it can run, `status.allocatable.pods`.
    pub pods: u32,
    /// Memory, `status.capacity.memory`, in KiB as kubelets write it.
    pub memory_kib: u64,
    pub cpus: u32,
    /// `uname -r`.
    pub kernel: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Set by cloud providers, for example `aws:///eu-west-1a/i-0123456789abcdef0`.
    pub provider_id: Option<String>,
    /// Its `Ready` condition.
    pub ready: bool,
}

impl NodeSpec {
    /// A Linux worker with 110 pods, 8 processors, 16 GiB and a /24 for its pods; its addresses and boot id derive from
    /// `index`, at most 65,535.
    pub fn worker(name: &str, index: u16) -> Self {
        let [high, low] = index.to_be_bytes();
        Self {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            // 65,536 /24s need a whole /8; the addresses of the nodes stay out of it.
            pod_cidrs: vec![format!("11.{high}.{low}.0/24")],
            internal_ips: vec![format!("10.1.{high}.{low}")],
            pods: 110,
            memory_kib: 16_384_000,
            cpus: 8,
            kernel: "6.1.0-56-cloud-amd64".to_owned(),
            boot_id: format!("00000000-0000-4000-8000-{index:012x}"),
            provider_id: None,
            ready: true,
        }
    }

    /// The object, with its status: like a kubelet's, it is created in one request.
    pub fn node(&self) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.all_labels()),
                annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(Spec {
                pod_cidr: self.pod_cidrs.first().cloned(),
                pod_cidrs: (!self.pod_cidrs.is_empty()).then(|| self.pod_cidrs.clone()),
                provider_id: self.provider_id.clone(),
                ..Spec::default()
            }),
            status: Some(self.status()),
        }
    }

    fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            ("kubernetes.io/arch".to_owned(), "amd64".to_owned()),
            ("kubernetes.io/hostname".to_owned(), self.name.clone()),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ]);
        labels.extend(self.labels.clone());
        labels
    }

    fn status(&self) -> NodeStatus {
        let resources = BTreeMap::from([
            ("cpu".to_owned(), Quantity(self.cpus.to_string())),
            (
                "memory".to_owned(),
                Quantity(format!("{}Ki", self.memory_kib)),
            ),
            ("pods".to_owned(), Quantity(self.pods.to_string())),
        ]);
        let address = |type_: &str, address: &String| NodeAddress {
            address: address.clone(),
            type_: type_.to_owned(),
        };
        let internal = self.internal_ips.iter().map(|ip| address("InternalIP", ip));
        NodeStatus {
            addresses: Some(internal.chain([address("Hostname", &self.name)]).collect()),
            allocatable: Some(resources.clone()),
            capacity: Some(resources),
            conditions: Some(vec![ready_condition(self.ready)]),
            node_info: Some(NodeSystemInfo {
                architecture: "amd64".to_owned(),
                boot_id: self.boot_id.clone(),
                container_runtime_version: "containerd://2.1.4".to_owned(),
                kernel_version: self.kernel.clone(),
                kubelet_version: "v1.37.1".to_owned(),
                machine_id: self.boot_id.replace('-', ""),
                operating_system: "linux".to_owned(),
                os_image: "Debian GNU/Linux 12 (bookworm)".to_owned(),
                system_uuid: self.boot_id.clone(),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }
    }
}

fn ready_condition(ready: bool) -> NodeCondition {
    let now = Some(Time(k8s_openapi::jiff::Timestamp::now()));
    let (status, reason, message) = if ready {
        ("True", "KubeletReady", "kubelet is posting ready status")
    } else {
        (
            "False",
            "KubeletNotReady",
            "container runtime network not ready",
        )
    };
    NodeCondition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: now.clone(),
        last_transition_time: now,
    }
}

pub async fn create(client: &kube::Client, node: &NodeSpec) -> kube::Result<Node> {
    Api::all(client.clone())
        .create(&PostParams::default(), &node.node())
        .await
}

/// Creates Nodes, many requests at once.
pub async fn create_many(
    client: &kube::Client,
    nodes: impl IntoIterator<Item = NodeSpec>,
) -> kube::Result<()> {
    let create = |node: NodeSpec| async move { create(client, &node).await.map(drop) };
    stream::iter(nodes)
        .map(create)
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// Deletes Nodes by name; one that is gone already is no error.
pub async fn delete_many(
    client: &kube::Client,
    names: impl IntoIterator<Item = String>,
) -> kube::Result<()> {
    let nodes: &Api<Node> = &Api::all(client.clone());
    let delete = |name: String| async move {
        match nodes.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            result => result.map(drop),
        }
    };
    stream::iter(names)
        .map(delete)
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// Writes a Node's status as its kubelet would after something changed: kernel, boot id, capacity, readiness.
pub async fn update_status(client: &kube::Client, node: &NodeSpec) -> kube::Result<Node> {
    let patch = Patch::Merge(json!({"status": node.status()}));
    Api::all(client.clone())
        .patch_status(&node.name, &PatchParams::default(), &patch)
        .await
}

/// Sets a label, or takes it away where the value is `None`.
pub async fn label(
    client: &kube::Client,
    node: &str,
    key: &str,
    value: Option<&str>,
) -> kube::Result<Node> {
    let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
    Api::all(client.clone())
        .patch(node, &PatchParams::default(), &patch)
        .await
}
