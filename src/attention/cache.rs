//! The KV cache of generation, with per-layer storage.
//!
//! An LRSA layer has two buffers: the kept part (sink and selected pairs) and the recent part
//! (fewer than 2L pairs). Prefill runs in chunks, and no part of a chunk crosses the end of a
//! partition (`cache_step.rs`). Each part attends first and compresses after: once the recent part
//! holds 2L tokens, its first L are scored against its second L, K of them move to the kept part
//! and the rest are dropped. Kept keys retain their rotation and absolute position.
//!
//! A dense layer has only a recent part, which grows with the text. A layer with a sliding window
//! of W is a ring of W - 1 rows plus the rows of the part being fed ([`Storage::new`]).
//! [`LayerAttention::cache_length`] gives the length after n tokens.

use super::attend::attend_cached;
use super::cache_step::{CacheStep, MAX_PARTS, Part, Storage, chunk_length, cut, table_words};
use super::config::kinds_of;
use super::score::Pairs;
use super::select;
use super::shared::Keys;
use super::store::store;
use super::tile_table::{Bound, TileTable};
use super::tiles::QueryTile;
use super::{Heads, LayerAttention, Lrsa, Selection, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Buffer, ELEMENT_ALIGNMENT, Executor, Kind, Recording, Span};
use crate::kernels::case::random;
use crate::tensor::Tensor;

/// Memory of one layer.
#[derive(Clone, Debug)]
pub(super) struct CacheLayer {
    /// Index into `Cache::kinds`.
    pub(super) kind: usize,
    /// Sink and selected pairs; only in compressed layers.
    pub(super) kept: Option<Buffer>,
    pub(super) recent: Buffer,
    /// Randomly selected rows, U32 [Hk, K] for each part of a chunk; `None` if scores select them.
    drawn: Option<Buffer>,
}

impl CacheLayer {
    /// The buffers of keys and values.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &Buffer> {
        self.kept.iter().chain([&self.recent])
    }
}

/// The cache of one sequence, for all layers.
#[derive(Debug)]
pub struct Cache {
    pub(super) heads: Heads,
    /// The distinct kinds of layers.
    pub(super) kinds: Vec<Storage>,
    pub(super) layers: Vec<CacheLayer>,
    tiles: Buffer,
    positions: Buffer,
    /// First rows of the partition being compressed and of its successor, U32 `[2]` for each part
    /// of a chunk.
    pairs: Buffer,
    pub(super) capacity: usize,
    max_chunk: usize,
    n_tokens: usize,
}

fn too_large(capacity: usize) -> Error {
    Error::of_kind(
        ErrorKind::OutOfMemory,
        format!(
            "a cache for {capacity} tokens has more elements in a layer than shaders can index: lower `max_tokens`, or keep \
             fewer with `attention` lrsa and a smaller `keep`"
        ),
    )
}

impl Cache {
    /// An empty cache of these layers for up to `capacity` tokens, fed at most `max_chunk` at a
    /// time. Fails if a layer has more elements than a shader's u32 can index.
    pub fn new(layers: &[LayerAttention], heads: Heads, capacity: usize, max_chunk: usize) -> Result<Self> {
        let max_chunk = max_chunk.clamp(1, capacity.max(1));
        let (kinds, kind_of) = kinds_of(layers);
        let kinds: Vec<Storage> = kinds.into_iter().map(|kind| Storage::new(kind, capacity, max_chunk)).collect();
        let buffer = |layer: usize, part: &str, rows: usize| -> Result<Buffer> {
            let len = rows.checked_mul(heads.kv_cols()).filter(|&len| u32::try_from(len).is_ok());
            let len = len.ok_or_else(|| too_large(capacity))?;
            Ok(Buffer::persistent(format!("layer {layer} {part} kv"), Kind::Real, len))
        };
        let layer = |(i, kind): (usize, usize)| -> Result<CacheLayer> {
            let storage = &kinds[kind];
            let kept = (storage.kept_rows > 0).then(|| buffer(i, "kept", storage.kept_rows)).transpose()?;
            let random = storage.attention.lrsa().filter(|l| matches!(l.selection(), Selection::Random { .. }));
            let drawn =
                |l: Lrsa| Buffer::persistent("rows kept at random", Kind::U32, MAX_PARTS * drawn_words(heads, &l));
            Ok(CacheLayer { kind, kept, recent: buffer(i, "recent", storage.recent_rows)?, drawn: random.map(drawn) })
        };
        let layers = kind_of.into_iter().enumerate().map(layer).collect::<Result<_>>()?;
        let tile_words = kinds.len().max(1) * table_words(heads, max_chunk).next_multiple_of(ELEMENT_ALIGNMENT);
        Ok(Self {
            heads,
            kinds,
            layers,
            tiles: Buffer::persistent("cache tiles", Kind::U32, tile_words),
            positions: Buffer::persistent("cache positions", Kind::U32, max_chunk),
            pairs: Buffer::persistent("cache pairs", Kind::U32, MAX_PARTS * ELEMENT_ALIGNMENT),
            capacity,
            max_chunk,
            n_tokens: 0,
        })
    }

