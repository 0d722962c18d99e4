//! What the attention kernels share: WGSL parts, the keys of query tiles, and the shape of the
//! broadcasting alternatives.

use crate::gpu::{self, Dispatch, Feature, Source, Span};
use crate::wgsl;

/// A query tile.
pub(super) const QUERY_TILE: Source = wgsl!("attend/query_tile");
/// Inputs and runs of keys of query tiles.
pub(super) const TILES: Source = wgsl!("attend/tiles");
/// What several queries of a tile see.
pub(super) const QUERIES: Source = wgsl!("attend/queries");
/// Matrices with a column for each row or key of a lane, and the quads that lanes hand round.
pub(super) const QUADS: Source = wgsl!("attend/quads").needing(Feature::WideSubgroups);
pub(super) const OWN_QUADS: Source = wgsl!("attend/own_quads");

/// The broadcasting kernels take eight quads of a head at a time.
pub(super) fn broadcast_shape(d: &Dispatch) -> Option<gpu::Shape> {
    d.constants[0].is_multiple_of(8).then(|| (d.constants.clone(), d.groups))
}

/// The keys of query tiles.
pub(super) struct Keys<'a> {
    pub(super) recent: &'a Span,
    pub(super) kept: &'a Span,
    pub(super) tiles: &'a Span,
    pub(super) ring: u32,
    /// Factor of the scores.
    pub(super) scale: f32,
}
