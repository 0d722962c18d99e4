//! Recordings on the host: every kernel by its Rust reference.

pub(super) mod executor;
pub(super) mod host_memory;
