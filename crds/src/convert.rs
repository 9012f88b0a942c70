//! From the API's types to those of [`nettune_sizing`], which can only exist valid.

use nettune_sizing::{
    ConntrackPolicy, DesiredValue, EntryBounds, InvalidBounds, InvalidKey, InvalidPolicy,
    InvalidValue, IpvsPolicy, NeighborPolicy, PodNetworkChoice, Policy, SizedSysctl, SysctlKey,
    Thresholds, Value,
};

use crate::{
    ConnReuseMode, ConntrackSpec, InvalidSelector, NeighborsSpec, NodeNetworkTuningSpec,
    PodNetwork, ProfileSysctl, Rule, ThresholdsSpec,
};

/// Why a tuning that was let in by an older schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTuning {
    /// A number that is out of its range.
    #[error("spec.{field} is {value}; write {least} to {most}")]
    OutOfRange {
        /// Its path in the spec.
        field: &'static str,
        /// As given.
        value: i64,
        /// The least.
        least: i64,
        /// The most.
        most: i64,
    },
    /// A number of nodes that is none.
    #[error(
        "spec.rollout.maxFailed is {value:?}; write a number of nodes like 3, or a share of those written like 5%"
    )]
    MaxFailed {
        /// As given.
        value: String,
    },
    /// A sysctl's name.
    #[error("spec.sysctls")]
    Key(#[from] InvalidKey),
    /// A sysctl's value.
    #[error("spec.sysctls: {name}")]
    Value {
        /// The sysctl's name.
        name: String,
        /// What is wrong with it.
        source: InvalidValue,
    },
    /// Values that do not go together.
    #[error("spec")]
    Policy(#[from] InvalidPolicy),
    /// The node selector.
    #[error("spec.nodeSelector")]
    Selector(#[from] InvalidSelector),
}

impl InvalidTuning {
    /// The error with its causes in one sentence, for a condition's message.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            text.push_str(": ");
            text.push_str(&source.to_string());
            cause = source.source();
        }
        text
    }
}

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

/// 128 Mi entries take 49 GiB: more is a typing error, whose buckets alone would take gigabytes at
/// once (8 bytes for each, allocated when they are written).
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

pub(crate) fn in_range(
    field: &'static str,
    value: i64,
    least: i64,
    most: i64,
) -> Result<u32, InvalidTuning> {
    let out_of_range = InvalidTuning::OutOfRange {
        field,
        value,
        least,
        most,
    };
    if value < least || value > most {
        return Err(out_of_range);
    }
    u32::try_from(value).map_err(|_| out_of_range)
}

/// Why one sysctl of a profile cannot be used; the others are not held up by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProfileSysctl {
    /// Not on the allow-list that is compiled in.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// No value.
    #[error(transparent)]
    Value(#[from] InvalidValue),
    /// A limit that is no number.
    #[error("a limit must be a whole number from 0 to 4294967295, not {value:?}")]
    LimitNotANumber {
        /// As given.
        value: String,
    },
    /// A ceiling below the value.
    #[error(transparent)]
    Bounds(#[from] InvalidBounds),
}

impl ProfileSysctl {
    /// What the agent takes from it.
    ///
    /// # Errors
    /// When the name is not on the allow-list, the value is none, or a limit's bounds are no
    /// numbers in order.
    pub fn parse(&self) -> Result<(SysctlKey, DesiredValue), InvalidProfileSysctl> {
        let key = SysctlKey::parse(&self.name)?;
        let value = Value::parse(&self.value)?;
        let wanted = match self.rule {
            Rule::Exact => DesiredValue::Exact(value),
            Rule::AtLeast => {
                let floor = limit(value.as_str())?;
                let ceiling = match self.ceiling {
                    None => floor,
                    Some(ceiling) => limit(&ceiling.to_string())?,
                };
                DesiredValue::limit(floor, ceiling)?
            }
        };
        Ok((key, wanted))
    }
}

fn limit(text: &str) -> Result<u64, InvalidProfileSysctl> {
    text.parse::<u32>()
        .map(u64::from)
        .map_err(|_| InvalidProfileSysctl::LimitNotANumber {
            value: text.to_owned(),
        })
}

impl From<&SizedSysctl> for ProfileSysctl {
    fn from(sized: &SizedSysctl) -> Self {
        let (rule, ceiling) = match &sized.wanted {
            DesiredValue::Exact(_) => (Rule::Exact, None),
            DesiredValue::AtLeast(bounds) => (
                Rule::AtLeast,
                Some(i64::try_from(bounds.ceiling()).unwrap_or(i64::MAX)),
            ),
        };
        Self {
            name: sized.key.name().to_owned(),
            rule,
            value: sized.wanted.value().as_str().to_owned(),
            ceiling,
            reason: sized.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SysctlEntry;

    fn entry(name: &str, value: &str) -> SysctlEntry {
        SysctlEntry {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn a_tuning_from_an_older_schema_is_refused_with_the_path_of_the_field() {
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
            error.sentence(),
            "spec.neighbors.thresholds.gcThresh1 is -1; write 0 to 2147483647"
        );
    }

    #[test]
    fn one_bad_sysctl_names_itself() {
        let spec = NodeNetworkTuningSpec {
            sysctls: vec![
                entry("net.core.somaxconn", "4096"),
                entry("kernel.panic", "1"),
            ],
            ..NodeNetworkTuningSpec::default()
        };
        let error = Policy::try_from(&spec).unwrap_err().sentence();
        assert!(error.starts_with("spec.sysctls: "), "{error}");
        assert!(error.contains("kernel.panic"), "{error}");
    }

    #[test]
    fn a_profile_says_again_what_was_sized() {
        let sized = SizedSysctl {
            key: SysctlKey::parse("net.netfilter.nf_conntrack_max").unwrap(),
            wanted: DesiredValue::at_least(131_072, 1_048_576),
            reason: "because".into(),
        };
        let (key, wanted) = ProfileSysctl::from(&sized).parse().unwrap();
        assert_eq!((key, wanted), (sized.key, sized.wanted));
    }

    #[test]
    fn a_limit_must_be_a_number() {
        let sysctl = ProfileSysctl {
            name: "net.netfilter.nf_conntrack_max".into(),
            rule: Rule::AtLeast,
            value: "lots".into(),
            ceiling: None,
            reason: String::new(),
        };
        assert!(matches!(
            sysctl.parse(),
            Err(InvalidProfileSysctl::LimitNotANumber { .. })
        ));
    }
}
