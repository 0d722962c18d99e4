//! Minimum FLOPs and bytes of the attention kernels, from the tile tables on the device.

use super::tiles::{KeyTile, QueryTile};
use crate::error::Result;
use crate::gpu::{DispatchView, Work};

/// The work of a kernel over query tiles that does `flops` operations per channel of each (query,
/// key) pair.
pub(super) fn query_tile_work(d: &mut DispatchView<'_>, flops: u64) -> Result<Work> {
    let tiles = d.words("tiles")?;
    let pairs = bytemuck::cast_slice(&tiles).iter().map(QueryTile::n_pairs).sum();
    Ok(work_of_pairs(d, pairs, flops))
}

/// Like [`query_tile_work`], for a kernel over key tiles.
pub(super) fn key_tile_work(d: &mut DispatchView<'_>, flops: u64) -> Result<Work> {
    let tiles = d.words("tiles")?;
    let pairs = bytemuck::cast_slice(&tiles).iter().map(KeyTile::n_pairs).sum();
    Ok(work_of_pairs(d, pairs, flops))
}

/// Work of `pairs` (query, key) pairs per head. `D4` is a quarter of the head size.
fn work_of_pairs(d: &DispatchView<'_>, pairs: u64, flops: u64) -> Work {
    d.work(flops * 4 * d.constant("D4") * d.param("n_heads") * pairs)
}
