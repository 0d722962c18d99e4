//! The KV cache of generation: what is `fixed` (sink and kept pairs) and the `tail` (fewer than 2L raw pairs).
//!
//! Prefill goes in chunks that never cross a partition end; attend first, compress after: when the tail holds 2L tokens, its
//! first L are scored against its second L, K of them move to `fixed` and the rest are dropped. Kept keys keep their
//! rotation and absolute position. A dense cache is one tail that never ends. Length after n tokens:
//! [`Attention::cache_length`].

use super::attend::{Keys, attend_cached};
use super::layout::{LANES, NO_RING, QueryTile};
use super::score::Pairs;
use super::select;
use super::{Attention, Heads};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::gpu::{Binding, Buffer, Call, Executor, KernelDef, Kind, Params as _, Real, Recording, Span, groups_for};
use crate::kernels::case::{Case, Tolerance, random, real};
use crate::tensor::Tensor;
use crate::{params, wgsl};

params! {
    /// Of `lrsa/store_rows`.
    pub struct StoreParams { n: u32, kv_cols: u32, first: u32, ring: u32 }
}

static STORE: KernelDef = KernelDef {
    label: "lrsa/store_rows",
    variant: "",
    parts: &[wgsl!("common/grid"), wgsl!("lrsa/store_rows")],
    bindings: &[
        Binding::read("rows", Kind::Real, "[tokens, kv_cols]"),
        Binding::read_write("cache", Kind::Real, "[cache rows, kv_cols]"),
    ],
    params: StoreParams::FIELDS,
    constants: &[],
    rivals: &[],
    twin_f32: store_twin,
    twin_f64: store_twin,
};

/// The kernels of this file.
pub(super) fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&STORE, vec![])]
}

fn store_twin<T: Real>(call: Call<'_, T>) {
    let p: StoreParams = call.params();
    let [rows, cache] = call.args();
    let (rows, cache, cols) = (rows.real(), cache.real_mut(), p.kv_cols as usize);
    for (t, row) in rows[..p.n as usize].chunks_exact(cols).enumerate() {
        let at = ((p.first + t as u32) % p.ring) as usize * cols;
        cache[at..at + cols].copy_from_slice(row);
    }
}

/// Appends cache[(first + t) % ring] = rows[t].
pub(super) fn store(rec: &mut Recording, rows: &Tensor, cache: &Span, first: usize, ring: u32) {
    let n = rows.len();
    let params = StoreParams { n: n as u32, kv_cols: rows.cols as u32, first: first as u32, ring };
    rec.dispatch(&STORE, &[], params, &[rows.span(), cache], groups_for(n, 64));
}

fn store_case(name: &str, n: usize, cols: usize, cache_rows: usize, first: usize, ring: u32) -> Case {
    let inputs = vec![real(1, n, cols, 1.0).frozen(), real(2, cache_rows, cols, 1.0).frozen()];
    Case::new(format!("lrsa/store_rows: {name}"), inputs, Tolerance::EXACT, move |rec, b| {
        store(rec, &b.tensors[0], b.tensors[1].span(), first, ring);
        Ok((vec![b.tensors[1].clone()], None))
    })
}

/// The cases of this file.
pub(super) fn cases() -> Vec<Case> {
    vec![
        store_case("a ring that wraps", 7, 12, 10, 6, 10),
        store_case("one row, no ring", 1, 8, 5, 4, NO_RING),
        store_case("beyond 16 bits", 70, 1024, 80, 75, 80),
        store_case("whole workgroups", 6, 64, 9, 7, 8),
        store_case("bench", 512, 2048, 1024, 300, NO_RING).bench(),
    ]
}

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
    pair: Buffer,
    capacity: usize,
    max_chunk: usize,
    n_tokens: usize,
    n_fixed: usize,
    tail_start: usize,
    tail_len: usize,
}

