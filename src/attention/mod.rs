//! Floor 4: Lag-Relative Sparse Attention, sliding windows, dense attention, and the KV cache.
//!
//! LRSA is arXiv 2506.11498 with the scores of LagKV (arXiv 2504.04704). Dense attention runs
//! through the same kernels, with one run of keys. Start with `config.rs` for the symbols and
//! `layout.rs` for the visible keys. Then read `score.rs`, `select.rs` and `attend.rs` in the order
//! of the data flow, `cache.rs`, `decode.rs` and `sequences.rs` for generation, and `stream.rs` for sequences that
//! train chunk by chunk.

mod attend;
mod attend_stream;
mod backward;
mod cache;
mod cache_part;
mod cache_step;
mod chunk_tables;
mod config;
mod decode;
mod decode_vectors;
mod grown_cache;
mod layout;
mod move_rows;
mod reference;
mod saved_cache;
mod score;
mod select;
mod sequences;
mod shared;
mod store;
mod stream;
mod tile_table;
mod tiles;
mod work;

pub use attend::attend_training;
pub use attend_stream::{Pass, attend_streamed};
pub use cache::Cache;
pub use cache_part::CachePart;
pub use cache_step::CacheStep;
pub use config::{Attention, Heads, LayerAttention, Lrsa, Selection, cache_name};
pub use layout::{TrainingLayout, TrainingLayouts};
pub use saved_cache::CacheEntries;
pub use score::Pairs;
pub use select::select_pairs;
pub use sequences::attend_sequences;
pub use stream::{Stream, StreamChunk, chunks_of};
pub use tiles::{KeyTile, QueryTile};

use crate::gpu::KernelDef;
use crate::kernels::case::Case;

/// The cases of every attention family.
pub fn cases() -> Vec<Case> {
    [
        score::cases(),
        select::cases(),
        attend::cases(),
        attend_stream::cases(),
        decode::cases(),
        store::cases(),
        move_rows::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Every attention kernel with one set of values for its constants.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [
        score::kernels(),
        select::kernels(),
        attend::kernels(),
        decode::kernels(),
        backward::kernels(),
        store::kernels(),
        move_rows::kernels(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
