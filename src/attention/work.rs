//! The least work of the attention kernels, from the tile tables on the device.

use super::tiles::{KeyTile, QueryTile};
use crate::error::Result;
use crate::gpu::{DispatchView, Work};

/// The work of a kernel over query tiles that spends `flops` operations on each channel of each
/// (query, key) pair.
pub(super) fn query_tile_work(d: &mut DispatchView<'_>, flops: u64) -> Result<Work> {
    let pairs = |tile: &QueryTile| {
        let n = u64::from(tile.n_queries);
        let first = [tile.n_sink, tile.n_packed, tile.n_window].map(u64::from).iter().sum::<u64>();
        n * first + n * n.saturating_sub(1) / 2
    };
    let tiles = d.words("tiles")?;
    let pairs = bytemuck::cast_slice(&tiles).iter().map(pairs).sum();
    Ok(work_of_pairs(d, pairs, flops))
}

/// As [`query_tile_work`] for a kernel over key tiles.
pub(super) fn key_tile_work(d: &mut DispatchView<'_>, flops: u64) -> Result<Work> {
    let pairs = |tile: &KeyTile| {
        let [n, first, end, run, step] = [tile.n_keys, tile.query, tile.query_end, tile.run, tile.step].map(u64::from);
        (0..n).map(|key| (end - first).saturating_sub(key / run * step)).sum::<u64>()
    };
    let tiles = d.words("tiles")?;
    let pairs = bytemuck::cast_slice(&tiles).iter().map(pairs).sum();
    Ok(work_of_pairs(d, pairs, flops))
}

/// `pairs` are those of one head, and `D4` is a quarter of its channels.
fn work_of_pairs(d: &DispatchView<'_>, pairs: u64, flops: u64) -> Work {
    d.work(flops * 4 * d.constant("D4") * d.param("n_heads") * pairs)
}
