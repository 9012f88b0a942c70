//! What needs a real kernel.

mod harness;
mod main_job;
mod rules;
