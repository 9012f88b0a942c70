//! `spec.rollout` and `spec.resize` of a tuning in a form that is always valid.

use std::fmt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::convert::error::{InvalidTuning, in_range};
use crate::tuning::NodeNetworkTuningSpec;
use crate::tuning::rollout::{ResizeSpec, RolloutSpec, RolloutType};

/// How changes reach the nodes of a tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rollout {
    pub all_at_once: bool,
    /// The rollout stops when more nodes fail.
    pub max_failed: MaxFailed,
    /// A node has passed when it has been Ready for this long.
    pub min_ready: Duration,
    /// A node has failed when it is not ready after this time; its agent is unresponsive when it has not
    /// reported for this long.
    pub node_deadline: Duration,
    pub paused: bool,
    /// A limit is lowered when the smaller size has been sufficient for this long.
    pub shrink_after: Duration,
}

/// The maximum number of failed nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaxFailed {
    Nodes(u32),
    /// Percentage of the nodes written so far.
    Percent(u32),
}

impl MaxFailed {
    /// The number of nodes if this many are written, rounded down.
    #[must_use]
    pub fn of(self, written: u32) -> u32 {
        match self {
            Self::Nodes(nodes) => nodes,
            Self::Percent(percent) => {
                let share = u64::from(written) * u64::from(percent) / 100;
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
    }
}

impl fmt::Display for MaxFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Default for Rollout {
    /// The defaults of the schema. They also apply to the nodes of a deleted tuning.
    fn default() -> Self {
        Self {
            all_at_once: false,
            max_failed: MaxFailed::Percent(5),
            min_ready: Duration::from_secs(60),
            node_deadline: Duration::from_secs(120),
            paused: false,
            shrink_after: Duration::from_secs(3600),
        }
    }
}

impl TryFrom<&NodeNetworkTuningSpec> for Rollout {
    type Error = InvalidTuning;

    fn try_from(spec: &NodeNetworkTuningSpec) -> Result<Self, Self::Error> {
        let RolloutSpec {
            type_,
            max_failed,
            min_ready_seconds,
            node_deadline_seconds,
            paused,
        } = &spec.rollout;
        let ResizeSpec {
            shrink_after_seconds,
        } = &spec.resize;
        let seconds = |field, value, least, most| {
            in_range(field, value, least, most).map(|seconds| Duration::from_secs(seconds.into()))
        };
        Ok(Self {
            all_at_once: *type_ == RolloutType::AllAtOnce,
            max_failed: parse(max_failed)?,
            min_ready: seconds("rollout.minReadySeconds", *min_ready_seconds, 0, 86_400)?,
            node_deadline: seconds(
                "rollout.nodeDeadlineSeconds",
                *node_deadline_seconds,
                1,
                86_400,
            )?,
            paused: *paused,
            shrink_after: seconds(
                "resize.shrinkAfterSeconds",
                *shrink_after_seconds,
                0,
                604_800,
            )?,
        })
    }
}

fn parse(max_failed: &IntOrString) -> Result<MaxFailed, InvalidTuning> {
    match max_failed {
        IntOrString::Int(nodes) => {
            in_range("rollout.maxFailed", i64::from(*nodes), 0, 100_000).map(MaxFailed::Nodes)
        }
        IntOrString::String(text) => text
            .strip_suffix('%')
            .and_then(|percent| percent.parse().ok())
            .filter(|percent| *percent <= 100)
            .map(MaxFailed::Percent)
            .ok_or_else(|| InvalidTuning::MaxFailed {
                value: text.chars().take(64).collect(),
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(max_failed: IntOrString) -> Result<Rollout, InvalidTuning> {
        let mut spec = NodeNetworkTuningSpec::default();
        spec.rollout.max_failed = max_failed;
        Rollout::try_from(&spec)
    }

    #[test]
    fn defaults_equal_those_of_the_schema() {
        let spec: NodeNetworkTuningSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(Rollout::try_from(&spec), Ok(Rollout::default()));
    }

    #[test]
    fn a_percentage_is_rounded_down() {
        for (percent, written, failed) in [(5, 19, 0), (5, 20, 1), (100, 7, 7), (0, 1000, 0)] {
            assert_eq!(MaxFailed::Percent(percent).of(written), failed);
        }
        assert_eq!(MaxFailed::Nodes(3).of(1), 3);
    }

    #[test]
    fn invalid_values_are_refused_with_their_path() {
        for (value, sentence) in [
            (
                IntOrString::Int(-1),
                "spec.rollout.maxFailed is -1; must be from 0 to 100000",
            ),
            (
                IntOrString::String("101%".into()),
                "spec.rollout.maxFailed is \"101%\"; must be a number of nodes such as 3 or a percentage such as 5%",
            ),
        ] {
            assert_eq!(with(value).unwrap_err().to_string(), sentence);
        }
        let share = with(IntOrString::String("7%".into())).unwrap();
        assert_eq!(share.max_failed, MaxFailed::Percent(7));
    }
}
