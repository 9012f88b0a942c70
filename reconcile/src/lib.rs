//! Decides for one node: from its desired state and what its kernel shows to the next effect.
//!
//! [`step::step`] is pure: no I/O, no clock, no async. The agent performs the effect, records its outcome
//! in the memory, reads the kernel, and calls `step` again.

mod contention;
pub mod desired;
pub mod drift;
pub mod effect;
mod errors;
mod known_writers;
pub mod memory;
pub mod observed;
pub mod outcome;
mod plan;
mod report;
pub mod step;
mod tables;
