//! How full each kind of layer is before a chunk, and the parts it cuts the chunk into.
//!
//! Attention and compression run part by part. Everything else in a block runs over the whole chunk
//! at once, with the same result: the selection of a layer depends only on the keys and values of
//! that layer. LRSA cuts at the ends of partitions, a sliding window where its ring is full.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::index::sample;

use super::layout::{NO_RING, queries_of_tile};
use super::tile_table::{Bound, Slice, append_tiles, most_words};
use super::tiles::{QueryTile, UNLIMITED, width_of};
use super::{Attention, Heads, LayerAttention, Lrsa};
use crate::gpu::{ELEMENT_ALIGNMENT, Span};
use crate::tensor::Tensor;

/// Maximum number of parts in a chunk.
pub(super) const MAX_PARTS: usize = 32;

/// How the layers of one kind store pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Storage {
    /// The attention of these layers.
    pub(super) attention: LayerAttention,
    /// Rows for sink and selected pairs; 0 if the layer is not compressed.
    pub(super) kept_rows: usize,
    /// Rows of the recent part.
    pub(super) recent_rows: usize,
    /// Maximum number of tokens to store before their queries attend.
    most_at_once: usize,
}

impl Storage {
    /// Storage for up to `capacity` tokens, fed at most `max_chunk` at a time.
    ///
    /// A window of W has a ring of W - 1 rows plus the rows of one part. A part has at most W / 4
    /// tokens, rounded up to a multiple of 64. So the ring holds W pairs when fed token by token,
    /// and about 1.25 W when fed in long chunks.
    pub(super) fn new(attention: LayerAttention, capacity: usize, max_chunk: usize) -> Self {
        let (mut kept_rows, mut most_at_once) = (0, usize::MAX);
        let recent_rows = match attention {
            LayerAttention::Full(Attention::Dense) => capacity,
            LayerAttention::Full(Attention::Lrsa(l)) => {
                let kept = l.kept().saturating_mul(l.partitions(capacity));
                kept_rows = l.sink().min(capacity).saturating_add(kept).max(1);
                l.lag().saturating_mul(2).min(capacity) // never fills up if the capacity is below two lags
            }
            LayerAttention::Window(window) => {
                // Every 64th row of a chunk is a valid start of a span.
                let part = window.min(1 << 30).div_ceil(4).next_multiple_of(ELEMENT_ALIGNMENT);
                most_at_once = part.min(max_chunk);
                (window - 1).saturating_add(most_at_once).min(capacity)
            }
        };
        Self { attention, kept_rows, recent_rows: recent_rows.max(1), most_at_once }
    }
}

/// How full a layer is after a number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    /// Sink and selected entries.
    pub(super) n_kept: usize,
    /// Ring row where the recent part starts, and its length.
    pub(super) recent_start: usize,
    pub(super) recent_len: usize,
    /// Maximum number of tokens in the next part: up to the end of the sink or the partition, or
    /// the free space of the ring.
    pub(super) room: usize,
}

impl Fill {
    /// The state after `n` tokens.
    pub(super) fn after(storage: &Storage, n: usize) -> Self {
        let l = match storage.attention {
            LayerAttention::Full(Attention::Lrsa(l)) => l,
            LayerAttention::Full(Attention::Dense) => {
                return Self { n_kept: 0, recent_start: 0, recent_len: n, room: usize::MAX };
            }
            LayerAttention::Window(window) => {
                let recent_len = n.min(window);
                let recent_start = (n - recent_len) % storage.recent_rows;
                return Self { n_kept: 0, recent_start, recent_len, room: storage.most_at_once };
            }
        };
        let (in_sink, moved) = (l.sink().min(n), l.partitions(n).saturating_sub(1));
        Self {
            n_kept: in_sink + moved * l.kept(),
            recent_start: moved * l.lag() % (2 * l.lag()),
            recent_len: n - in_sink - moved * l.lag(),
            room: if n < l.sink() { l.sink() - n } else { l.lag() - (n - l.sink()) % l.lag() },
        }
    }
}

/// Consecutive tokens of a chunk that one kind of layer stores and attends from at once: tokens of
/// the sink, tokens of one partition, or as many as the ring of a sliding window can take.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// First row in the chunk, and number of rows.
    pub(super) row: usize,
    pub(super) n: usize,
    pub(super) in_sink: bool,
    /// Cache row of the first pair, and the number of rows after which the cache wraps.
    pub(super) store_row: usize,
    pub(super) ring: u32,
    /// Its tiles in the table.
    pub(super) slices: Vec<Slice>,
    /// Number of keys that the last query sees.
    pub(super) n_keys: usize,
    pub(super) compress: Option<Compress>,
}

