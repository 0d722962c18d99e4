//! The KV cache of generation: what is `fixed` (sink and kept pairs) and the `tail` (fewer than 2L raw pairs).
//!
//! Prefill goes in chunks, whose parts never cross a partition end (`cache_step.rs`); attend first, compress after: when the tail
//! holds 2L tokens, its first L are scored against its second L, K of them move to `fixed` and the rest are dropped. Kept keys
//! keep their rotation and absolute position. A dense cache is one tail that never ends. Length after n tokens:
//! [`Attention::cache_length`].

use super::attend::{Keys, attend_cached};
use super::cache_step::{CacheStep, Fill, MAX_PARTS, Part, TILE_WORDS, chunk_length, cut, table_words};
use super::score::Pairs;
use super::select;
use super::store::store;
use super::{Attention, Heads, Lrsa, Selection};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::gpu::{Buffer, ELEMENT_ALIGNMENT, Executor, Kind, Recording, Span};
use crate::kernels::case::random;
use crate::tensor::Tensor;

/// Memory of one layer.
#[derive(Clone, Debug)]
struct CacheLayer {
    fixed: Buffer,
    tail: Buffer,
}

/// The cache of one sequence, all layers.
#[derive(Debug)]
pub struct Cache {
    attention: Attention,
    heads: Heads,
    layers: Vec<CacheLayer>,
    tiles: Buffer,
    positions: Buffer,
    /// First rows of a partition that leaves the tail and of its successor, U32 `[2]` of each part of a chunk.
    pairs: Buffer,
    /// Rows kept at random, U32 [Hk, K] of each part of a chunk, by layer; none where they are scored.
    drawn: Vec<Buffer>,
    capacity: usize,
    max_chunk: usize,
    n_tokens: usize,
}

fn too_large(capacity: usize) -> Error {
    Error::of_kind(
        ErrorKind::OutOfMemory,
        format!(
            "a cache for {capacity} tokens has more elements in a layer than shaders can number: lower `max_tokens`, or keep \
             fewer with `attention` lrsa and a smaller `keep`"
        ),
    )
}

impl Cache {
    /// An empty cache for up to `capacity` tokens, fed at most `max_chunk` at a time. Refuses one that shaders cannot index.
    pub fn new(attention: Attention, heads: Heads, n_layers: usize, capacity: usize, max_chunk: usize) -> Result<Self> {
        let cols = heads.kv_cols();
        let (fixed_rows, tail_rows) = match attention {
            Attention::Dense => (1, capacity.max(1)),
            Attention::Lrsa(l) => {
                let kept = l.kept().saturating_mul(l.partitions(capacity));
                let ring = l.lag().saturating_mul(2); // never full where the capacity is below it
                (l.sink().min(capacity).saturating_add(kept).max(1), ring.min(capacity).max(1))
            }
        };
        let buffer = |layer: usize, part: &str, rows: usize| -> Result<Buffer> {
            let len = rows.checked_mul(cols).filter(|&len| u32::try_from(len).is_ok());
            let len = len.ok_or_else(|| too_large(capacity))?;
            Ok(Buffer::persistent(format!("layer {layer} {part} kv"), Kind::Real, len))
        };
        let layer = |i: usize| -> Result<CacheLayer> {
            Ok(CacheLayer { fixed: buffer(i, "fixed", fixed_rows)?, tail: buffer(i, "tail", tail_rows)? })
        };
        let drawn = match attention {
            Attention::Lrsa(l) if matches!(l.selection(), Selection::Random { .. }) => {
                let words = MAX_PARTS * drawn_words(heads, &l);
                let of_layer = |_| Buffer::persistent("rows kept at random", Kind::U32, words);
                (0..n_layers).map(of_layer).collect()
            }
            _ => Vec::new(),
        };
        let max_chunk = max_chunk.clamp(1, capacity.max(1));
        Ok(Self {
            attention,
            heads,
            layers: (0..n_layers).map(layer).collect::<Result<_>>()?,
            tiles: Buffer::persistent("cache tiles", Kind::U32, table_words(heads, max_chunk)),
            positions: Buffer::persistent("cache positions", Kind::U32, max_chunk),
            pairs: Buffer::persistent("cache pairs", Kind::U32, MAX_PARTS * ELEMENT_ALIGNMENT),
            drawn,
            capacity,
            max_chunk,
            n_tokens: 0,
        })
    }

