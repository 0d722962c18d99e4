//! Tables of tiles on a device, in slices that a dispatch each processes.
//!
//! A driver may end a dispatch that takes seconds, so one does a bounded amount of work
//! ([`DISPATCH_FLOPS`]). A slice of a table starts where a span can begin, and the tiles name the
//! rows that they read and write. So the kernels run over a slice as over a whole table, and each
//! tile gets the same bits in any slices.

use super::Heads;
use super::tiles::{KeyTile, QueryTile};
use crate::error::Result;
use crate::gpu::{DISPATCH_FLOPS, DeviceLimits, ELEMENT_ALIGNMENT, Executor, Span, TableRow, upload_words};

/// A row of a table of tiles.
pub(super) trait Tile: TableRow {
    /// Floating-point operations for each channel of a (query, key) pair, in the kernel over these
    /// tiles that does most.
    const FLOPS: u64;

    /// Number of (query, key) pairs for which a kernel computes scores, for one head: also those of
    /// keys that it hides from some of the queries.
    fn n_visited(&self) -> u64;
}

impl Tile for QueryTile {
    const FLOPS: u64 = 6; // attend/backward_query

    fn n_visited(&self) -> u64 {
        let [sink, kept, recent, n] = [self.n_sink, self.n_kept, self.n_recent, self.n_queries].map(u64::from);
        n * (sink + kept + recent + n - 1)
    }
}

impl Tile for KeyTile {
    const FLOPS: u64 = 8; // attend/backward_key

    fn n_visited(&self) -> u64 {
        u64::from(self.n_keys) * u64::from(self.query_end.saturating_sub(self.query))
    }
}

/// When a slice ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Floating-point operations that a slice does at most, unless it would have too few
    /// workgroups.
    pub(super) flops: u64,
    /// Fewest workgroups of a slice.
    pub(super) fewest_groups: usize,
}

impl Bound {
    /// No table is cut.
    pub(super) const NONE: Self = Self { flops: u64::MAX, fewest_groups: usize::MAX };

    /// The bound of a device.
    pub(super) fn of(limits: &DeviceLimits) -> Self {
        Self { flops: DISPATCH_FLOPS, fewest_groups: limits.fewest_groups }
    }
}

/// Consecutive tiles that one dispatch processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// First word in the table.
    pub(super) word: usize,
    /// Number of tiles.
    pub(super) n_tiles: usize,
}

/// Appends tiles to the words of a table, each slice from where a span can begin.
pub(super) fn append_tiles<T: Tile>(tiles: &[T], heads: Heads, bound: Bound, words: &mut Vec<u32>) -> Vec<Slice> {
    let channels = (heads.queries * heads.dim) as u64;
    let mut slices: Vec<Slice> = Vec::new();
    let mut flops = 0u64;
    for tile in tiles {
        let of_tile = T::FLOPS * channels * tile.n_visited();
        let total = flops.saturating_add(of_tile);
        match slices.last_mut().filter(|s| total <= bound.flops || s.n_tiles * heads.keys < bound.fewest_groups) {
            Some(slice) => {
                slice.n_tiles += 1;
                flops = total;
            }
            None => {
                words.resize(words.len().next_multiple_of(ELEMENT_ALIGNMENT), 0);
                slices.push(Slice { word: words.len(), n_tiles: 1 });
                flops = of_tile;
            }
        }
        words.extend_from_slice(bytemuck::cast_slice(std::slice::from_ref(tile)));
    }
    slices
}

/// A table on the host: its words and its slices.
pub(super) fn laid_out<T: Tile>(tiles: &[T], heads: Heads, bound: Bound) -> (Vec<u32>, Vec<Slice>) {
    let mut words = Vec::new();
    let slices = append_tiles(tiles, heads, bound, &mut words);
    (words, slices)
}

/// Most words that [`append_tiles`] appends for so many tiles.
pub(super) const fn most_words<T: Tile>(n_tiles: usize) -> usize {
    n_tiles * (size_of::<T>() / 4).next_multiple_of(ELEMENT_ALIGNMENT) + ELEMENT_ALIGNMENT
}

/// A table of tiles on a device.
#[derive(Clone, Debug)]
pub(super) struct TileTable {
    span: Span,
    slices: Vec<Slice>,
    /// Words of a tile.
    tile_words: usize,
}

impl TileTable {
    /// The table of tiles of type `T` in a span with the words that [`append_tiles`] appended.
    pub(super) fn new<T: Tile>(span: Span, slices: Vec<Slice>) -> Self {
        Self { span, slices, tile_words: size_of::<T>() / 4 }
    }

    /// Uploads tiles, of which there is at least one.
    pub(super) fn upload<T: Tile>(
        device: &mut dyn Executor,
        label: &str,
        tiles: &[T],
        heads: Heads,
        bound: Bound,
    ) -> Result<Self> {
        let (words, slices) = laid_out(tiles, heads, bound);
        Ok(Self::new::<T>(upload_words(device, label, &words)?, slices))
    }

    /// The words and the number of tiles of each slice, in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = (Span, u32)> {
        self.slices.iter().map(|s| {
            let at = self.span.offset + s.word;
            (self.span.buffer.slice(at, s.n_tiles * self.tile_words), s.n_tiles as u32)
        })
    }

    /// The words and the number of tiles of a table with one slice. Panics if there are more.
    pub(super) fn only_slice(&self) -> (Span, usize) {
        assert_eq!(self.slices.len(), 1, "{} is cut into slices", self.span.buffer.label());
        let (tiles, n_tiles) = self.slices().next().expect("there is one");
        (tiles, n_tiles as usize)
    }
}

#[cfg(test)]
#[path = "tile_table_tests.rs"]
mod tests;
