//! Parts of a cache: what the cache of a text holds beyond the cache of its beginning.
//!
//! Texts with a common beginning can share the parts of it. A part has two kinds of rows. Lasting
//! rows stay in the caches of all longer texts: the pairs of a dense layer, and the selected pairs
//! of a compressed one. Recent rows belong to the cache after the last token of the part alone: the
//! recent pairs of a compressed layer, and the ring of a layer with a sliding window. Without them a
//! part is still a step on the way to longer texts.

use std::ops::Range;

use super::cache::Cache;
use super::cache_step::{Fill, Storage};
use super::{Attention, LayerAttention};
use crate::error::Result;
use crate::gpu::{Buffer, ELEMENT_ALIGNMENT, Executor, Kind, Recording, Span};

/// What the cache of `to` tokens holds beyond the cache of their first `from` tokens.
#[derive(Clone, Debug)]
pub struct CachePart {
    from: usize,
    to: usize,
    /// The lasting rows of all layers, one after the other. `None` if there are none.
    lasting: Option<Buffer>,
    /// The recent rows of all layers, one after the other.
    recent: Recent,
}

/// Recent rows of a part.
#[derive(Clone, Debug)]
enum Recent {
    /// All layers are dense.
    Nothing,
    Rows(Buffer),
    Dropped,
}

impl CachePart {
    /// Tokens of the text before the part, and with it.
    pub fn tokens(&self) -> Range<usize> {
        self.from..self.to
    }

    /// Bytes on the device.
    pub fn n_bytes(&self) -> u64 {
        self.lasting_bytes() + self.recent_bytes()
    }

    /// Bytes of the rows that stay in the caches of all longer texts.
    pub fn lasting_bytes(&self) -> u64 {
        self.lasting.as_ref().map_or(0, bytes_of)
    }

    /// Bytes of the rows that [`CachePart::drop_recent`] drops.
    pub fn recent_bytes(&self) -> u64 {
        if let Recent::Rows(rows) = &self.recent { bytes_of(rows) } else { 0 }
    }

    /// Whether a cache can end with this part: it has its recent rows.
    pub fn is_whole(&self) -> bool {
        !matches!(self.recent, Recent::Dropped)
    }

    /// Drops the recent rows. The part then only leads to the parts that follow it.
    pub fn drop_recent(&mut self) {
        if let Recent::Rows(_) = self.recent {
            self.recent = Recent::Dropped;
        }
    }

    /// Takes the recent rows of another part that ends at the same token of the same text.
    pub fn take_recent(&mut self, other: Self) {
        assert_eq!(self.to, other.to, "parts that end at one token");
        self.recent = other.recent;
    }
}

fn bytes_of(rows: &Buffer) -> u64 {
    rows.len() as u64 * 4
}

/// Rows of one layer that a part holds.
struct Rows {
    lasting: Range<usize>,
    /// In the order of the text; two ranges if they wrap around the ring.
    recent: [Range<usize>; 2],
}

impl Rows {
    fn of(storage: &Storage, tokens: &Range<usize>) -> Self {
        let (before, after) = (Fill::after(storage, tokens.start), Fill::after(storage, tokens.end));
        let ring = match storage.attention {
            LayerAttention::Full(Attention::Dense) => return Self { lasting: tokens.clone(), recent: [0..0, 0..0] },
            LayerAttention::Full(Attention::Lrsa(l)) => 2 * l.lag(),
            LayerAttention::Window(_) => storage.recent_rows,
        };
        let (start, end) = (after.recent_start, after.recent_start + after.recent_len);
        let recent = [start..end.min(ring), 0..end.saturating_sub(ring)];
        Self { lasting: before.n_kept..after.n_kept, recent }
    }

    fn n_recent(&self) -> usize {
        self.recent.iter().map(ExactSizeIterator::len).sum()
    }
}

impl Cache {
    /// Lasting and recent rows of the part for these tokens, over all layers. `None` if the rows are
    /// too short to be copied one by one.
    fn n_rows(&self, tokens: &Range<usize>) -> Option<[usize; 2]> {
        let rows = self.parts().map(|(storage, ..)| Rows::of(storage, tokens));
        let add = |[lasting, recent]: [usize; 2], rows: Rows| [lasting + rows.lasting.len(), recent + rows.n_recent()];
        self.pair_len().is_multiple_of(ELEMENT_ALIGNMENT).then(|| rows.fold([0, 0], add))
    }

    /// Bytes of the part that [`Cache::save_part`] would return; 0 if it would return none.
    pub fn part_bytes(&self, from: usize) -> u64 {
        let [lasting, recent] = self.n_rows(&(from..self.n_tokens())).unwrap_or_default();
        ((lasting + recent) * self.pair_len()) as u64 * 4
    }

