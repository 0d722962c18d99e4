//! The entries of a cache on the host: all, from which an equal cache continues without reading
//! again, or the rings alone, with which the cache goes back to an earlier place.
//!
//! Entries are the rows of the buffers as they lie, from the first one on. A ring has the same rows
//! in every cache of at least the same capacity, since a smaller ring has not wrapped yet.
//!
//! Only rings are overwritten: the recent rows of compressed layers, and sliding windows. The rows of
//! a dense layer lie by position, and kept rows follow each other in the order of the text. So a
//! cache that was fed further still has these as they were, and needs its rings to go back.

use super::cache_step::{Fill, Storage};
use super::{Attention, Cache, LayerAttention};
use crate::error::{Context, Error, Result};
use crate::formats::host_tensor::HostTensor;
use crate::gpu::{Executor, Span, check_host_memory};

/// The entries of all layers: F32 `[rows, 2·Hk·d]` under `LAYER.kept` and `LAYER.recent`. A part
/// without rows is absent.
pub type CacheEntries = Vec<(String, HostTensor)>;

impl Storage {
    /// Rows of the kept and of the recent part that were written after `n` tokens.
    fn written(&self, n: usize) -> [usize; 2] {
        let fill = Fill::after(self, n);
        let recent = match self.attention {
            LayerAttention::Full(Attention::Lrsa(l)) => n.saturating_sub(l.sink()).min(2 * l.lag()),
            LayerAttention::Full(Attention::Dense) => n,
            LayerAttention::Window(_) => n,
        };
        [fill.n_kept, recent.min(self.recent_rows)]
    }
}

/// A part of the cache that tokens have written.
struct Written {
    /// `LAYER.kept` or `LAYER.recent`.
    name: String,
    span: Span,
    shape: [usize; 2],
    /// Whether later tokens overwrite it.
    is_ring: bool,
}

impl Cache {
    /// The parts that `n` tokens have written.
    fn written(&self, n: usize) -> Vec<Written> {
        let mut parts = Vec::new();
        let cols = self.pair_len();
        for (layer, (storage, kept, recent)) in self.parts().enumerate() {
            let [n_kept, n_recent] = storage.written(n);
            let wraps = storage.attention != LayerAttention::Full(Attention::Dense);
            let named = [("kept", kept, n_kept, false), ("recent", Some(recent), n_recent, wraps)];
            for (part, buffer, rows, is_ring) in named {
                if let (Some(buffer), true) = (buffer, rows > 0) {
                    let (name, span) = (format!("{layer}.{part}"), buffer.slice(0, rows * cols));
                    parts.push(Written { name, span, shape: [rows, cols], is_ring });
                }
            }
        }
        parts
    }

    /// The rings among the parts that `n` tokens have written.
    fn written_rings(&self, n: usize) -> Vec<Written> {
        self.written(n).into_iter().filter(|part| part.is_ring).collect()
    }

    /// Reads the entries from the device. Fails if the host is known to lack the memory for them.
    pub fn entries(&self, device: &mut dyn Executor) -> Result<CacheEntries> {
        check_host_memory(self.n_bytes(), 0).context("copying the cache of the text to save it")?;
        read(device, self.written(self.n_tokens()))
    }

    /// Reads the entries that later tokens overwrite.
    pub fn rings(&self, device: &mut dyn Executor) -> Result<CacheEntries> {
        read(device, self.written_rings(self.n_tokens()))
    }

    /// Bytes of [`Cache::rings`].
    pub fn ring_bytes(&self) -> u64 {
        self.written_rings(self.n_tokens()).iter().map(|part| part.span.len as u64 * 4).sum()
    }

    /// Fills an empty cache with the entries that another cache of the same model and attention had
    /// after `n` tokens. Its capacity was at most that of this one. Fails if the entries do not fit.
    pub fn restore(&mut self, device: &mut dyn Executor, n: usize, entries: &[(String, HostTensor)]) -> Result<()> {
        assert_eq!(self.n_tokens(), 0, "an empty cache is filled");
        crate::ensure!(n <= self.capacity(), "{n} tokens do not fit into a cache for {}", self.capacity());
        let parts = self.written(n);
        let found = matching(&parts, n, entries)?;
        write(device, &parts, &found)?;
        self.set_n_tokens(n);
        Ok(())
    }

    /// Fails if these cannot be the rings that this cache had after `n` tokens.
    pub fn check_rings(&self, n: usize, rings: &[(String, HostTensor)]) -> Result<()> {
        crate::ensure!(n <= self.n_tokens(), "a cache of {} tokens does not go back to {n}", self.n_tokens());
        matching(&self.written_rings(n), n, rings).map(drop)
    }

