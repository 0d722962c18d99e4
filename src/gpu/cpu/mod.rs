//! Recordings on the host: every kernel runs as its Rust reference.

pub(super) mod executor;
pub(super) mod host_memory;
mod storage;
