//! The agent of one node: it looks at the kernel, decides on one effect, performs it, and looks again.
//!
//! What knows how is pure: [`step::step`], with the rules it is made of beside it. Everything else
//! fetches its input ([`procfs`], [`counters`], [`facts`], [`state`], [`link`]) or performs its
//! effects ([`agent`]).

pub mod agent;
pub mod clock;
mod conntrack;
pub mod counters;
mod doorbell;
pub mod drift;
pub mod facts;
pub mod flannel;
pub mod goal;
pub mod host;
pub mod inspection;
mod judge;
mod kernel_file;
pub mod key_report;
pub mod link;
pub mod live;
pub mod memory;
pub mod metrics;
mod mounts;
mod netlink;
mod order;
mod outage;
mod pace;
pub mod patch;
pub mod policy;
pub mod pressure;
pub mod privilege;
pub mod procfs;
pub mod profiles;
mod refusal;
pub mod rehearsal;
mod relief;
pub mod report;
mod restore;
mod rivals;
mod routes;
pub mod signals;
pub mod standalone;
pub mod state;
mod state_file;
pub mod step;
mod suspects;
pub mod tables;
mod thresholds;
mod ticks;