/// A partition to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compress {
    /// Ring rows where the partition and its successor start.
    pub(super) pair: [u32; 2],
    /// First kept row to write.
    pub(super) out_row: usize,
}

impl Compress {
    /// Randomly selected ring rows, `[heads, K]`, ascending within each head. They depend only on
    /// seed, partition and layer.
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

/// A chunk in progress through the layers.
#[derive(Clone, Debug)]
pub struct CacheStep {
    /// Number of tokens.
    pub n_tokens: usize,
    /// Position of the first token.
    pub position: usize,
    /// Positions of the tokens, `[n_tokens]`.
    pub positions: Span,
    /// The parts, per kind of layer.
    pub(super) parts: Vec<Vec<Part>>,
}

/// How many of the next `wanted` tokens fit in one chunk after `before` tokens. Every part starts
/// at a row that is a valid start of a span.
pub(super) fn chunk_length(storage: &Storage, heads: Heads, before: usize, wanted: usize) -> usize {
    let (mut n, mut n_parts) = (0, 0);
    while n < wanted && n_parts < MAX_PARTS {
        n += Fill::after(storage, before + n).room.min(wanted - n);
        n_parts += 1;
        let can_begin = |cols: usize| (n * cols).is_multiple_of(ELEMENT_ALIGNMENT);
        if !(can_begin(heads.queries * heads.dim) && can_begin(heads.kv_cols())) {
            break;
        }
    }
    n
}

/// Upper bound on the words of the tiles of a chunk of up to `n` tokens, for one kind of layer.
pub(super) fn table_words(heads: Heads, n: usize) -> usize {
    // The last tile of a part may hold few queries.
    most_words::<QueryTile>(n.div_ceil(queries_of_tile(heads.group())) + MAX_PARTS)
}

/// Cuts a chunk of `n` tokens after `before` tokens into parts; appends their tiles to `words`, in
/// slices within the bound.
pub(super) fn cut(
    storage: &Storage,
    heads: Heads,
    before: usize,
    n: usize,
    bound: Bound,
    words: &mut Vec<u32>,
) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut row = 0;
    while row < n {
        let fill = Fill::after(storage, before + row);
        let mut part = Part {
            row,
            n: fill.room.min(n - row),
            in_sink: false,
            store_row: before + row,
            ring: NO_RING,
            slices: Vec::new(),
            n_keys: 0,
            compress: None,
        };
        match storage.attention {
            LayerAttention::Full(Attention::Lrsa(l)) if before + row >= l.sink() => part.enter_recent(&l, &fill),
            LayerAttention::Full(Attention::Lrsa(_)) => part.in_sink = true,
            LayerAttention::Full(Attention::Dense) => {}
            LayerAttention::Window(_) => {
                part.store_row = (before + row) % storage.recent_rows;
                part.ring = storage.recent_rows as u32;
            }
        }
        let (step, mut tiles) = (queries_of_tile(heads.group()), Vec::new());
        for q in (0..part.n).step_by(step) {
            let n_queries = step.min(part.n - q);
            let tile = tile(storage, &fill, part.in_sink, before + row, q);
            let tile = QueryTile { query: q as u32, n_queries: n_queries as u32, ..tile };
            tiles.push(tile);
            let (hidden, end) = tile.hidden_and_end(n_queries - 1);
            part.n_keys = end - hidden.len();
        }
        part.slices = append_tiles(&tiles, heads, bound, words);
        row += part.n;
        parts.push(part);
    }
    parts
}

impl Part {
    /// The part's rows of a tensor with a row for each token of the chunk.
    pub(super) fn rows_of(&self, t: &Tensor) -> Tensor {
        let span = t.span();
        let span = span.buffer.slice(span.offset + self.row * t.cols, self.n * t.cols);
        Tensor::from_span(span, self.n, t.cols)
    }

    /// Sets up a part that goes to the LRSA ring, including compression if the part fills the ring.
    fn enter_recent(&mut self, l: &Lrsa, fill: &Fill) {
        let ring = 2 * l.lag();
        self.store_row = (fill.recent_start + fill.recent_len) % ring;
        self.ring = ring as u32;
        if fill.recent_len + self.n == ring {
            let pair = [fill.recent_start as u32, ((fill.recent_start + l.lag()) % ring) as u32];
            self.compress = Some(Compress { pair, out_row: fill.n_kept });
        }
    }
}

