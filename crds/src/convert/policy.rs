//! From the spec of a tuning to a policy of [`nettune_sizing`], which is always valid.

use nettune_sizing::{
    ConntrackPolicy, EntryBounds, IpvsPolicy, NeighborPolicy, PodNetworkChoice, Policy, SysctlKey,
    Thresholds, Value,
};

use crate::convert::error::{InvalidTuning, in_range};
use crate::tuning::NodeNetworkTuningSpec;
use crate::tuning::blocks::{
    ConnReuseMode, ConntrackSpec, NeighborsSpec, PodNetwork, ThresholdsSpec,
};

impl TryFrom<&NodeNetworkTuningSpec> for Policy {
    type Error = InvalidTuning;

    fn try_from(spec: &NodeNetworkTuningSpec) -> Result<Self, Self::Error> {
        let sysctls = spec
            .sysctls
            .iter()
            .map(|entry| {
                let key = SysctlKey::parse(&entry.name)?;
                let value = Value::parse(&entry.value).map_err(|source| InvalidTuning::Value {
                    name: entry.name.clone(),
                    source,
                })?;
                Ok((key, value))
            })
            .collect::<Result<Vec<_>, InvalidTuning>>()?;
        let mut policy = Self::default().with_sysctls(sysctls)?;
        policy.neighbors = spec.neighbors.as_ref().map(neighbors).transpose()?;
        policy.conntrack = spec.conntrack.as_ref().map(conntrack).transpose()?;
        policy.ipvs = spec.ipvs.as_ref().map(|ipvs| IpvsPolicy {
            conn_reuse_mode: match ipvs.conn_reuse_mode {
                ConnReuseMode::Auto => nettune_sizing::ConnReuseMode::Auto,
                ConnReuseMode::Disabled => nettune_sizing::ConnReuseMode::Disabled,
                ConnReuseMode::Enabled => nettune_sizing::ConnReuseMode::Enabled,
                ConnReuseMode::Unmanaged => nettune_sizing::ConnReuseMode::Unmanaged,
            },
        });
        Ok(policy)
    }
}

fn neighbors(spec: &NeighborsSpec) -> Result<NeighborPolicy, InvalidTuning> {
    let size_for_nodes = spec
        .size_for_nodes
        .map(|nodes| in_range("neighbors.sizeForNodes", nodes, 1, 100_000))
        .transpose()?;
    let thresholds = spec.thresholds.as_ref().map(thresholds).transpose()?;
    Ok(NeighborPolicy {
        pod_network: match spec.pod_network {
            PodNetwork::Auto => PodNetworkChoice::Auto,
            PodNetwork::Overlay => PodNetworkChoice::Overlay,
            PodNetwork::Routed => PodNetworkChoice::Routed,
            PodNetwork::Flat => PodNetworkChoice::Flat,
        },
        size_for_nodes,
        thresholds,
    })
}

fn thresholds(spec: &ThresholdsSpec) -> Result<Thresholds, InvalidTuning> {
    let most = i64::from(i32::MAX);
    Ok(Thresholds::new(
        in_range("neighbors.thresholds.gcThresh1", spec.gc_thresh1, 0, most)?,
        in_range("neighbors.thresholds.gcThresh2", spec.gc_thresh2, 0, most)?,
        in_range("neighbors.thresholds.gcThresh3", spec.gc_thresh3, 0, most)?,
    )?)
}

/// 128 Mi entries need 49 GiB. More is a typo, and its buckets alone would use gigabytes at once (8
/// bytes each, allocated when they are written).
const MOST_ENTRIES: i64 = 134_217_728;

fn conntrack(spec: &ConntrackSpec) -> Result<ConntrackPolicy, InvalidTuning> {
    let entries = |field, value: Option<i64>| {
        value
            .map(|value| in_range(field, value, 1, MOST_ENTRIES))
            .transpose()
    };
    Ok(ConntrackPolicy {
        connections_per_pod: in_range(
            "conntrack.connectionsPerPod",
            spec.connections_per_pod,
            1,
            1_048_576,
        )?,
        bounds: EntryBounds::new(
            entries("conntrack.minEntries", spec.min_entries)?,
            entries("conntrack.maxEntries", spec.max_entries)?,
        )?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::SysctlEntry;

    fn entry(name: &str, value: &str) -> SysctlEntry {
        SysctlEntry {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn an_out_of_range_value_is_refused_with_its_path() {
        let spec = NodeNetworkTuningSpec {
            neighbors: Some(NeighborsSpec {
                thresholds: Some(ThresholdsSpec {
                    gc_thresh1: -1,
                    gc_thresh2: 2,
                    gc_thresh3: 3,
                }),
                ..NeighborsSpec::default()
            }),
            ..NodeNetworkTuningSpec::default()
        };
        let error = Policy::try_from(&spec).unwrap_err();
        assert_eq!(
            error.to_string(),
            "spec.neighbors.thresholds.gcThresh1 is -1; must be from 0 to 2147483647"
        );
    }

    #[test]
    fn an_invalid_sysctl_is_named() {
        let spec = NodeNetworkTuningSpec {
            sysctls: vec![
                entry("net.core.somaxconn", "4096"),
                entry("kernel.panic", "1"),
            ],
            ..NodeNetworkTuningSpec::default()
        };
        let error = Policy::try_from(&spec).unwrap_err().to_string();
        assert!(error.starts_with("spec.sysctls: "), "{error}");
        assert!(error.contains("kernel.panic"), "{error}");
    }
}
