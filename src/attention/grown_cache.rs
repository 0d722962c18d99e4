//! A cache that moves to more memory, and the check that there is enough.
//!
//! Rows keep their places: those of a dense layer lie by position, kept ones in the order of their
//! selection, and a ring has the same rows in every cache of at least the same capacity, since a
//! smaller ring has not wrapped yet.

use super::cache::CacheLayer;
use super::{Attention, Cache, LayerAttention, Lrsa};
use crate::error::{Context, Result};
use crate::gpu::{Buffer, Executor, Kind, Recording};

impl Cache {
    /// Fails if the device is known to lack the memory for this cache, before allocating any.
    pub fn check(&self, device: &dyn Executor) -> Result<()> {
        let mut touched = Recording::new();
        for pairs in self.layers.iter().flat_map(CacheLayer::pairs) {
            touched.clear(&pairs.span());
        }
        device.check(&touched).with_context(|| self.size_text())
    }

    /// What this cache is, for an error about memory. A dense one says what compression makes of it.
    fn size_text(&self) -> String {
        let tokens = format!("a cache for {} tokens", self.capacity);
        let compressed = |attention: LayerAttention| match attention {
            LayerAttention::Full(Attention::Dense) => LayerAttention::Full(Attention::Lrsa(Lrsa::default())),
            other => other,
        };
        let entries = |l: &CacheLayer| compressed(self.kinds[l.kind].attention).cache_length(self.capacity);
        let bytes = (self.layers.iter().map(entries).sum::<usize>() * self.heads.kv_cols() * 4) as u64;
        let (own, mib) = (self.bytes_after(self.capacity), |bytes: u64| bytes as f64 / f64::from(1 << 20));
        if bytes >= own {
            return tokens;
        }
        format!("{tokens} takes {:.0} MiB, and {:.0} MiB with `attention` 4x", mib(own), mib(bytes))
    }

    /// Fails if the device is known to lack the memory for this cache even when `freed` bytes of
    /// what is in use are given back. Allocates nothing.
    pub(crate) fn check_after_freeing(&self, device: &dyn Executor, freed: u64) -> Result<()> {
        let limits = device.limits();
        let most = limits.max_binding_bytes.min(limits.max_buffer_bytes);
        let buffers = || self.layers.iter().flat_map(CacheLayer::pairs);
        if buffers().any(|pairs| pairs.n_bytes() > most) {
            return self.check(device);
        }
        let mut freed = usize::try_from(freed / 4).unwrap_or(usize::MAX);
        let mut needed = Recording::new();
        for pairs in buffers() {
            let covered = freed.min(pairs.len());
            freed -= covered;
            if pairs.len() > covered {
                needed.clear(&Buffer::persistent(pairs.label(), Kind::Real, pairs.len() - covered).span());
            }
        }
        device.check(&needed).with_context(|| self.size_text())
    }

