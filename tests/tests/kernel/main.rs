//! What needs a real kernel, or programs that come with one.

mod clocks;
mod harness;
mod kill_points;
mod main_job;
mod relief;
mod rivals;
mod rules;
mod signals;