    /// Goes back to its first `n` tokens, with the rings that it had then. It goes on with the same
    /// bits as at that time. Fails if the rings do not fit, and is then as before.
    pub fn rewind(&mut self, device: &mut dyn Executor, n: usize, rings: &[(String, HostTensor)]) -> Result<()> {
        self.check_rings(n, rings)?;
        let parts = self.written_rings(n);
        let found = matching(&parts, n, rings)?;
        write(device, &parts, &found)?;
        self.set_n_tokens(n);
        Ok(())
    }
}

fn read(device: &mut dyn Executor, parts: Vec<Written>) -> Result<CacheEntries> {
    let read = |part: Written| Ok((part.name, HostTensor::from_f32(&part.shape, &device.read_real(&part.span)?)));
    parts.into_iter().map(read).collect()
}

/// The entry of each part. Fails if one is missing, or has another shape than `n` tokens fill.
fn matching<'a>(parts: &[Written], n: usize, entries: &'a [(String, HostTensor)]) -> Result<Vec<&'a HostTensor>> {
    crate::ensure!(
        parts.len() == entries.len(),
        "the cache of {n} tokens has {} parts, and {} are given",
        parts.len(),
        entries.len()
    );
    let of = |part: &Written| {
        let (name, shape) = (&part.name, part.shape);
        let entry = entries.iter().find(|(given, _)| given == name);
        let (_, tensor) = entry.ok_or_else(|| Error::new(format!("the part {name} of the cache is missing")))?;
        crate::ensure!(
            tensor.shape == shape,
            "the part {name} of the cache has the shape {:?}, and {n} tokens fill {shape:?}",
            tensor.shape
        );
        Ok(tensor)
    };
    parts.iter().map(of).collect()
}