fn too_large(capacity: usize) -> Error {
    Error::of_kind(
        ErrorKind::OutOfMemory,
        format!(
            "a cache for {capacity} tokens has more elements in a layer than shaders can number: lower --max-tokens, or keep \
             fewer with --attention lrsa and a smaller --keep"
        ),
    )
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
    in_sink: bool,
    store_row: usize,
    ring: u32,
    n_tiles: usize,
    tiles: Span,
    /// Pairs table and first packed row, where the chunk completes a partition.
    compress: Option<(Span, usize)>,
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
        let max_chunk = max_chunk.clamp(1, capacity.max(1));
        let n_tiles = max_chunk.div_ceil((LANES / heads.group()).max(1));
        Ok(Self {
            attention,
            heads,
            layers: (0..n_layers).map(layer).collect::<Result<_>>()?,
            tiles: Buffer::persistent("cache tiles", Kind::U32, n_tiles * size_of::<QueryTile>() / 4),
            positions: Buffer::persistent("cache positions", Kind::U32, max_chunk),
            pair: Buffer::persistent("cache pair", Kind::U32, 2),
            capacity,
            max_chunk,
            n_tokens: 0,
            n_fixed: 0,
            tail_start: 0,
            tail_len: 0,
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
        self.tail_len = n;
        if let Attention::Lrsa(l) = self.attention {
            let (in_sink, moved) = (l.sink().min(n), l.partitions(n).saturating_sub(1));
            self.n_fixed = in_sink + moved * l.kept();
            self.tail_start = moved * l.lag() % (2 * l.lag());
            self.tail_len = n - in_sink - moved * l.lag();
        }
        Ok(())
    }

    fn full(&self) -> Error {
        Error::new(format!(
            "the cache holds {} tokens and is full: start with a larger --max-tokens or a shorter prompt",
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
        self.n_fixed + self.tail_len
    }

    /// Bytes that the entries of all layers take now.
    pub fn n_bytes(&self) -> u64 {
        self.bytes_of(self.n_entries())
    }

    /// Bytes that so many entries take in all layers.
    pub fn bytes_of(&self, n_entries: usize) -> u64 {
        (n_entries * self.heads.kv_cols() * self.layers.len() * 4) as u64
    }

    /// How many of the next `available` tokens to feed at once: at most the chunk size, never across a partition end.
    pub fn chunk(&self, available: usize) -> usize {
        let room = match self.attention {
            Attention::Dense => usize::MAX,
            Attention::Lrsa(l) if self.n_tokens < l.sink() => l.sink() - self.n_tokens,
            Attention::Lrsa(l) => l.lag() - (self.n_tokens - l.sink()) % l.lag(),
        };
        available.min(room).min(self.max_chunk)
    }

    /// Starts a chunk of `n` tokens, `n` being at most what [`Cache::chunk`] allows: uploads its tables.
    pub fn begin(&mut self, device: &mut dyn Executor, n: usize) -> Result<CacheStep> {
        assert!(n > 0 && n == self.chunk(n), "a chunk stays inside its partition");
        if self.n_tokens + n > self.capacity {
            return Err(self.full());
        }
        let mut step = CacheStep {
            n_tokens: n,
            position: self.n_tokens,
            positions: self.positions.slice(0, n),
            in_sink: false,
            store_row: self.n_tokens,
            ring: NO_RING,
            n_tiles: 0,
            tiles: self.tiles.span(),
            compress: None,
        };
        let mut first = QueryTile { n_window: self.n_tokens as u32 + 1, ..bytemuck::Zeroable::zeroed() };
        if let Attention::Lrsa(l) = self.attention {
            step.in_sink = self.n_tokens < l.sink();
            if !step.in_sink {
                let ring = 2 * l.lag();
                step.store_row = (self.tail_start + self.tail_len) % ring;
                step.ring = ring as u32;
                first.n_packed = self.n_fixed as u32;
                first.window = self.tail_start as u32;
                first.n_window = self.tail_len as u32 + 1;
                if self.tail_len + n == ring {
                    let second = (self.tail_start + l.lag()) % ring;
                    device.write_words(&self.pair.span(), &[self.tail_start as u32, second as u32])?;
                    step.compress = Some((self.pair.span(), self.n_fixed));
                }
            }
        }
        let size = (LANES / self.heads.group()).max(1);
        let tiles: Vec<QueryTile> = (0..n)
            .step_by(size)
            .map(|q| QueryTile {
                query: q as u32,
                n_queries: size.min(n - q) as u32,
                n_window: first.n_window + q as u32,
                ..first
            })
            .collect();
        let positions: Vec<u32> = (0..n).map(|i| (step.position + i) as u32).collect();
        device.write_words(&step.positions, &positions)?;
        device.write_words(&self.tiles.span(), bytemuck::cast_slice(&tiles))?;
        step.n_tiles = tiles.len();
        Ok(step)
    }

    /// Appends one layer's attention of the chunk: stores its kv rows, attends, then compresses where a partition is full.
    ///
    /// q [n, H·d] and kv [n, 2·Hk·d], rotated → [n, H·d].
    pub fn attend(&self, rec: &mut Recording, layer: usize, step: &CacheStep, q: &Tensor, kv: &Tensor) -> Tensor {
        let layer = &self.layers[layer];
        let (fixed, tail) = (layer.fixed.span(), layer.tail.span());
        let raw = if step.in_sink { &fixed } else { &tail };
        store(rec, kv, raw, step.store_row, step.ring);
        let keys = Keys { raw, packed: &fixed, tiles: &step.tiles, ring: step.ring };
        let out = attend_cached(rec, q, &keys, step.n_tiles, self.n_entries() + step.n_tokens, self.heads);
        if let (Attention::Lrsa(lrsa), Some((table, out_row))) = (&self.attention, &step.compress) {
            let pairs = Pairs { lrsa, n: 1, table };
            let rows = select::select_pairs(rec, &tail, &pairs, self.heads, step.ring);
            select::gather(rec, &tail, &rows, &fixed, self.heads, lrsa.kept(), *out_row);
        }
        out
    }

    /// Counts a chunk whose commands have been run.
    pub fn commit(&mut self, step: &CacheStep) {
        self.n_tokens += step.n_tokens;
        if step.in_sink {
            self.n_fixed += step.n_tokens;
            return;
        }
        self.tail_len += step.n_tokens;
        if let (Attention::Lrsa(l), Some(_)) = (self.attention, &step.compress) {
            self.n_fixed += l.kept();
            self.tail_start = (self.tail_start + l.lag()) % (2 * l.lag());
            self.tail_len -= l.lag();
        }
        debug_assert_eq!(self.n_entries(), self.attention.cache_length(self.n_tokens), "the cache has LagKV's length");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Lrsa;
    use crate::gpu::CpuExecutor;

    #[test]
    fn a_filled_cache_is_in_the_state_of_one_that_was_fed() {
        let device = &mut CpuExecutor::<f32>::new();
        let heads = Heads { queries: 2, keys: 1, dim: 4 };
        for attention in [Attention::Dense, Attention::Lrsa(Lrsa::new(3, 5, 0.4).unwrap())] {
            let empty = || Cache::new(attention, heads, 1, 50, 50).unwrap();
            let mut fed = empty();
            loop {
                let mut filled = empty();
                filled.fill_random(device, fed.n_tokens, 1).unwrap();
                let state = |c: &Cache| [c.n_tokens, c.n_fixed, c.tail_start, c.tail_len];
                assert_eq!(state(&filled), state(&fed), "{attention}");
                if fed.n_tokens == fed.capacity {
                    break;
                }
                let step = fed.begin(device, 1).unwrap();
                fed.commit(&step);
            }
            assert!(empty().fill_random(device, 51, 1).is_err());
        }
    }
}
