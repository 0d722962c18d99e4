//! Shared parts of the attention kernels: WGSL sources, key buffers, and the broadcast grid shape.

use super::tile_table::TileTable;
use crate::gpu::{self, Dispatch, Feature, Source, Span};
use crate::wgsl;

/// The `QueryTile` struct.
pub(super) const QUERY_TILE: Source = wgsl!("attend/query_tile");
/// Inputs and key runs of query tiles.
pub(super) const TILES: Source = wgsl!("attend/tiles");
/// The keys that several queries of a tile see.
pub(super) const QUERIES: Source = wgsl!("attend/queries");
/// Matrices with one column per row or key of a lane, and products with vectors shared by subgroup
/// broadcast.
pub(super) const QUADS: Source = wgsl!("attend/quads").needing(Feature::WideSubgroups);
pub(super) const OWN_QUADS: Source = wgsl!("attend/own_quads");

/// Constants and grid of the broadcast kernels, which need a multiple of eight quads per head.
pub(super) fn broadcast_shape(d: &Dispatch) -> Option<gpu::Shape> {
    d.constants[0].is_multiple_of(8).then(|| (d.constants.clone(), d.groups))
}

/// The keys of query tiles.
pub(super) struct Keys<'a> {
    pub(super) recent: &'a Span,
    pub(super) kept: &'a Span,
    pub(super) tiles: &'a TileTable,
    pub(super) ring: u32,
    /// Scale of the scores.
    pub(super) scale: f32,
}