    /// Fills an empty cache with random keys and values, as if `n` tokens had been fed; all layers
    /// get the same values. Benchmarks use it to time generation after a long context without
    /// feeding one. The output of the model after it is meaningless.
    pub fn fill_random(&mut self, device: &mut dyn Executor, n: usize, seed: u64) -> Result<()> {
        assert_eq!(self.n_tokens, 0, "an empty cache is filled");
        if n > self.capacity {
            return Err(self.full());
        }
        let all = || self.layers.iter().flat_map(CacheLayer::pairs);
        let values = random(seed, all().map(Buffer::len).max().unwrap_or(0), 1.0);
        for pairs in all() {
            device.write_real(&pairs.span(), &values[..pairs.len()])?;
        }
        self.n_tokens = n;
        Ok(())
    }

    /// Copies the contents of another cache with the same layers, capacity and chunk size, so that
    /// several texts can continue from one prefix.
    pub(crate) fn copy_from(&mut self, device: &mut dyn Executor, other: &Self) -> Result<()> {
        let layers = |c: &Self| c.layers.iter().map(|layer| c.kinds[layer.kind]).collect::<Vec<_>>();
        let kind = |c: &Self| (layers(c), c.heads, c.capacity);
        assert_eq!(kind(self), kind(other), "caches of one kind");
        let mut rec = Recording::new();
        for (own, others) in self.layers.iter().zip(&other.layers) {
            for (own, others) in own.pairs().zip(others.pairs()) {
                rec.copy(&others.span(), &own.span());
            }
        }
        device.run(&rec)?;
        self.n_tokens = other.n_tokens;
        Ok(())
    }

