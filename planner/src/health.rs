//! Unresponsive agents, and the startup taint.

pub(crate) mod agent;
pub(crate) mod startup_taint;
