//! Random kills of processes.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

/// Names the seed; `cargo xtask test --seed` sets it.
pub const SEED_VARIABLE: &str = "NETTUNE_SEED";
/// Names the number of kills; `cargo xtask test --kills` sets it.
pub const KILLS_VARIABLE: &str = "NETTUNE_KILLS";

/// Kills that CI has time for.
pub const KILLS: u32 = 200;

/// The same seed kills the same processes after the same pauses, with the same changes in
/// between; what the processes do at that moment depends on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chaos {
    pub seed: u64,
    pub kills: u32,
}

impl Chaos {
    /// With a new random seed.
    pub fn new() -> Self {
        Self {
            // The standard library's hash maps have random keys; short enough to be typed.
            seed: RandomState::new().hash_one(0) % 1_000_000_000,
            kills: KILLS,
        }
    }

    /// From the environment, or with a new random seed.
    pub fn from_environment() -> Result<Self, std::num::ParseIntError> {
        let new = Self::new();
        let number = |name| std::env::var(name).ok();
        Ok(Self {
            seed: number(SEED_VARIABLE).map_or(Ok(new.seed), |seed| seed.parse())?,
            kills: number(KILLS_VARIABLE).map_or(Ok(new.kills), |kills| kills.parse())?,
        })
    }

    /// Environment variables that repeat it.
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
