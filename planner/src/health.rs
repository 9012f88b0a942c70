//! Signs of life of agents, and the taint that nodes start with.

pub(crate) mod agent;
pub(crate) mod startup_taint;
