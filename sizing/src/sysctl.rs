//! Sysctls: which may be written, how they are named, and what they hold.

pub(crate) mod allow_list;
pub(crate) mod desired_value;
pub(crate) mod key;
pub mod keys;
pub(crate) mod value;