    /// For each layer its storage, its kept part if it has one, and its recent part.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&Storage, Option<&Buffer>, &Buffer)> {
        self.layers.iter().map(|layer| (&self.kinds[layer.kind], layer.kept.as_ref(), &layer.recent))
    }

    /// Elements of a pair.
    pub(super) fn pair_len(&self) -> usize {
        self.heads.kv_cols()
    }

    /// Sets the number of tokens whose pairs the buffers hold.
    pub(super) fn set_n_tokens(&mut self, n: usize) {
        self.n_tokens = n;
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

    /// Maximum number of tokens.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Maximum number of tokens fed at once.
    pub fn max_chunk(&self) -> usize {
        self.max_chunk
    }

    /// Forgets all tokens.
    pub(crate) fn clear(&mut self) {
        self.n_tokens = 0;
    }

    /// Bytes of the keys and values of all layers, for as many tokens as the cache can hold.
    pub fn reserved_bytes(&self) -> u64 {
        self.layers.iter().flat_map(CacheLayer::pairs).map(|pairs| pairs.len() as u64 * 4).sum()
    }

    /// Entries per head, now, in a layer with full attention, or in the first layer if no layer has
    /// full attention.
    pub fn n_entries(&self) -> usize {
        self.entries_after(self.n_tokens)
    }

    /// Entries per head after `n` tokens in a layer with full attention, or in the first layer if
    /// no layer has full attention.
    pub fn entries_after(&self, n: usize) -> usize {
        let is_full = |kind: &&Storage| matches!(kind.attention, LayerAttention::Full(_));
        let kind = self.kinds.iter().find(is_full).or(self.kinds.first());
        kind.map_or(0, |kind| kind.attention.cache_length(n))
    }

    /// Bytes of the entries of all layers, now.
    pub fn n_bytes(&self) -> u64 {
        self.bytes_after(self.n_tokens)
    }

    /// Bytes of the entries of all layers after `n` tokens, each layer according to its attention.
    pub fn bytes_after(&self, n: usize) -> u64 {
        let entries: usize = self.layers.iter().map(|l| self.kinds[l.kind].attention.cache_length(n)).sum();
        (entries * self.heads.kv_cols() * 4) as u64
    }

    /// How many of the next `available` tokens to feed at once, at most the chunk size.
    pub fn chunk(&self, available: usize) -> usize {
        let wanted = available.min(self.max_chunk);
        self.kinds.iter().fold(wanted, |n, kind| chunk_length(kind, self.heads, self.n_tokens, n))
    }

    /// Starts a chunk of `n` tokens and uploads its tables. [`Cache::chunk`] limits `n`.
    pub fn begin(&mut self, device: &mut dyn Executor, n: usize) -> Result<CacheStep> {
        let bound = Bound::of(&device.limits());
        self.begin_within(device, n, bound)
    }

    /// [`Cache::begin`] with tables cut into slices within a bound.
    pub(super) fn begin_within(&mut self, device: &mut dyn Executor, n: usize, bound: Bound) -> Result<CacheStep> {
        assert!(n > 0 && n == self.chunk(n), "a chunk of {n} tokens is longer than the cache takes at once");
        if self.n_tokens + n > self.capacity {
            return Err(self.full());
        }
        let mut tiles = Vec::new();
        let parts = self.kinds.iter().map(|kind| cut(kind, self.heads, self.n_tokens, n, bound, &mut tiles)).collect();
        let step = CacheStep { n_tokens: n, position: self.n_tokens, positions: self.positions.slice(0, n), parts };
        let positions: Vec<u32> = (0..n).map(|i| (step.position + i) as u32).collect();
        device.write_words(&step.positions, &positions)?;
        device.write_words(&self.tiles.span(), &tiles)?;
        for (kind, parts) in step.parts.iter().enumerate() {
            if let Some(l) = self.kinds[kind].attention.lrsa() {
                self.begin_compression(device, &l, parts)?;
            }
        }
        Ok(step)
    }

    /// Uploads the partition pairs or the random rows for the partitions that this chunk
    /// compresses.
    fn begin_compression(&self, device: &mut dyn Executor, l: &Lrsa, parts: &[Part]) -> Result<()> {
        for (i, part) in parts.iter().enumerate() {
            let Some(compress) = part.compress else { continue };
            match l.selection() {
                Selection::Scored => device.write_words(&self.pair(i), &compress.pair)?,
                Selection::Random { seed } => {
                    for (layer, drawn) in
                        self.layers.iter().enumerate().filter_map(|(i, l)| Some((i, l.drawn.as_ref()?)))
                    {
                        let rows = compress.random_rows(l, seed, layer, self.heads.keys);
                        device.write_words(&self.drawn(drawn, i, l), &rows)?;
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

    fn drawn(&self, of_layer: &Buffer, part: usize, l: &Lrsa) -> Span {
        of_layer.slice(part * drawn_words(self.heads, l), self.heads.keys * l.kept())
    }

    /// Appends the attention of one layer for the chunk. For each part in turn, it stores the kv
    /// rows, attends, and compresses a partition if one is full.
    ///
    /// q [n, H·d] and kv [n, 2·Hk·d], both rotated → [n, H·d]. `scale` multiplies the scores.
    pub fn attend(
        &self,
        rec: &mut Recording,
        layer: usize,
        step: &CacheStep,
        q: &Tensor,
        kv: &Tensor,
        scale: f32,
    ) -> Tensor {
        let out = Tensor::transient(rec, "attention", q.rows, q.cols);
        self.attend_into(rec, layer, step, [q, kv, &out], scale);
        out
    }

    /// [`Cache::attend`] of q and kv, with the output written to `out`.
    pub(super) fn attend_into(
        &self,
        rec: &mut Recording,
        layer: usize,
        step: &CacheStep,
        [q, kv, out]: [&Tensor; 3],
        scale: f32,
    ) {
        for (i, part) in step.parts[self.layers[layer].kind].iter().enumerate() {
            let [q, kv, out] = [q, kv, out].map(|t| part.rows_of(t));
            self.attend_part(rec, layer, (i, part), [&q, &kv, &out], scale);
        }
    }

    fn attend_part(
        &self,
        rec: &mut Recording,
        layer: usize,
        (i, part): (usize, &Part),
        [q, kv, out]: [&Tensor; 3],
        scale: f32,
    ) {
        self.store_part(rec, layer, part, kv);
        self.with_keys(layer, part, scale, |keys| {
            attend_cached(rec, q, keys, part.n_keys, self.heads, out);
        });
        self.compress_part(rec, layer, (i, part));
    }

    /// Stores the pairs of a part.
    fn store_part(&self, rec: &mut Recording, layer: usize, part: &Part, kv: &Tensor) {
        let CacheLayer { kept, recent, .. } = &self.layers[layer];
        let own = kept.as_ref().filter(|_| part.in_sink).unwrap_or(recent).span();
        store(rec, kv, &own, part.store_row, part.ring);
    }

    /// Passes the keys that the queries of a part see.
    fn with_keys<R>(&self, layer: usize, part: &Part, scale: f32, f: impl FnOnce(&Keys<'_>) -> R) -> R {
        let CacheLayer { kept, recent, .. } = &self.layers[layer];
        let (kept, recent) = (kept.as_ref().unwrap_or(recent).span(), recent.span());
        let own = if part.in_sink { &kept } else { &recent };
        let tiles = TileTable::new::<QueryTile>(self.tiles.span(), part.slices.clone());
        f(&Keys { recent: own, kept: &kept, tiles: &tiles, ring: part.ring, scale })
    }

    /// Compresses a partition if a part has filled one.
    fn compress_part(&self, rec: &mut Recording, layer: usize, (i, part): (usize, &Part)) {
        let CacheLayer { kind, kept, recent, drawn } = &self.layers[layer];
        let (kept, recent) = (kept.as_ref().unwrap_or(recent).span(), recent.span());
        if let (Some(l), Some(compress)) = (&self.kinds[*kind].attention.lrsa(), part.compress) {
            let rows = match (l.selection(), drawn) {
                (Selection::Nothing, _) => return,
                (_, Some(drawn)) => self.drawn(drawn, i, l),
                (_, None) => {
                    let pairs = Pairs { lrsa: l, n: 1, table: &self.pair(i) };
                    select::select_pairs(rec, &recent, &pairs, self.heads, part.ring)
                }
            };
            select::gather(rec, &recent, &rows, &kept, self.heads, l.kept(), compress.out_row);
        }
    }

    /// Advances the cache by a chunk, after its recording has run.
    pub fn commit(&mut self, step: &CacheStep) {
        assert_eq!(step.position, self.n_tokens, "chunks are committed in their order");
        self.n_tokens += step.n_tokens;
    }
}

/// Appends the attention of one layer for a token of each sequence, with the results of
/// [`Cache::attend_into`]. The sequences may attend side by side. `rows` are q, kv and the output of
/// each. Appends nothing and returns false if a chunk is longer, or the heads are too large for the
/// decode kernels.
pub(super) fn attend_tokens(
    rec: &mut Recording,
    layer: usize,
    sequences: &[(&Cache, &CacheStep)],
    rows: &[[&Tensor; 3]],
    scale: f32,
) -> bool {
    if !sequences.iter().all(|(cache, step)| step.n_tokens == 1 && decode::takes(cache.heads)) {
        return false;
    }
    let part = |(cache, step): &(&Cache, &'_ CacheStep)| step.parts[cache.layers[layer].kind][0].clone();
    let tokens: Vec<(&Cache, Part)> = sequences.iter().map(|s| (s.0, part(s))).collect();
    for ((cache, part), [_, kv, _]) in tokens.iter().zip(rows) {
        cache.store_part(rec, layer, part, kv);
    }
    let first = rec.commands().len();
    let ranges = tokens.iter().zip(rows).map(|((cache, part), [q, ..])| {
        cache.with_keys(layer, part, scale, |keys| decode::ranges(rec, q, keys, part.n_keys, cache.heads))
    });
    let ranges: Vec<decode::Ranges> = ranges.collect();
    rec.mark_side_by_side(first);
    for (ranges, [.., out]) in ranges.iter().zip(rows) {
        decode::combine(rec, ranges, out);
    }
    for (cache, part) in &tokens {
        cache.compress_part(rec, layer, (0, part));
    }
    true
}

/// Words of the table for the kept rows of one partition.
fn drawn_words(heads: Heads, l: &Lrsa) -> usize {
    (heads.keys * l.kept()).next_multiple_of(ELEMENT_ALIGNMENT)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Attention;
    use super::*;
    use crate::gpu::CpuExecutor;
    use crate::tensor::Format;

    pub(in crate::attention) const HEADS: Heads = Heads { queries: 2, keys: 2, dim: 8 };

    fn cache() -> Cache {
        let lrsa = Lrsa::new(2, 8, 0.5).unwrap();
        let layers = [LayerAttention::Window(5), Attention::Lrsa(lrsa).into(), LayerAttention::Window(30)];
        Cache::new(&layers, HEADS, 100, 16).unwrap()
    }

    /// Feeds `n` tokens with values from a seed; returns the outputs of all layers.
    fn feed(device: &mut CpuExecutor<f32>, cache: &mut Cache, n: usize, seed: u64) -> Vec<f32> {
        let (mut outs, mut fed) = (Vec::new(), 0);
        while fed < n {
            let chunk = cache.chunk(n - fed);
            outs.extend(feed_chunk(device, cache, chunk, seed + fed as u64));
            fed += chunk;
        }
        outs
    }

    /// Feeds a chunk of `n` tokens to a cache of [`HEADS`]; returns the outputs of all layers.
    pub(in crate::attention) fn feed_chunk(
        device: &mut CpuExecutor<f32>,
        cache: &mut Cache,
        n: usize,
        seed: u64,
    ) -> Vec<f32> {
        let step = cache.begin(device, n).unwrap();
        let rows = |device: &mut CpuExecutor<f32>, seed, cols: usize| {
            let t = Tensor::persistent("rows", Format::F32, n, cols, &device.limits()).unwrap();
            t.write(device, &random(seed, n * cols, 1.0)).unwrap();
            t
        };
        let (q, kv) = (rows(device, seed, 16), rows(device, seed + 1, 32));
        let mut rec = Recording::new();
        let mut outs = Vec::new();
        for layer in 0..cache.layers.len() {
            let out = cache.attend(&mut rec, layer, &step, &q, &kv, HEADS.scale());
            let copy = Buffer::persistent("out", Kind::Real, out.len()).span();
            rec.copy(out.span(), &copy);
            outs.push(copy);
        }
        device.run(&rec).unwrap();
        cache.commit(&step);
        outs.iter().flat_map(|out| device.read_real(out).unwrap()).collect()
    }

    #[test]
    fn a_copy_goes_on_as_the_original() {
        let device = &mut CpuExecutor::<f32>::new();
        let (mut original, mut copy) = (cache(), cache());
        for seed in 0..4 {
            feed(device, &mut original, 11, 10 * seed);
        }
        copy.copy_from(device, &original).unwrap();
        assert_eq!((copy.n_tokens(), copy.n_bytes()), (44, original.n_bytes()));
        for seed in 5..8 {
            assert_eq!(feed(device, &mut copy, 7, 10 * seed), feed(device, &mut original, 7, 10 * seed));
        }
    }

    #[test]
    fn a_filled_cache_is_in_the_state_after_so_many_tokens() {
        let device = &mut CpuExecutor::<f32>::new();
        let mut cache = cache();
        cache.fill_random(device, 60, 1).unwrap();
        let entries = 5 + Lrsa::new(2, 8, 0.5).unwrap().cache_length(60) + 30;
        assert_eq!(cache.n_bytes(), (entries * HEADS.kv_cols() * 4) as u64);
        // Unwritten memory is NaN.
        assert!(feed(device, &mut cache, 13, 3).iter().all(|x| x.is_finite()));
    }

    #[test]
    fn a_ring_takes_memory_for_its_window() {
        let rows = |cache: &Cache| cache.layers.iter().map(|l| l.recent.len() / HEADS.kv_cols()).collect::<Vec<_>>();
        // Chunks of 16: the rings hold W - 1 rows plus those of one part; the LRSA ring holds two
        // lags.
        assert_eq!(rows(&cache()), [20, 16, 45]);
        assert!(cache().layers[0].kept.is_none());
    }
}