    /// What this cache holds beyond the cache of its first `from` tokens, as a copy on the device; the
    /// recent rows alone if these are all its tokens. `None` if there is nothing, or if its rows are
    /// too short to be copied one by one.
    pub fn save_part(&self, device: &mut dyn Executor, from: usize) -> Result<Option<CachePart>> {
        let tokens = from..self.n_tokens();
        let Some([n_lasting, n_recent]) = self.n_rows(&tokens).filter(|n| *n != [0, 0]) else { return Ok(None) };
        let copy = |n: usize, label: &str| (n > 0).then(|| Buffer::persistent(label, Kind::Real, n * self.pair_len()));
        let lasting = copy(n_lasting, "lasting part of a cache");
        let recent = copy(n_recent, "recent part of a cache").map_or(Recent::Nothing, Recent::Rows);
        let part = CachePart { from, to: tokens.end, lasting, recent };
        let mut rec = Recording::new();
        self.each_run(&part, true, |cache, part| rec.copy(&cache, &part));
        device.run(&rec)?;
        Ok(Some(part))
    }

    /// Fills this empty cache with the parts of another cache of the same layers, from the first
    /// token on. The last one has its recent rows.
    pub fn load_parts(&mut self, device: &mut dyn Executor, parts: &[&CachePart]) -> Result<()> {
        assert_eq!(self.n_tokens(), 0, "an empty cache is filled");
        assert!(parts.last().is_none_or(|part| part.is_whole()), "a cache ends with its recent rows");
        let mut rec = Recording::new();
        let mut n_tokens = 0;
        for (i, part) in parts.iter().enumerate() {
            assert_eq!(part.from, n_tokens, "parts that follow each other");
            n_tokens = part.to;
            self.each_run(part, i + 1 == parts.len(), |cache, part| rec.copy(&part, &cache));
        }
        crate::ensure!(n_tokens <= self.capacity(), "a cache for {} tokens cannot take {n_tokens}", self.capacity());
        device.run(&rec)?;
        self.set_n_tokens(n_tokens);
        Ok(())
    }