    /// Refuses a cache that the device is known to be unable to hold, before any memory is taken.
    pub fn check(&self, device: &dyn Executor) -> Result<()> {
        let mut touched = Recording::new();
        for layer in &self.layers {
            touched.clear(&layer.fixed.span());
            touched.clear(&layer.tail.span());
        }
        device.check(&touched).with_context(|| format!("a cache for {} tokens", self.capacity))
    }

    /// Puts an empty cache into the state that it has after `n` tokens, with made-up keys and values, the same in every layer. It is
    /// for measuring what comes next without the time that feeding takes: what a model says after it means nothing.
    pub fn fill_random(&mut self, device: &mut dyn Executor, n: usize, seed: u64) -> Result<()> {
        assert_eq!(self.n_tokens, 0, "an empty cache is filled");
        if n > self.capacity {
            return Err(self.full());
        }
        let mut longest = 0;
        for layer in &self.layers {
            longest = longest.max(layer.fixed.len()).max(layer.tail.len());
        }
        let values = random(seed, longest, 1.0);
        for part in self.layers.iter().flat_map(|layer| [&layer.fixed, &layer.tail]) {
            device.write_real(&part.span(), &values[..part.len()])?;
        }
        self.n_tokens = n;
        Ok(())
    }

    /// Takes over what another cache of the same kind and capacity holds, so that several texts can go on from one beginning.
    pub(crate) fn copy_from(&mut self, device: &mut dyn Executor, other: &Self) -> Result<()> {
        let kind = |c: &Self| (c.attention, c.heads, c.capacity, c.layers.len());
        assert_eq!(kind(self), kind(other), "caches of one kind");
        let mut rec = Recording::new();
        for (own, others) in self.layers.iter().zip(&other.layers) {
            rec.copy(&others.fixed.span(), &own.fixed.span());
            rec.copy(&others.tail.span(), &own.tail.span());
        }
        device.run(&rec)?;
        self.n_tokens = other.n_tokens;
        Ok(())
    }

    fn full(&self) -> Error {
        Error::new(format!(
            "the cache holds {} tokens and is full: start with a larger `max_tokens` or a shorter prompt",
            self.capacity
        ))
    }

    /// Tokens fed so far.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Tokens the cache can take in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Entries that one head of one layer holds now.
    pub fn n_entries(&self) -> usize {
        Fill::after(self.attention, self.n_tokens).n_entries()
    }

    /// Bytes that the entries of all layers take now.
    pub fn n_bytes(&self) -> u64 {
        self.bytes_of(self.n_entries())
    }

    /// Bytes that so many entries take in all layers.
    pub fn bytes_of(&self, n_entries: usize) -> u64 {
        (n_entries * self.heads.kv_cols() * self.layers.len() * 4) as u64
    }

    /// How many of the next `available` tokens to feed at once: at most the chunk size.
    pub fn chunk(&self, available: usize) -> usize {
        chunk_length(self.attention, self.heads, self.n_tokens, available.min(self.max_chunk))
    }

    /// Starts a chunk of `n` tokens, `n` being at most what [`Cache::chunk`] allows: uploads its tables.
    pub fn begin(&mut self, device: &mut dyn Executor, n: usize) -> Result<CacheStep> {
        assert!(n > 0 && n == self.chunk(n), "a chunk of {n} tokens is longer than the cache takes at once");
        if self.n_tokens + n > self.capacity {
            return Err(self.full());
        }
        let (parts, tiles) = cut(self.attention, self.heads, self.n_tokens, n);
        let step = CacheStep { n_tokens: n, position: self.n_tokens, positions: self.positions.slice(0, n), parts };
        let positions: Vec<u32> = (0..n).map(|i| (step.position + i) as u32).collect();
        device.write_words(&step.positions, &positions)?;
        device.write_words(&self.tiles.span(), &tiles)?;
        self.begin_compression(device, &step.parts)?;
        Ok(step)
    }

