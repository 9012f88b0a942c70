//! Why a tuning cannot be used.

use nettune_sizing::{InvalidKey, InvalidPolicy, InvalidValue};

use crate::convert::node_labels::InvalidSelector;

/// Why a tuning cannot be used that was made under an older schema, or read from a file. The text
/// has the path of the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTuning {
    #[error("spec.{field} is {value}; must be from {least} to {most}")]
    OutOfRange {
        field: &'static str,
        value: i64,
        least: i64,
        most: i64,
    },
    #[error(
        "spec.rollout.maxFailed is {value:?}; must be a number of nodes such as 3 or a percentage such as 5%"
    )]
    MaxFailed { value: String },
    #[error("spec.sysctls: {0}")]
    Key(#[from] InvalidKey),
    #[error("spec.sysctls: {name}: {source}")]
    Value { name: String, source: InvalidValue },
    #[error("spec: {0}")]
    Policy(#[from] InvalidPolicy),
    #[error("spec.nodeSelector: {0}")]
    Selector(#[from] InvalidSelector),
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
