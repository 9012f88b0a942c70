//! Programs that tests need: built or downloaded once, and kept in the user's cache folder.

pub mod cache;
pub mod debian;
pub mod tools;
