//! The real `decide` and `step` in all interleavings of small clusters.
//!
//! See docs/design/0010-model-checking.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "what the models are made of is written here, and how many states each has is to be seen"
)]

mod action;
mod agent;
mod api;
mod check;
mod cluster;
mod flight;
mod host;
mod intern;
mod leader;
mod liveness;
mod models;
mod rules;
mod setup;
mod state;
