//! What the CPU twins of the attention kernels share: the runs of keys that a tile sees, and products of head rows.

use super::layout::QueryTile;
use crate::gpu::Real;

/// Head counts and scale as a twin needs them.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) dim: usize,
}

impl Shape {
    pub(super) fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Columns of a query row.
    pub(super) fn q_cols(&self) -> usize {
        self.n_heads * self.dim
    }

    /// Columns of a kv row.
    pub(super) fn kv_cols(&self) -> usize {
        2 * self.n_kv_heads * self.dim
    }

    /// Key and value of one head in a kv row.
    pub(super) fn key_value<'a, T>(&self, kv: &'a [T], row: usize, head: usize) -> (&'a [T], &'a [T]) {
        let (at, half) = (row * self.kv_cols() + head * self.dim, self.n_kv_heads * self.dim);
        (&kv[at..at + self.dim], &kv[at + half..at + half + self.dim])
    }
}

/// Keys that the queries of a tile see, in order: (whether packed, row). The first query sees all but the last
/// `n_queries - 1`.
pub(super) fn keys_of(tile: &QueryTile, ring: u32) -> Vec<(bool, usize)> {
    let raw = |first: u32, n: u32| (0..n).map(move |i| (false, ((first + i) % ring) as usize));
    let packed = (tile.packed..tile.packed + tile.n_packed).map(|r| (true, r as usize));
    raw(tile.sink, tile.n_sink).chain(packed).chain(raw(tile.window, tile.n_window + tile.n_queries - 1)).collect()
}

/// Dot product in eight running sums, which the compiler keeps in vector registers.
pub(super) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::ZERO; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: T = a8.remainder().iter().zip(b8.remainder()).map(|(&x, &y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.into_iter().sum::<T>() + rest
}

/// out += factor · x.
pub(super) fn add_scaled<T: Real>(out: &mut [T], factor: T, x: &[T]) {
    for (o, &v) in out.iter_mut().zip(x) {
        *o += factor * v;
    }
}

/// Cuts `data` into consecutive parts of the given lengths.
pub(super) fn split_by<T>(mut data: &mut [T], lengths: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    let mut parts = Vec::new();
    for n in lengths {
        let (part, rest) = data.split_at_mut(n);
        parts.push(part);
        data = rest;
    }
    parts
}