    /// Calls `each` with every run of rows of the cache and its place in the part, with the recent
    /// rows if the part is the last.
    fn each_run(&self, part: &CachePart, is_last: bool, mut each: impl FnMut(Span, Span)) {
        let cols = self.pair_len();
        let recent_rows = if let Recent::Rows(rows) = &part.recent { Some(rows).filter(|_| is_last) } else { None };
        let (mut at_lasting, mut at_recent) = (0, 0);
        let mut run = |of_cache: &Buffer, rows: &Range<usize>, of_part: Option<&Buffer>, at: &mut usize| {
            if let Some(of_part) = of_part.filter(|_| !rows.is_empty()) {
                let n = rows.len() * cols;
                each(of_cache.slice(rows.start * cols, n), of_part.slice(*at * cols, n));
                *at += rows.len();
            }
        };
        for (storage, kept, recent) in self.parts() {
            let rows = Rows::of(storage, &part.tokens());
            run(kept.unwrap_or(recent), &rows.lasting, part.lasting.as_ref(), &mut at_lasting);
            for rows in &rows.recent {
                run(recent, rows, recent_rows, &mut at_recent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Heads, Lrsa};
    use super::*;
    use crate::gpu::CpuExecutor;

    const HEADS: Heads = Heads { queries: 2, keys: 2, dim: 16 };

    fn cache(capacity: usize) -> Cache {
        let lrsa = Lrsa::new(4, 16, 0.25).unwrap();
        let layers = [
            Attention::Lrsa(lrsa).into(),
            LayerAttention::Window(20),
            Attention::Dense.into(),
            LayerAttention::Window(500),
        ];
        Cache::new(&layers, HEADS, capacity, 16).unwrap()
    }

    /// All rows that a query after the text sees, layer by layer.
    fn content(device: &mut CpuExecutor<f32>, cache: &Cache) -> Vec<f32> {
        let part = cache.save_part(device, 0).unwrap().unwrap();
        let Recent::Rows(recent) = &part.recent else { panic!("recent rows") };
        let rows = part.lasting.iter().chain([recent]);
        rows.flat_map(|rows| device.read_real(&rows.span()).unwrap()).collect()
    }

    /// A cache whose rows hold their token, as far as the rows were not dropped.
    fn fed(device: &mut CpuExecutor<f32>, cache: &mut Cache, n: usize) {
        use crate::kernels::case::random;
        use crate::tensor::{Format, Tensor};
        while cache.n_tokens() < n {
            let chunk = cache.chunk(n - cache.n_tokens());
            let step = cache.begin(device, chunk).unwrap();
            let mut rec = Recording::new();
            let tensor = |device: &mut CpuExecutor<f32>, seed: usize, cols: usize| {
                let t = Tensor::persistent("rows", Format::F32, chunk, cols, &device.limits()).unwrap();
                // Values depend on the place in the text alone.
                let rows: Vec<f32> =
                    (0..chunk).flat_map(|i| random((seed + step.position + i) as u64, cols, 1.0)).collect();
                t.write(device, &rows).unwrap();
                t
            };
            for layer in 0..cache.parts().count() {
                let q = tensor(device, 10_000 * layer, HEADS.queries * HEADS.dim);
                let kv = tensor(device, 10_000 * layer + 5_000, HEADS.kv_cols());
                cache.attend(&mut rec, layer, &step, &q, &kv, HEADS.scale());
            }
            device.run(&rec).unwrap();
            cache.commit(&step);
        }
    }

    #[test]
    fn parts_make_the_cache_that_they_came_from() {
        let device = &mut CpuExecutor::<f32>::new();
        for (ends, capacity) in
            [(vec![20], 33), (vec![4, 36, 52], 60), (vec![20, 100, 132], 140), (vec![7, 61, 95], 800)]
        {
            let mut whole = cache(160);
            let mut parts: Vec<CachePart> = Vec::new();
            for &end in &ends {
                fed(device, &mut whole, end);
                let from = parts.last().map_or(0, |part| part.to);
                parts.push(whole.save_part(device, from).unwrap().unwrap());
            }
            // Parts before the last need no recent rows.
            let n_parts = parts.len();
            parts[..n_parts - 1].iter_mut().for_each(CachePart::drop_recent);
            let mut other = cache(capacity);
            other.load_parts(device, &parts.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!(other.n_tokens(), whole.n_tokens());
            assert_eq!(content(device, &other), content(device, &whole), "{ends:?}");
            // And goes on as the other would.
            let more = whole.n_tokens() + 23.min(capacity - whole.n_tokens());
            fed(device, &mut other, more);
            fed(device, &mut whole, more);
            assert_eq!(content(device, &other), content(device, &whole), "after {ends:?}");
        }
    }

    #[test]
    fn a_part_is_as_large_as_what_it_adds() {
        let device = &mut CpuExecutor::<f32>::new();
        let mut cache = cache(200);
        fed(device, &mut cache, 36);
        fed(device, &mut cache, 68);
        let bytes = |rows: usize| (rows * HEADS.kv_cols() * 4) as u64;
        let part = cache.save_part(device, 36).unwrap().unwrap();
        assert_eq!(part.tokens(), 36..68);
        // Two partitions give 4 pairs each, and there are 32 dense ones.
        assert_eq!(part.lasting_bytes(), bytes(8 + 32));
        // 16 recent pairs of the compressed layer, a ring of 20, and the whole long window.
        assert_eq!(part.recent_bytes(), bytes(16 + 20 + 68));
        assert_eq!((part.n_bytes(), cache.part_bytes(36)), (bytes(144), bytes(144)));
        // After the last token only the recent rows are left.
        let end = cache.save_part(device, 68).unwrap().unwrap();
        assert_eq!((end.lasting_bytes(), end.recent_bytes()), (0, bytes(104)));
        assert_eq!(cache.part_bytes(68), bytes(104));
    }

    #[test]
    fn recent_rows_can_be_dropped_and_come_back() {
        let device = &mut CpuExecutor::<f32>::new();
        let mut whole = cache(200);
        fed(device, &mut whole, 52);
        let mut part = whole.save_part(device, 0).unwrap().unwrap();
        part.drop_recent();
        assert!(!part.is_whole() && part.n_bytes() == part.lasting_bytes());
        part.take_recent(whole.save_part(device, 52).unwrap().unwrap());
        assert!(part.is_whole());
        let mut other = cache(200);
        other.load_parts(device, &[&part]).unwrap();
        assert_eq!(content(device, &other), content(device, &whole));
    }

    #[test]
    fn a_dense_cache_has_lasting_rows_alone() {
        let device = &mut CpuExecutor::<f32>::new();
        let mut dense = Cache::new(&[Attention::Dense.into(); 2], HEADS, 100, 16).unwrap();
        fed(device, &mut dense, 40);
        let mut part = dense.save_part(device, 16).unwrap().unwrap();
        assert_eq!((part.lasting_bytes(), part.recent_bytes()), ((2 * 24 * HEADS.kv_cols() * 4) as u64, 0));
        part.drop_recent();
        assert!(part.is_whole(), "there is nothing to drop");
        assert!(dense.save_part(device, 40).unwrap().is_none());
        assert_eq!(dense.part_bytes(40), 0);
    }
}
