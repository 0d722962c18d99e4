//! The entries of a cache on the host, from which an equal cache continues without reading again.
//!
//! Entries are the rows of the buffers as they lie, from the first one on. A ring has the same rows
//! in every cache of at least the same capacity, since a smaller ring has not wrapped yet.

use super::cache_step::{Fill, Storage};
use super::{Attention, Cache, LayerAttention};
use crate::error::{Context, Error, Result};
use crate::formats::host_tensor::HostTensor;
use crate::gpu::{Executor, Span};

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

impl Cache {
    /// The memory that `n` tokens have written, with the name of each part and its shape.
    fn written(&self, n: usize) -> Vec<(String, Span, [usize; 2])> {
        let mut parts = Vec::new();
        let cols = self.pair_len();
        for (layer, (storage, kept, recent)) in self.parts().enumerate() {
            let [n_kept, n_recent] = storage.written(n);
            let named = [("kept", kept, n_kept), ("recent", Some(recent), n_recent)];
            for (part, buffer, rows) in named {
                if let (Some(buffer), true) = (buffer, rows > 0) {
                    parts.push((format!("{layer}.{part}"), buffer.slice(0, rows * cols), [rows, cols]));
                }
            }
        }
        parts
    }

    /// Reads the entries from the device.
    pub fn entries(&self, device: &mut dyn Executor) -> Result<CacheEntries> {
        let read = |(name, span, shape): (String, Span, [usize; 2])| {
            Ok((name, HostTensor::from_f32(&shape, &device.read_real(&span)?)))
        };
        self.written(self.n_tokens()).into_iter().map(read).collect()
    }

    /// Fills an empty cache with the entries that another cache of the same model and attention had
    /// after `n` tokens. Its capacity was at most that of this one. Fails if the entries do not fit.
    pub fn restore(&mut self, device: &mut dyn Executor, n: usize, entries: &[(String, HostTensor)]) -> Result<()> {
        assert_eq!(self.n_tokens(), 0, "an empty cache is filled");
        crate::ensure!(n <= self.capacity(), "{n} tokens do not fit into a cache for {}", self.capacity());
        let parts = self.written(n);
        crate::ensure!(
            parts.len() == entries.len(),
            "the cache of {n} tokens has {} parts, and {} are given",
            parts.len(),
            entries.len()
        );
        let mut found = Vec::new();
        for (name, _, shape) in &parts {
            let (_, tensor) = entries
                .iter()
                .find(|(given, _)| given == name)
                .ok_or_else(|| Error::new(format!("the part {name} of the cache is missing")))?;
            crate::ensure!(
                tensor.shape == shape,
                "the part {name} of the cache has the shape {:?}, and {n} tokens fill {shape:?}",
                tensor.shape
            );
            found.push(tensor);
        }
        for ((name, span, _), tensor) in parts.iter().zip(found) {
            let values = tensor.to_f32().with_context(|| format!("the part {name} of the cache"))?;
            device.write_real(span, &values)?;
        }
        self.set_n_tokens(n);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Lrsa;
    use super::super::cache::tests::{HEADS, feed_chunk};
    use super::*;
    use crate::gpu::CpuExecutor;

    fn cache(capacity: usize) -> Cache {
        let lrsa = Lrsa::new(2, 8, 0.5).unwrap();
        let full = [Attention::Lrsa(lrsa), Attention::Dense].map(LayerAttention::from);
        let layers = [full[0], LayerAttention::Window(5), full[1], LayerAttention::Window(30)];
        Cache::new(&layers, HEADS, capacity, 16).unwrap()
    }

    /// Feeds `n` tokens with values from a seed, one by one; returns the outputs of all layers.
    fn feed(device: &mut CpuExecutor<f32>, cache: &mut Cache, n: usize, seed: u64) -> Vec<f32> {
        (0..n as u64).flat_map(|i| feed_chunk(device, cache, 1, seed + 2 * i)).collect()
    }

    #[test]
    fn a_restored_cache_goes_on_as_the_first_also_with_more_room() {
        let device = &mut CpuExecutor::<f32>::new();
        for n in [1, 2, 9, 17, 18, 19, 31, 45] {
            let mut first = cache(64);
            feed(device, &mut first, n, 1000);
            let entries = first.entries(device).unwrap();
            let [mut same, mut larger] = [cache(64), cache(200)];
            same.restore(device, n, &entries).unwrap();
            larger.restore(device, n, &entries).unwrap();
            assert_eq!((same.n_tokens(), same.n_bytes()), (n, first.n_bytes()));
            // Unwritten memory is NaN, so a missing row would show.
            let expected = feed(device, &mut first, 19, 7);
            assert!(expected.iter().all(|x| x.is_finite()));
            assert_eq!(feed(device, &mut same, 19, 7), expected, "{n} tokens");
            assert_eq!(feed(device, &mut larger, 19, 7), expected, "{n} tokens");
        }
    }

    #[test]
    fn entries_that_do_not_fit_are_refused() {
        let device = &mut CpuExecutor::<f32>::new();
        let mut first = cache(64);
        feed(device, &mut first, 20, 3);
        let entries = first.entries(device).unwrap();
        let mut refused =
            |n: usize, entries: &[(String, HostTensor)]| cache(64).restore(device, n, entries).unwrap_err().to_string();
        assert!(refused(65, &entries).contains("do not fit"));
        assert!(refused(19, &entries).contains("shape"));
        assert!(refused(20, &entries[1..]).contains("parts"));
        let mut renamed = entries.clone();
        renamed[0].0 = "9.kept".into();
        assert!(refused(20, &renamed).contains("0.kept of the cache is missing"));
    }
}