    /// Makes room for `capacity` tokens, not fewer than now. The layers move one after the other, so
    /// that only one takes memory twice. After an error the cache is what it was before.
    pub(crate) fn grow(&mut self, device: &mut dyn Executor, capacity: usize) -> Result<()> {
        assert!(capacity >= self.capacity, "a cache for {} tokens does not shrink to {capacity}", self.capacity);
        let layers: Vec<LayerAttention> = self.layers.iter().map(|l| self.kinds[l.kind].attention).collect();
        let larger = Self::new(&layers, self.heads, capacity, self.max_chunk())?;
        let of_layer = |layer: &CacheLayer| layer.pairs().map(Buffer::n_bytes).sum::<u64>();
        let twice = self.layers.iter().map(of_layer).max().unwrap_or(0);
        larger.check_after_freeing(device, self.reserved_bytes() - twice)?;
        for (own, new) in self.layers.iter_mut().zip(&larger.layers) {
            let mut rec = Recording::new();
            for (own, new) in own.pairs().zip(new.pairs()) {
                rec.copy(&own.span(), &new.slice(0, own.len()));
            }
            device.run(&rec)?;
            device.wait()?;
            // Until all layers have moved, this one uses no more rows than before.
            (own.kept, own.recent) = (new.kept.clone(), new.recent.clone());
        }
        (self.kinds, self.capacity) = (larger.kinds, capacity);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Heads;
    use super::super::saved_cache::tests::{feed_singly, mixed_cache};
    use super::*;
    use crate::error::ErrorKind;
    use crate::gpu::CpuExecutor;

    #[test]
    fn a_grown_cache_goes_on_as_one_that_was_large_from_the_start() {
        let device = &mut CpuExecutor::<f32>::new();
        for (capacity, n) in [(20, 1), (20, 9), (20, 20), (32, 30), (48, 47), (64, 64)] {
            let [mut small, mut large] = [mixed_cache(capacity), mixed_cache(200)];
            feed_singly(device, &mut small, n, 1000);
            feed_singly(device, &mut large, n, 1000);
            small.grow(device, 200).unwrap();
            assert_eq!((small.n_tokens(), small.capacity()), (n, 200));
            assert_eq!((small.n_bytes(), small.reserved_bytes()), (large.n_bytes(), large.reserved_bytes()));
            // Unwritten memory is NaN, so a missing row would show.
            let expected = feed_singly(device, &mut large, 90, 7);
            assert!(expected.iter().all(|x| x.is_finite()));
            assert_eq!(feed_singly(device, &mut small, 90, 7), expected, "{n} tokens in room for {capacity}");
        }
    }

    #[test]
    fn a_cache_that_cannot_grow_stays() {
        let mut device = CpuExecutor::<f32>::new();
        let [mut small, mut same] = [mixed_cache(64), mixed_cache(64)];
        feed_singly(&mut device, &mut small, 40, 1000);
        feed_singly(&mut device, &mut same, 40, 1000);
        let mut device = device.pretending_memory(0);
        let e = small.grow(&mut device, 4096).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfMemory);
        assert!(e.to_string().contains("a cache for 4096 tokens"), "{e}");
        assert_eq!((small.n_tokens(), small.capacity()), (40, 64));
        let mut device = device.pretending_memory(u64::MAX);
        assert_eq!(feed_singly(&mut device, &mut small, 20, 7), feed_singly(&mut device, &mut same, 20, 7));
    }

    #[test]
    fn a_dense_cache_without_memory_says_what_a_compressed_one_takes() {
        let device = CpuExecutor::<f32>::new().pretending_memory(0);
        let heads = Heads { queries: 4, keys: 2, dim: 64 };
        let refused = |attention: Attention, capacity: usize| {
            let layers = [LayerAttention::Full(attention), LayerAttention::Window(128)];
            let cache = Cache::new(&layers, heads, capacity, 64).unwrap();
            cache.check(&device).unwrap_err().to_string()
        };
        let dense = refused(Attention::Dense, 20_000);
        // 20,128 pairs of 1 KiB, and 16 + 155 · 32 and at most 2 · 128 for the layer with full attention.
        let expected = "a cache for 20000 tokens takes 20 MiB, and 5 MiB with `attention` 4x: this takes";
        assert!(dense.starts_with(expected), "{dense}");
        for short in [refused(Attention::Dense, 200), refused(Attention::Lrsa(Lrsa::default()), 20_000)] {
            assert!(!short.contains("4x"), "{short}");
        }
    }

    #[test]
    fn what_is_given_back_counts_as_free() {
        let mut device = CpuExecutor::<f32>::new().pretending_memory(0);
        let cache = mixed_cache(64);
        let bytes = cache.reserved_bytes();
        assert!(cache.check_after_freeing(&device, bytes).is_ok());
        assert_eq!(cache.check_after_freeing(&device, bytes - 4).unwrap_err().kind(), ErrorKind::OutOfMemory);
        device = device.pretending_memory(4);
        assert!(cache.check_after_freeing(&device, bytes - 4).is_ok());
    }
}
