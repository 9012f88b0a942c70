//! What needs a real API server: the harness itself, schemas, rights, the operator and agents over directories.

mod chart;
mod faults;
mod harness;
mod leader;
mod operator;
mod profile_sync;
mod running;
mod schema;
mod whole_path;
