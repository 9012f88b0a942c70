//! Everything that touches the kernel: sysctl files, counters' files, netlink, and what the process gives up.

pub mod facts;
pub(crate) mod inotify;
pub(crate) mod netlink;
pub(crate) mod proc_file;
pub(crate) mod routes;
pub mod sandbox;
pub mod sysctl;
