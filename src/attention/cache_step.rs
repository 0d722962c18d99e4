//! A chunk on its way into the cache: how full the cache is before it, and the parts that it is cut into at the ends of partitions.
//!
//! Attention and compression go part by part; everything else of a block runs over the whole chunk at once. Nothing is lost by it:
//! what a layer keeps depends on the keys and values of that layer alone.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::index::sample;

use super::layout::NO_RING;
use super::tiles::{LANES, QueryTile};
use super::{Attention, Heads, Lrsa};
use crate::gpu::{ELEMENT_ALIGNMENT, Span};

/// Most parts of a chunk.
pub(super) const MAX_PARTS: usize = 32;
/// Words of a tile.
pub(super) const TILE_WORDS: usize = size_of::<QueryTile>() / 4;

/// How full a cache is after some tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    /// Entries of sink and kept pairs.
    pub(super) n_fixed: usize,
    /// Row of the ring that the tail begins at, and its length.
    pub(super) tail_start: usize,
    pub(super) tail_len: usize,
    /// Tokens until the sink or the partition ends.
    pub(super) room: usize,
}

impl Fill {
    /// After `n` tokens.
    pub(super) fn after(attention: Attention, n: usize) -> Self {
        let Attention::Lrsa(l) = attention else {
            return Self { n_fixed: 0, tail_start: 0, tail_len: n, room: usize::MAX };
        };
        let (in_sink, moved) = (l.sink().min(n), l.partitions(n).saturating_sub(1));
        Self {
            n_fixed: in_sink + moved * l.kept(),
            tail_start: moved * l.lag() % (2 * l.lag()),
            tail_len: n - in_sink - moved * l.lag(),
            room: if n < l.sink() { l.sink() - n } else { l.lag() - (n - l.sink()) % l.lag() },
        }
    }

    /// Entries of one head.
    pub(super) fn n_entries(&self) -> usize {
        self.n_fixed + self.tail_len
    }
}

/// A run of a chunk's tokens that lie in the sink or in one partition.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// First of its rows in the chunk, and their number.
    pub(super) row: usize,
    pub(super) n: usize,
    pub(super) in_sink: bool,
    /// Row of the cache that its first pair goes to, and rows after which the cache wraps.
    pub(super) store_row: usize,
    pub(super) ring: u32,
    /// First of its tiles in the table, and their number.
    pub(super) tile: usize,
    pub(super) n_tiles: usize,
    /// Keys that its last query sees.
    pub(super) n_keys: usize,
    pub(super) compress: Option<Compress>,
}

/// How a full partition leaves the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compress {
    /// Rows of the ring that it and its successor begin at.
    pub(super) pair: [u32; 2],
    /// First packed row of what is kept.
    pub(super) out_row: usize,
}

impl Compress {
    /// Rows of the ring kept at random, `[heads, K]`, ascending in each head. They depend on seed, partition and layer alone.
    pub(super) fn random_rows(&self, l: &Lrsa, seed: u64, layer: usize, heads: usize) -> Vec<u32> {
        let stream = ((self.out_row as u64) << 20) + layer as u64;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut rows = Vec::with_capacity(heads * l.kept());
        for _ in 0..heads {
            let mut chosen = sample(&mut rng, l.lag(), l.kept()).into_vec();
            chosen.sort_unstable();
            rows.extend(chosen.iter().map(|&i| (self.pair[0] + i as u32) % (2 * l.lag() as u32)));
        }
        rows
    }
}

/// One chunk on its way through the layers.
#[derive(Clone, Debug)]
pub struct CacheStep {
    /// Tokens of the chunk.
    pub n_tokens: usize,
    /// Position of its first token.
    pub position: usize,
    /// Positions of its tokens, `[n_tokens]`.
    pub positions: Span,
    pub(super) parts: Vec<Part>,
}

/// How many of the next `wanted` tokens go into one chunk after `before` tokens. A part begins at a row at which spans can begin.
pub(super) fn chunk_length(attention: Attention, heads: Heads, before: usize, wanted: usize) -> usize {
    let (mut n, mut n_parts) = (0, 0);
    while n < wanted && n_parts < MAX_PARTS {
        n += Fill::after(attention, before + n).room.min(wanted - n);
        n_parts += 1;
        let can_begin = |cols: usize| (n * cols).is_multiple_of(ELEMENT_ALIGNMENT);
        if !(can_begin(heads.queries * heads.dim) && can_begin(heads.kv_cols())) {
            break;
        }
    }
    n
}

/// Words that the tiles of any chunk of up to `n` tokens take.
pub(super) fn table_words(heads: Heads, n: usize) -> usize {
    // Each part's tiles begin where a span can, and their last one may hold few queries.
    (n.div_ceil(tile_queries(heads)) + MAX_PARTS) * TILE_WORDS + MAX_PARTS * ELEMENT_ALIGNMENT
}

