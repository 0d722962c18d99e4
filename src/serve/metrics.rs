//! Counters of a running server, which `/metrics` shows.

use std::sync::atomic::AtomicU64;

/// Counters and gauges. The engine writes those about jobs, the server those about requests.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Sequences that are being read or answered.
    pub running: AtomicU64,
    /// Jobs that wait for memory or for their turn.
    pub waiting: AtomicU64,
    /// Bytes reserved for the caches of running sequences, and the limit.
    pub cache_bytes: AtomicU64,
    pub cache_limit_bytes: AtomicU64,
    /// Bytes of stored prefixes.
    pub prefix_bytes: AtomicU64,
    /// Tokens of prompts, those among them that came from stored prefixes, and generated tokens.
    pub prompt_tokens: AtomicU64,
    pub cached_tokens: AtomicU64,
    pub generated_tokens: AtomicU64,
    /// Jobs that were dropped because nobody waits for them, or because their deadline passed.
    pub cancelled: AtomicU64,
    pub expired: AtomicU64,
}