fn write(device: &mut dyn Executor, parts: &[Written], entries: &[&HostTensor]) -> Result<()> {
    for (part, tensor) in parts.iter().zip(entries) {
        let values = tensor.to_f32().with_context(|| format!("the part {} of the cache", part.name))?;
        device.write_real(&part.span, &values)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Lrsa;
    use super::super::cache::tests::{HEADS, feed_chunk};
    use super::*;
    use crate::gpu::CpuExecutor;

    /// A cache of every kind of layer.
    pub(in crate::attention) fn mixed_cache(capacity: usize) -> Cache {
        let lrsa = Lrsa::new(2, 8, 0.5).unwrap();
        let full = [Attention::Lrsa(lrsa), Attention::Dense].map(LayerAttention::from);
        let layers = [full[0], LayerAttention::Window(5), full[1], LayerAttention::Window(30)];
        Cache::new(&layers, HEADS, capacity, 16).unwrap()
    }

    /// Feeds `n` tokens with values from a seed, one by one; returns the outputs of all layers.
    pub(in crate::attention) fn feed_singly(
        device: &mut CpuExecutor<f32>,
        cache: &mut Cache,
        n: usize,
        seed: u64,
    ) -> Vec<f32> {
        (0..n as u64).flat_map(|i| feed_chunk(device, cache, 1, seed + 2 * i)).collect()
    }

    #[test]
    fn a_restored_cache_goes_on_as_the_first_also_with_more_room() {
        let device = &mut CpuExecutor::<f32>::new();
        for n in [1, 2, 9, 17, 18, 19, 31, 45] {
            let mut first = mixed_cache(64);
            feed_singly(device, &mut first, n, 1000);
            let entries = first.entries(device).unwrap();
            let [mut same, mut larger] = [mixed_cache(64), mixed_cache(200)];
            same.restore(device, n, &entries).unwrap();
            larger.restore(device, n, &entries).unwrap();
            assert_eq!((same.n_tokens(), same.n_bytes()), (n, first.n_bytes()));
            // Unwritten memory is NaN, so a missing row would show.
            let expected = feed_singly(device, &mut first, 19, 7);
            assert!(expected.iter().all(|x| x.is_finite()));
            assert_eq!(feed_singly(device, &mut same, 19, 7), expected, "{n} tokens");
            assert_eq!(feed_singly(device, &mut larger, 19, 7), expected, "{n} tokens");
        }
    }

    /// Feeds tokens in chunks of up to 16, the values of each chunk from its place in the text.
    fn feed_chunks(device: &mut CpuExecutor<f32>, cache: &mut Cache, to: usize, seed: u64) -> Vec<f32> {
        let mut outs = Vec::new();
        while cache.n_tokens() < to {
            let n = cache.chunk(to - cache.n_tokens());
            let seed = seed + 2 * cache.n_tokens() as u64;
            outs.extend(feed_chunk(device, cache, n, seed));
        }
        outs
    }

    #[test]
    fn a_cache_that_went_back_goes_on_as_one_that_was_read_to_that_place() {
        let device = &mut CpuExecutor::<f32>::new();
        let lrsa = [(0, 8, 0.5), (2, 8, 0.5), (5, 4, 0.25), (20, 16, 0.5), (3, 8, 1.0)];
        let lrsa = lrsa.map(|(sink, lag, keep)| Attention::Lrsa(Lrsa::new(sink, lag, keep).unwrap()));
        for attention in lrsa.into_iter().chain([Attention::Dense]) {
            let layers = [attention.into(), LayerAttention::Window(5), LayerAttention::Window(30)];
            let new = || Cache::new(&layers, HEADS, 160, 16).unwrap();
            // In the sink, at the ends of partitions and within them; then within a partition, or across many.
            for n in [1, 5, 17, 18, 19, 36, 47, 52] {
                for further in [1, 3, 8, 60] {
                    let [mut once, mut back] = [new(), new()];
                    feed_chunks(device, &mut once, n, 1000);
                    feed_chunks(device, &mut back, n, 1000);
                    let rings = back.rings(device).unwrap();
                    let bytes: usize = rings.iter().map(|(_, tensor)| tensor.bytes.len()).sum();
                    assert_eq!(bytes as u64, back.ring_bytes());
                    feed_chunks(device, &mut back, n + further, 5000);
                    back.rewind(device, n, &rings).unwrap();
                    assert_eq!((back.n_tokens(), back.n_bytes()), (n, once.n_bytes()));
                    let expected = feed_chunks(device, &mut once, n + 43, 9000);
                    assert!(expected.iter().all(|x| x.is_finite()));
                    let got = feed_chunks(device, &mut back, n + 43, 9000);
                    assert!(got == expected, "{attention}: {n} tokens, {further} further and back");
                }
            }
        }
    }

    #[test]
    fn rings_take_the_same_memory_at_any_length_and_dense_layers_have_none() {
        let device = &mut CpuExecutor::<f32>::new();
        let mut first = mixed_cache(200);
        // LRSA has 2 * 8 rows, the windows 4 + 16 and 29 + 16; each row has 32 floats.
        for n in [60, 100, 200] {
            feed_chunks(device, &mut first, n, 1000);
            assert_eq!(first.ring_bytes(), (16 + 20 + 45) * 32 * 4, "{n} tokens");
        }
        let mut dense = Cache::new(&[Attention::Dense.into()], HEADS, 200, 16).unwrap();
        feed_chunks(device, &mut dense, 100, 1000);
        assert_eq!((dense.ring_bytes(), dense.rings(device).unwrap()), (0, vec![]));
    }

    #[test]
    fn a_cache_goes_back_after_it_has_grown_and_to_its_own_rings_only() {
        let device = &mut CpuExecutor::<f32>::new();
        let [mut once, mut back] = [mixed_cache(64), mixed_cache(64)];
        feed_chunks(device, &mut once, 40, 1000);
        feed_chunks(device, &mut back, 40, 1000);
        let rings = back.rings(device).unwrap();
        feed_chunks(device, &mut back, 60, 5000);
        back.grow(device, 200).unwrap();
        feed_chunks(device, &mut back, 150, 7000);
        let others = back.rings(device).unwrap();
        let mut refused =
            |n: usize, rings: &[(String, HostTensor)]| back.rewind(device, n, rings).unwrap_err().to_string();
        assert!(refused(151, &others).contains("does not go back to 151"));
        assert!(refused(40, &others).contains("shape"));
        assert!(refused(40, &rings[1..]).contains("parts"));
        back.rewind(device, 40, &rings).unwrap();
        let expected = feed_chunks(device, &mut once, 64, 9000);
        assert_eq!(feed_chunks(device, &mut back, 64, 9000), expected);
    }

    #[test]
    fn entries_that_do_not_fit_are_refused() {
        let device = &mut CpuExecutor::<f32>::new();
        let mut first = mixed_cache(64);
        feed_singly(device, &mut first, 20, 3);
        let entries = first.entries(device).unwrap();
        let mut refused = |n: usize, entries: &[(String, HostTensor)]| {
            mixed_cache(64).restore(device, n, entries).unwrap_err().to_string()
        };
        assert!(refused(65, &entries).contains("do not fit"));
        assert!(refused(19, &entries).contains("shape"));
        assert!(refused(20, &entries[1..]).contains("parts"));
        let mut renamed = entries.clone();
        renamed[0].0 = "9.kept".into();
        assert!(refused(20, &renamed).contains("0.kept of the cache is missing"));
    }
}
