//! From arguments to a plan, with the code of the operator.

use std::collections::BTreeSet;

use kube::ResourceExt;
use nettune_crds::{InvalidTuning, NodeNetworkTuning, NodeNetworkTuningSpec, ProfileSysctl};
use nettune_planner::{ClusterState, group_nodes};
use nettune_sizing::{ClusterFacts, NodeFacts, PodLinks, PodNetwork, Policy, Sizes, Warning, size};

use crate::args::{self, PlanArgs};
use crate::input::{self, InputError};
use crate::report::{Facts, Group, Plan};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("-f and --nodes-from cannot both read from stdin; use a file for one of them")]
    StdinTwice,
    #[error(
        "the file given with -f contains {tunings} tunings; use a file with 1 tuning, or add --nodes-from to select nodes by labels"
    )]
    SeveralTunings { tunings: usize },
    #[error("--size-for-nodes needs `spec.neighbors` in tuning {tuning}")]
    NoNeighbors { tuning: String },
    #[error("tuning {tuning} is invalid")]
    Tuning {
        tuning: String,
        source: InvalidTuning,
    },
}

pub(crate) fn plan(args: &PlanArgs) -> Result<Plan, PlanError> {
    let from_stdin = |path: &Option<_>| path.as_deref() == Some("-".as_ref());
    if from_stdin(&args.filename) && from_stdin(&args.nodes_from) {
        return Err(PlanError::StdinTwice);
    }
    let mut tunings = input::tunings(args.filename.as_deref())?;
    if args.size_for_nodes.is_some() {
        for tuning in &mut tunings {
            let name = tuning.name_any();
            let neighbors = tuning.spec.neighbors.as_mut();
            let neighbors = neighbors.ok_or(PlanError::NoNeighbors { tuning: name })?;
            neighbors.size_for_nodes = args.size_for_nodes;
        }
    }
    match &args.nodes_from {
        Some(path) => Ok(of_nodes(&input::nodes(path)?, &tunings)),
        None => match &tunings[..] {
            [tuning] => of_flags(args, tuning),
            several => Err(PlanError::SeveralTunings {
                tunings: several.len(),
            }),
        },
    }
}

/// A cluster of equal nodes. The tuning applies to all of them: they have no labels.
fn of_flags(args: &PlanArgs, tuning: &NodeNetworkTuning) -> Result<Plan, PlanError> {
    let name = tuning.name_any();
    let policy = Policy::try_from(&tuning.spec).map_err(|source| PlanError::Tuning {
        tuning: name.clone(),
        source,
    })?;
    let cluster = ClusterFacts {
        nodes: args.nodes,
        pods: u64::from(args.nodes) * u64::from(args.pods_per_node),
    };
    let node = NodeFacts {
        pods: args.pods_per_node,
        memory: args.memory,
        cores: args.cores,
        kernel: Some(args.kernel),
        pod_network: match args.pod_network {
            None | Some(args::PodNetwork::Overlay) => PodNetwork::Overlay,
            Some(args::PodNetwork::Routed) => PodNetwork::Routed,
            Some(args::PodNetwork::Flat) => PodNetwork::Flat,
        },
        pod_links: match args.pod_links {
            None | Some(args::PodLinks::Bridge) => PodLinks::Bridge,
            Some(args::PodLinks::PointToPoint) => PodLinks::PointToPoint,
        },
        ipv6: true,
        cloud: args.cloud,
        same_l2_nodes: None,
        on_link_addresses: None,
        neighbors_peak: None,
        conntrack_peak: None,
    };
    let source = match args.pod_network {
        Some(_) => "as given",
        None => "default",
    };
    let sizes = size(&policy, &cluster, &node);
    let nodes = usize::try_from(args.nodes).unwrap_or(usize::MAX);
    let facts = facts(&node, source, &tuning.spec);
    Ok(Plan {
        groups: vec![group(name, nodes, Vec::new(), facts, &sizes)],
        not_selected: Vec::new(),
    })
}

