//! What `kubectl nettune` and an agent without a cluster need in place of an API server: tunings
//! from files, checked against the schema, and tables and errors for
//! the terminal.

pub mod error;
pub mod manifest;
pub mod schema;
pub mod table;