    /// Uploads what decides on the partitions that leave the tail.
    fn begin_compression(&self, device: &mut dyn Executor, parts: &[Part]) -> Result<()> {
        let Attention::Lrsa(l) = self.attention else { return Ok(()) };
        for (i, part) in parts.iter().enumerate() {
            let Some(compress) = part.compress else { continue };
            match l.selection() {
                Selection::Scored => device.write_words(&self.pair(i), &compress.pair)?,
                Selection::Random { seed } => {
                    for layer in 0..self.drawn.len() {
                        let rows = compress.random_rows(&l, seed, layer, self.heads.keys);
                        device.write_words(&self.drawn(layer, i, &l), &rows)?;
                    }
                }
                Selection::Nothing => {}
            }
        }
        Ok(())
    }

    fn pair(&self, part: usize) -> Span {
        self.pairs.slice(part * ELEMENT_ALIGNMENT, 2)
    }

    fn drawn(&self, layer: usize, part: usize, l: &Lrsa) -> Span {
        self.drawn[layer].slice(part * drawn_words(self.heads, l), self.heads.keys * l.kept())
    }

    /// Appends one layer's attention of the chunk: of each part in turn it stores the kv rows, attends, and compresses where a
    /// partition is full.
    ///
    /// q [n, H·d] and kv [n, 2·Hk·d], rotated → [n, H·d].
    pub fn attend(&self, rec: &mut Recording, layer: usize, step: &CacheStep, q: &Tensor, kv: &Tensor) -> Tensor {
        if let [part] = step.parts.as_slice() {
            return self.attend_part(rec, layer, (0, part), q, kv);
        }
        let out = Tensor::transient(rec, "attention of a chunk", q.rows, q.cols);
        for (i, part) in step.parts.iter().enumerate() {
            let (q, kv) = (rows_of(q, part), rows_of(kv, part));
            let attended = self.attend_part(rec, layer, (i, part), &q, &kv);
            rec.copy(attended.span(), rows_of(&out, part).span());
        }
        out
    }

    fn attend_part(
        &self,
        rec: &mut Recording,
        layer: usize,
        (i, part): (usize, &Part),
        q: &Tensor,
        kv: &Tensor,
    ) -> Tensor {
        let CacheLayer { fixed, tail } = &self.layers[layer];
        let (fixed, tail) = (fixed.span(), tail.span());
        let raw = if part.in_sink { &fixed } else { &tail };
        store(rec, kv, raw, part.store_row, part.ring);
        let tiles = self.tiles.slice(part.tile, part.n_tiles * TILE_WORDS);
        let keys = Keys { raw, packed: &fixed, tiles: &tiles, ring: part.ring };
        let out = attend_cached(rec, q, &keys, part.n_tiles, part.n_keys, self.heads);
        if let (Attention::Lrsa(l), Some(compress)) = (&self.attention, part.compress) {
            let rows = match l.selection() {
                Selection::Scored => {
                    let pairs = Pairs { lrsa: l, n: 1, table: &self.pair(i) };
                    select::select_pairs(rec, &tail, &pairs, self.heads, part.ring)
                }
                Selection::Random { .. } => self.drawn(layer, i, l),
                Selection::Nothing => return out,
            };
            select::gather(rec, &tail, &rows, &fixed, self.heads, l.kept(), compress.out_row);
        }
        out
    }

    /// Counts a chunk whose commands have been run.
    pub fn commit(&mut self, step: &CacheStep) {
        assert_eq!(step.position, self.n_tokens, "chunks are committed in their order");
        self.n_tokens += step.n_tokens;
    }
}

/// The rows of a part.
fn rows_of(t: &Tensor, part: &Part) -> Tensor {
    let span = t.span();
    let span = span.buffer.slice(span.offset + part.row * t.cols, part.n * t.cols);
    Tensor::from_span(span, part.n, t.cols)
}

/// Words that the rows kept of one partition take in a table.
fn drawn_words(heads: Heads, l: &Lrsa) -> usize {
    (heads.keys * l.kept()).next_multiple_of(ELEMENT_ALIGNMENT)
}
