//! Recordings on the host: every kernel by its Rust twin.

pub(super) mod executor;
pub(super) mod host_memory;