/// Queries of a tile.
fn tile_queries(heads: Heads) -> usize {
    (LANES / heads.group()).max(1)
}

/// The parts of a chunk of `n` tokens after `before`, and their tiles as words.
pub(super) fn cut(attention: Attention, heads: Heads, before: usize, n: usize) -> (Vec<Part>, Vec<u32>) {
    let (mut parts, mut words) = (Vec::new(), Vec::new());
    let mut row = 0;
    while row < n {
        words.resize(words.len().next_multiple_of(ELEMENT_ALIGNMENT), 0);
        let fill = Fill::after(attention, before + row);
        let length = fill.room.min(n - row);
        let mut part = Part {
            row,
            n: length,
            in_sink: false,
            store_row: before + row,
            ring: NO_RING,
            tile: words.len(),
            n_tiles: 0,
            n_keys: fill.n_entries() + length,
            compress: None,
        };
        let mut first = QueryTile { n_window: (before + row) as u32 + 1, ..bytemuck::Zeroable::zeroed() };
        if let Attention::Lrsa(l) = attention {
            part.in_sink = before + row < l.sink();
            if !part.in_sink {
                let ring = 2 * l.lag();
                part.store_row = (fill.tail_start + fill.tail_len) % ring;
                part.ring = ring as u32;
                first.n_packed = fill.n_fixed as u32;
                first.window = fill.tail_start as u32;
                first.n_window = fill.tail_len as u32 + 1;
                if fill.tail_len + length == ring {
                    let pair = [fill.tail_start as u32, ((fill.tail_start + l.lag()) % ring) as u32];
                    part.compress = Some(Compress { pair, out_row: fill.n_fixed });
                }
            }
        }
        for q in (0..length).step_by(tile_queries(heads)) {
            let n_queries = tile_queries(heads).min(length - q) as u32;
            let tile = QueryTile { query: q as u32, n_queries, n_window: first.n_window + q as u32, ..first };
            words.extend_from_slice(bytemuck::cast_slice(&[tile]));
            part.n_tiles += 1;
        }
        row += length;
        parts.push(part);
    }
    (parts, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads { queries: 8, keys: 4, dim: 16 };

    #[test]
    fn entries_are_those_of_lagkv() {
        for attention in [Attention::Dense, Attention::Lrsa(Lrsa::new(3, 5, 0.4).unwrap())] {
            for n in 0..60 {
                assert_eq!(Fill::after(attention, n).n_entries(), attention.cache_length(n), "{attention}, {n}");
            }
        }
    }

    #[test]
    fn parts_cover_a_chunk_and_end_with_the_partitions() {
        let attention = Attention::Lrsa(Lrsa::new(4, 16, 0.25).unwrap());
        for (before, wanted) in [(0, 100), (4, 16), (7, 50), (19, 1), (20, 3), (40, 1000)] {
            let n = chunk_length(attention, HEADS, before, wanted);
            assert_eq!(n, wanted.min(if before == 40 { 12 + 31 * 16 } else { wanted }), "{before} + {wanted}");
            let (parts, words) = cut(attention, HEADS, before, n);
            assert!(words.len() <= table_words(HEADS, n));
            let mut at = before;
            for part in &parts {
                assert_eq!((part.row, part.in_sink), (at - before, at < 4));
                at += part.n;
                let is_full = at > 4 && (at - 4).is_multiple_of(16) && at >= 36;
                assert_eq!(part.compress.is_some(), is_full, "at {at}");
                assert!(part.tile.is_multiple_of(ELEMENT_ALIGNMENT));
            }
            assert_eq!(at, before + n);
        }
    }

    #[test]
    fn a_part_that_cannot_begin_begins_the_next_chunk() {
        let attention = Attention::Lrsa(Lrsa::new(3, 5, 0.4).unwrap());
        let odd = Heads { queries: 2, keys: 1, dim: 4 };
        assert_eq!([0, 3, 4].map(|before| chunk_length(attention, odd, before, 50)), [3, 5, 4]);
        assert_eq!(chunk_length(Attention::Dense, odd, 4, 50), 50);
    }

    #[test]
    fn random_rows_are_apart_and_ascending() {
        let l = Lrsa::new(3, 8, 0.5).unwrap();
        let compress = Compress { pair: [8, 0], out_row: 7 };
        let rows = compress.random_rows(&l, 1, 2, 5);
        assert_eq!(rows.len(), 5 * l.kept());
        for head in rows.chunks(l.kept()) {
            assert!(head.windows(2).all(|w| w[0] < w[1]) && head.iter().all(|r| (8..16).contains(r)), "{head:?}");
        }
        assert_ne!(rows, compress.random_rows(&l, 1, 3, 5), "another layer");
        assert_eq!(rows, compress.random_rows(&l, 1, 2, 5));
    }
}
