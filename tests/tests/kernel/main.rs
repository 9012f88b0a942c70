//! What needs a real kernel, or programs that come with one.

mod clocks;
mod conflicts;
mod e2e;
mod harness;
mod kill_points;
mod overflow;
mod pressure;
mod rules;
