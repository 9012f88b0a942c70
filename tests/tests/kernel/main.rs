//! What needs a real kernel, or programs that come with one.

mod clocks;
mod e2e;
mod harness;
mod kill_points;
mod relief;
mod rivals;
mod rules;
mod signals;
