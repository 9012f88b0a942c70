//! What needs a real kernel.

mod harness;
