//! Writes to the API server.

pub(crate) mod backoff;
pub(crate) mod body;
pub(crate) mod request;
pub(crate) mod writer;
