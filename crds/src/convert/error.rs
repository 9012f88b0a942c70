//! Why a tuning cannot be used.

use nettune_sizing::{InvalidKey, InvalidPolicy, InvalidValue};

use crate::convert::node_labels::InvalidSelector;

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
