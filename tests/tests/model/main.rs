//! The real `decide` and the real `step`, run through every interleaving of small clusters.
//!
//! See docs/design/0012-model-checking.md.

mod api;
mod check;
mod cluster;
mod host;
mod intern;
mod leader;
mod liveness;
mod planted;
mod nodes;
mod release;
mod rollout;
mod rules;
mod specs;
