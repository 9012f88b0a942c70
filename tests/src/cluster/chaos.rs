//! How many processes a test kills at random moments, and by which random numbers.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

/// Names the seed; `cargo xtask test --seed` sets it.
pub const SEED_VARIABLE: &str = "NETTUNE_SEED";
/// Names the number of kills; `cargo xtask test --kills` sets it.
pub const KILLS_VARIABLE: &str = "NETTUNE_KILLS";

/// Kills that CI has time for.
pub const KILLS: u32 = 200;

/// What a chaos is made of. The same one kills the same processes after the same pauses, and changes the same things in
/// between; what these are doing at that moment is up to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chaos {
    /// Of the random numbers.
    pub seed: u64,
    /// How many.
    pub kills: u32,
}

impl Chaos {
    /// One that nobody has seen yet.
    pub fn new() -> Self {
        Self {
            // The standard library's hash maps have random keys; short enough to be typed.
            seed: RandomState::new().hash_one(0) % 1_000_000_000,
            kills: KILLS,
        }
    }

    /// As the environment says, and else a new one.
    pub fn from_environment() -> Result<Self, std::num::ParseIntError> {
        let new = Self::new();
        let number = |name| std::env::var(name).ok();
        Ok(Self {
            seed: number(SEED_VARIABLE).map_or(Ok(new.seed), |seed| seed.parse())?,
            kills: number(KILLS_VARIABLE).map_or(Ok(new.kills), |kills| kills.parse())?,
        })
    }

    /// Variables that make it happen again.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [
            (SEED_VARIABLE, self.seed.to_string()),
            (KILLS_VARIABLE, self.kills.to_string()),
        ]
    }
}

impl Default for Chaos {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, kills } = self;
        write!(
            f,
            "{kills} kills with seed {seed} (again: cargo xtask test --tier control-plane --seed {seed} --kills {kills})"
        )
    }
}
