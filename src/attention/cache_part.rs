//! Parts of a cache: what the cache of a text holds beyond the cache of its beginning.
//!
//! Texts with a common beginning can share the parts of it. A dense layer has the pairs of the new
//! tokens in a part, a compressed one the newly selected pairs and all recent ones, and a layer with
//! a sliding window all pairs of its ring.

use std::ops::Range;

use super::cache::Cache;
use super::cache_step::{Fill, Storage};
use super::{Attention, LayerAttention};
use crate::error::Result;
use crate::gpu::{Buffer, ELEMENT_ALIGNMENT, Executor, Kind, Recording};

/// What the cache of `to` tokens holds beyond the cache of their first `from` tokens.
#[derive(Clone, Debug)]
pub struct CachePart {
    from: usize,
    to: usize,
    /// The rows of all layers, one after the other: newly kept ones, then recent ones.
    rows: Buffer,
}

impl CachePart {
    /// Tokens of the text before the part, and with it.
    pub fn tokens(&self) -> Range<usize> {
        self.from..self.to
    }

    /// Bytes on the device.
    pub fn n_bytes(&self) -> u64 {
        self.rows.len() as u64 * 4
    }
}

/// Rows of one layer that a part holds.
struct Rows {
    kept: Range<usize>,
    /// In the order of the text; two ranges if they wrap around the ring.
    recent: [Range<usize>; 2],
    /// Whether the recent rows replace those of the parts before, rather than follow them.
    replaces: bool,
}

impl Rows {
    fn of(storage: &Storage, tokens: &Range<usize>) -> Self {
        let (before, after) = (Fill::after(storage, tokens.start), Fill::after(storage, tokens.end));
        let ring = match storage.attention {
            LayerAttention::Full(Attention::Dense) => {
                return Self { kept: 0..0, recent: [tokens.clone(), 0..0], replaces: false };
            }
            LayerAttention::Full(Attention::Lrsa(l)) => 2 * l.lag(),
            LayerAttention::Window(_) => storage.recent_rows,
        };
        let (start, end) = (after.recent_start, after.recent_start + after.recent_len);
        let recent = [start..end.min(ring), 0..end.saturating_sub(ring)];
        Self { kept: before.n_kept..after.n_kept, recent, replaces: true }
    }

    fn n_recent(&self) -> usize {
        self.recent.iter().map(ExactSizeIterator::len).sum()
    }

    fn n(&self) -> usize {
        self.kept.len() + self.n_recent()
    }
}

impl Cache {
    /// What this cache holds beyond the cache of its first `from` tokens, as a copy on the device.
    /// `None` if there is nothing, or if its rows are too short to be copied one by one.
    pub fn save_part(&self, device: &mut dyn Executor, from: usize) -> Result<Option<CachePart>> {
        let tokens = from..self.n_tokens();
        let cols = self.pair_len();
        let n_rows: usize = self.parts().map(|(storage, ..)| Rows::of(storage, &tokens).n()).sum();
        if tokens.is_empty() || n_rows == 0 || !cols.is_multiple_of(ELEMENT_ALIGNMENT) {
            return Ok(None);
        }
        let part =
            CachePart { from, to: tokens.end, rows: Buffer::persistent("part of a cache", Kind::Real, n_rows * cols) };
        let mut rec = Recording::new();
        self.each_run(&part, true, |cache, part| rec.copy(&cache, &part));
        device.run(&rec)?;
        Ok(Some(part))
    }

    /// Fills this empty cache with the parts of another cache of the same layers, from the first
    /// token on.
    pub fn load_parts(&mut self, device: &mut dyn Executor, parts: &[&CachePart]) -> Result<()> {
        assert_eq!(self.n_tokens(), 0, "an empty cache is filled");
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

    /// Calls `each` with every run of rows of the cache and its place in the part. Recent rows that
    /// a later part replaces are left out unless the part is the last.
    fn each_run(&self, part: &CachePart, is_last: bool, mut each: impl FnMut(crate::gpu::Span, crate::gpu::Span)) {
        let cols = self.pair_len();
        let mut at = 0;
        for (storage, kept, recent) in self.parts() {
            let rows = Rows::of(storage, &part.tokens());
            let mut run = |buffer: &Buffer, run: &Range<usize>| {
                if !run.is_empty() {
                    let n = run.len() * cols;
                    each(buffer.slice(run.start * cols, n), part.rows.slice(at * cols, n));
                    at += run.len();
                }
            };
            if let Some(kept) = kept {
                run(kept, &rows.kept);
            }
            if is_last || !rows.replaces {
                rows.recent.iter().for_each(|rows| run(recent, rows));
            } else {
                at += rows.n_recent();
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
        device.read_real(&part.rows.span()).unwrap()
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
        let part = cache.save_part(device, 36).unwrap().unwrap();
        assert_eq!(part.tokens(), 36..68);
        // Two partitions give 4 pairs each, beside the 16 recent ones; a ring of 20; 32 dense; the whole long window.
        assert_eq!(part.n_bytes(), ((8 + 16 + 20 + 32 + 68) * HEADS.kv_cols() * 4) as u64);
        assert!(cache.save_part(device, 68).unwrap().is_none());
    }
}
