//! Recordings on the host: every kernel runs as its Rust reference.

pub(super) mod executor;
pub(super) mod host_memory;
mod run_memory;
mod storage;
