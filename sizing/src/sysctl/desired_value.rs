//! What a node's kernel should hold for one sysctl, and how strictly.

use crate::sysctl::value::Value;

/// The rule and the value wanted for one sysctl.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DesiredValue {
    /// This value and no other.
    Exact(Value),
    /// A limit: at least `floor`; a live value above it is left unless nettune wrote it. The node's
    /// memory bears it up to `ceiling`.
    AtLeast(Bounds),
}

/// A floor and a ceiling of a limit, in entries; never out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    floor: u64,
    ceiling: u64,
}

/// A ceiling below its floor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ceiling {ceiling} is below the floor {floor}")]
pub struct InvalidBounds {
    /// The floor that was given.
    pub floor: u64,
    /// The ceiling that was given.
    pub ceiling: u64,
}

impl Bounds {
    /// The least that the kernel should hold.
    #[must_use]
    pub fn floor(self) -> u64 {
        self.floor
    }

    /// The most that the node's memory bears.
    #[must_use]
    pub fn ceiling(self) -> u64 {
        self.ceiling
    }
}

impl DesiredValue {
    /// A number and no other.
    #[must_use]
    pub fn exactly(number: u64) -> Self {
        Self::Exact(number.into())
    }

    /// A limit of at least `floor`. A ceiling below it is lifted to it: the model's own bounds
    /// can never be out of order.
    #[must_use]
    pub fn at_least(floor: u64, ceiling: u64) -> Self {
        Self::AtLeast(Bounds {
            floor,
            ceiling: ceiling.max(floor),
        })
    }

    /// A limit whose bounds came from outside (a profile that was read).
    ///
    /// # Errors
    /// When the ceiling is below the floor.
    pub fn limit(floor: u64, ceiling: u64) -> Result<Self, InvalidBounds> {
        if ceiling < floor {
            return Err(InvalidBounds { floor, ceiling });
        }
        Ok(Self::AtLeast(Bounds { floor, ceiling }))
    }

    /// The value that is written where the kernel holds less, or another one.
    #[must_use]
    pub fn value(&self) -> Value {
        match self {
            Self::Exact(value) => value.clone(),
            Self::AtLeast(bounds) => bounds.floor.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_from_outside_must_be_in_order() {
        assert_eq!(
            DesiredValue::limit(8, 4),
            Err(InvalidBounds {
                floor: 8,
                ceiling: 4
            })
        );
    }

    #[test]
    fn the_models_own_ceiling_never_falls_below_its_floor() {
        let DesiredValue::AtLeast(bounds) = DesiredValue::at_least(8, 4) else {
            panic!("a limit")
        };
        assert_eq!((bounds.floor(), bounds.ceiling()), (8, 8));
    }
}