/// The keys that query `q` of a part sees, as the first query of a tile. The part starts at
/// `position`, where the layer is in state `fill`.
fn tile(storage: &Storage, fill: &Fill, in_sink: bool, position: usize, q: usize) -> QueryTile {
    let none: QueryTile = bytemuck::Zeroable::zeroed();
    match storage.attention {
        LayerAttention::Window(window) => {
            let end = position + q + 1;
            let n_recent = end.min(window);
            let first = (end - n_recent) % storage.recent_rows;
            QueryTile { recent: first as u32, n_recent: n_recent as u32, width: width_of(window), ..none }
        }
        LayerAttention::Full(Attention::Lrsa(_)) if !in_sink => QueryTile {
            n_kept: fill.n_kept as u32,
            recent: fill.recent_start as u32,
            n_recent: (fill.recent_len + q + 1) as u32,
            width: UNLIMITED,
            ..none
        },
        // Plain causal attention, for dense layers and inside the sink.
        LayerAttention::Full(_) => QueryTile { n_recent: (position + q + 1) as u32, width: UNLIMITED, ..none },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads { queries: 8, keys: 4, dim: 16 };

    #[test]
    fn entries_are_those_of_lagkv() {
        let lrsa = Attention::Lrsa(Lrsa::new(3, 5, 0.4).unwrap());
        for attention in [Attention::Dense.into(), lrsa.into(), LayerAttention::Window(9)] {
            let storage = Storage::new(attention, 60, 8);
            for n in 0..60 {
                let fill = Fill::after(&storage, n);
                assert_eq!(fill.n_kept + fill.recent_len, attention.cache_length(n), "{attention}, {n}");
            }
        }
    }

    #[test]
    fn parts_cover_a_chunk_and_end_with_the_partitions() {
        let attention = Attention::Lrsa(Lrsa::new(4, 16, 0.25).unwrap());
        let storage = &Storage::new(attention.into(), 2000, 2000);
        for (before, wanted) in [(0, 100), (4, 16), (7, 50), (19, 1), (20, 3), (40, 1000)] {
            let n = chunk_length(storage, HEADS, before, wanted);
            assert_eq!(n, wanted.min(if before == 40 { 12 + 31 * 16 } else { wanted }), "{before} + {wanted}");
            let mut words = Vec::new();
            let parts = cut(storage, HEADS, before, n, Bound::NONE, &mut words);
            assert!(words.len() <= table_words(HEADS, n));
            let mut at = before;
            for part in &parts {
                assert_eq!((part.row, part.in_sink), (at - before, at < 4));
                at += part.n;
                let is_full = at > 4 && (at - 4).is_multiple_of(16) && at >= 36;
                assert_eq!(part.compress.is_some(), is_full, "at {at}");
                assert!(matches!(part.slices[..], [s] if s.word.is_multiple_of(ELEMENT_ALIGNMENT)));
            }
            assert_eq!(at, before + n);
        }
    }

    #[test]
    fn a_part_that_cannot_begin_begins_the_next_chunk() {
        let lrsa = Storage::new(Attention::Lrsa(Lrsa::new(3, 5, 0.4).unwrap()).into(), 60, 60);
        let dense = Storage::new(Attention::Dense.into(), 60, 60);
        let odd = Heads { queries: 2, keys: 1, dim: 4 };
        assert_eq!([0, 3, 4].map(|before| chunk_length(&lrsa, odd, before, 50)), [3, 5, 4]);
        assert_eq!(chunk_length(&dense, odd, 4, 50), 50);
    }

    #[test]
    fn a_ring_holds_what_the_queries_of_a_part_see() {
        for (window, max_chunk, rows) in [(5, 1, 5), (5, 7, 11), (5, 1000, 68), (400, 1000, 527), (1000, 1000, 1255)] {
            let storage = Storage::new(LayerAttention::Window(window), 3000, max_chunk);
            assert_eq!(storage.recent_rows, rows, "window {window}, chunks of {max_chunk}");
            for before in [0, 3, rows - 2, 2 * rows + 1] {
                let n = chunk_length(&storage, HEADS, before, max_chunk);
                assert_eq!(n, max_chunk);
                let mut words = Vec::new();
                for part in cut(&storage, HEADS, before, n, Bound::NONE, &mut words) {
                    let position = before + part.row;
                    assert_eq!(part.store_row, position % rows);
                    assert!(part.row.is_multiple_of(ELEMENT_ALIGNMENT) && part.n + window - 1 <= rows);
                    assert_eq!(part.n_keys, window.min(position + part.n));
                    let [slice] = part.slices[..] else { panic!("no table is cut") };
                    let n_words = slice.n_tiles * size_of::<QueryTile>() / 4;
                    let tiles: &[QueryTile] = bytemuck::cast_slice(&words[slice.word..][..n_words]);
                    for tile in tiles {
                        let t = position + tile.query as usize;
                        let first = (t + 1).saturating_sub(window);
                        assert_eq!((tile.recent as usize, tile.n_recent as usize), (first % rows, t + 1 - first));
                    }
                }
            }
        }
        let short = Storage::new(LayerAttention::Window(400), 100, 1000);
        assert_eq!(short.recent_rows, 100, "a ring is never longer than the text");
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