/// A cluster described by its Nodes.
fn of_nodes(nodes: &[nettune_planner::ObservedNode], tunings: &[NodeNetworkTuning]) -> Plan {
    let cluster = ClusterState::of(nodes, tunings, []);
    let mut groups: Vec<Group> = Vec::new();
    let mut not_selected: BTreeSet<String> = nodes.iter().map(ResourceExt::name_any).collect();
    for (alike, names) in group_nodes(&cluster) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        for name in &names {
            not_selected.remove(name);
        }
        let tuning = tunings
            .iter()
            .find(|tuning| tuning.name_any() == *alike.tuning);
        let none = NodeNetworkTuningSpec::default();
        let spec = tuning.map_or(&none, |tuning| &tuning.spec);
        let facts = facts(&alike.facts, &alike.evidence, spec);
        let name = alike.tuning.to_string();
        add(
            &mut groups,
            group(name, alike.nodes, names, facts, &alike.sizes),
        );
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.nodes));
    Plan {
        groups,
        not_selected: not_selected.into_iter().collect(),
    }
}

fn group(
    tuning: String,
    nodes: usize,
    node_names: Vec<String>,
    facts: Facts,
    sizes: &Sizes,
) -> Group {
    Group {
        tuning,
        nodes,
        node_names,
        facts,
        facts_differ: Vec::new(),
        sysctls: sizes.sysctls.iter().map(ProfileSysctl::from).collect(),
        warnings: sizes
            .warnings
            .iter()
            .map(|Warning(text)| text.clone())
            .collect(),
    }
}

/// Adds nodes to the group with the same values, or as a new group. The larger set comes first; the
/// group keeps its reasons.
fn add(groups: &mut Vec<Group>, new: Group) {
    let same = |known: &&mut Group| known.tuning == new.tuning && same_values(known, &new);
    let Some(known) = groups.iter_mut().find(same) else {
        return groups.push(new);
    };
    known.nodes += new.nodes;
    known.node_names.extend(new.node_names);
    known.node_names.sort();
    for field in known.facts.differences(&new.facts) {
        if !known.facts_differ.contains(&field) {
            known.facts_differ.push(field);
        }
    }
    for warning in new.warnings {
        if !known.warnings.contains(&warning) {
            known.warnings.push(warning);
        }
    }
}

fn same_values(one: &Group, other: &Group) -> bool {
    let wanted = |sysctl: &ProfileSysctl| {
        let ProfileSysctl {
            name, rule, value, ..
        } = sysctl;
        (name.clone(), *rule, value.clone())
    };
    one.sysctls.len() == other.sysctls.len()
        && one
            .sysctls
            .iter()
            .map(wanted)
            .eq(other.sysctls.iter().map(wanted))
}

fn facts(node: &NodeFacts, source: &str, spec: &NodeNetworkTuningSpec) -> Facts {
    let asked = spec
        .neighbors
        .as_ref()
        .map(|neighbors| neighbors.pod_network);
    let (network, source) = match asked.unwrap_or_default() {
        nettune_crds::PodNetwork::Overlay => ("Overlay", "the tuning"),
        nettune_crds::PodNetwork::Routed => ("Routed", "the tuning"),
        nettune_crds::PodNetwork::Flat => ("Flat", "the tuning"),
        nettune_crds::PodNetwork::Auto => match node.pod_network {
            PodNetwork::Overlay => ("Overlay", source),
            PodNetwork::OverlayIpip => ("Overlay (IPIP)", source),
            PodNetwork::Routed => ("Routed", source),
            PodNetwork::Flat => ("Flat", source),
        },
    };
    Facts {
        pods: node.pods,
        pod_network: network,
        pod_network_from: source.to_owned(),
        pod_links: match node.pod_links {
            PodLinks::Bridge => "Bridge",
            PodLinks::PointToPoint => "PointToPoint",
        },
        kernel: node
            .kernel
            .map_or_else(|| "unknown".to_owned(), |kernel| kernel.to_string()),
        memory_mib: node.memory >> 20,
        cores: node.cores,
        ipv6: node.ipv6,
        cloud: node.cloud,
    }
}
