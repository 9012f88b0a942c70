//! The real `decide` and the real `step`, run through every interleaving of small clusters.
//!
//! See docs/design/0012-model-checking.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "what the models are made of is written here, and how many states each has is to be seen"
)]

mod api;
mod check;
mod cluster;
mod host;
mod intern;
mod kernel;
mod leader;
mod liveness;
mod nodes;
mod planted;
mod release;
mod rollout;
mod rules;
mod specs;
