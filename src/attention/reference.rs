//! Shared code of the CPU attention references: the runs of keys of a tile, and products over them.
//!
//! A reference processes one tile and one head at a time: one matrix product per run for the scores
//! of all queries against all keys, then row-wise exponentials, then products with the values. The
//! shaders compute the same sums in another order.

use super::tiles::QueryTile;
use crate::gpu::Real;
use crate::kernels::product::{View, product};

/// Head counts and head size.
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
}

/// Consecutive kv rows of either buffer.
#[derive(Clone, Copy)]
pub(super) struct Run<'a, T> {
    kv: &'a [T],
    rows: usize,
}

/// All keys that a tile of queries sees. The first query sees all except the last `n_queries - 1`.
pub(super) struct Keys<'a, T> {
    shape: Shape,
    runs: Vec<Run<'a, T>>,
    /// Number of keys.
    pub(super) n: usize,
}

impl<'a, T: Real> Keys<'a, T> {
    /// The keys of a tile: sink, kept, recent. A run that wraps around the ring becomes two runs.
    pub(super) fn of(tile: &QueryTile, recent: &'a [T], kept: &'a [T], ring: u32, shape: Shape) -> Self {
        let mut keys = Keys { shape, runs: Vec::new(), n: 0 };
        keys.push_ring(recent, tile.sink, tile.n_sink, ring);
        keys.push(kept, tile.kept, tile.n_kept);
        keys.push_ring(recent, tile.recent, tile.n_recent + tile.n_queries - 1, ring);
        keys
    }

    /// One run of rows.
    pub(super) fn rows(kv: &'a [T], first: u32, n: u32, shape: Shape) -> Self {
        let mut keys = Keys { shape, runs: Vec::new(), n: 0 };
        keys.push(kv, first, n);
        keys
    }

    fn push(&mut self, kv: &'a [T], first: u32, n: u32) {
        if n > 0 {
            let cols = self.shape.kv_cols();
            self.runs.push(Run { kv: &kv[first as usize * cols..(first + n) as usize * cols], rows: n as usize });
            self.n += n as usize;
        }
    }

    fn push_ring(&mut self, kv: &'a [T], first: u32, n: u32, ring: u32) {
        let first = first % ring;
        let before = n.min(ring - first);
        self.push(kv, first, before);
        self.push(kv, 0, n - before);
    }

    /// Up to `n` of these keys, starting with key `first`; fewer or none past the end.
    pub(super) fn part(&self, first: usize, n: usize) -> Self {
        let mut part = Keys { shape: self.shape, runs: Vec::new(), n: 0 };
        let (cols, end) = (self.shape.kv_cols(), first + n);
        let mut at = 0;
        for run in &self.runs {
            let (from, to) = (first.clamp(at, at + run.rows) - at, end.clamp(at, at + run.rows) - at);
            if from < to {
                part.runs.push(Run { kv: &run.kv[from * cols..to * cols], rows: to - from });
                part.n += to - from;
            }
            at += run.rows;
        }
        part
    }

    /// The runs in order: kv rows and their number.
    pub(super) fn runs(&self) -> impl Iterator<Item = (&'a [T], usize)> {
        self.runs.iter().map(|run| (run.kv, run.rows))
    }

    /// The kv rows, offset to one side (0 keys, 1 values) of a head.
    fn side(&self, run: &Run<'a, T>, side: usize, kv_head: usize) -> &'a [T] {
        &run.kv[(side * self.shape.n_kv_heads + kv_head) * self.shape.dim..]
    }

    /// out [m, n] = scale · x [m, dim] · (keys or values)ᵀ. Rows of x are `x_row` apart.
    pub(super) fn scores(&self, side: usize, kv_head: usize, x: &[T], [m, x_row]: [usize; 2], scale: T, out: &mut [T]) {
        let mut at = 0;
        for run in &self.runs {
            let rows = View::columns(self.side(run, side, kv_head), self.shape.kv_cols());
            let sizes = [m, run.rows, self.shape.dim];
            product(sizes, View::rows(x, x_row), rows, &mut out[at..], self.n, scale, T::ZERO, false);
            at += run.rows;
        }
    }

    /// out [m, dim] = weights [m, n] · (keys or values). Rows of out are `out_row` apart.
    pub(super) fn mix(&self, side: usize, kv_head: usize, weights: &[T], m: usize, out: &mut [T], out_row: usize) {
        let (mut at, mut beta) = (0, T::ZERO);
        for run in &self.runs {
            let rows = View::rows(self.side(run, side, kv_head), self.shape.kv_cols());
            let sizes = [m, self.shape.dim, run.rows];
            product(sizes, View::rows(&weights[at..], self.n), rows, out, out_row, T::ONE, beta, false);
            (at, beta) = (at + run.rows, T::ONE);
        }
    }
}

/// Splits `data` into consecutive parts of the given lengths.
pub(super) fn split_by<T>(mut data: &mut [T], lengths: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    let mut parts = Vec::new();
    for n in lengths {
        let (part, rest) = data.split_at_mut(n);
        parts.push(part);
        data = rest;
    }
    parts
}
