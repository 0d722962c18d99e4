//! Products with 16-bit and quantised weights on the CPU, without unpacking the whole weight.
//!
//! For one token, each weight is read once, so the product unpacks on the fly; reading the packed
//! words takes most of the time. For many tokens, it unpacks a panel of rows into scratch memory
//! and multiplies that with the `gemm` crate.

use std::cell::RefCell;

use rayon::prelude::*;

use super::rows::SUM_LANES;
use super::simd::vectorised;
use crate::formats::blocks::{Blocks, RUN, by_format, unpack_from};
use crate::gpu::Real;
use crate::tensor::Format;

/// Elements to unpack at a time for `gemm`: 4 MiB of f32.
const PANEL: usize = 1 << 20;
/// Elements that one task unpacks, a multiple of every block length.
const TASK: usize = 1 << 13;
/// Rows of the weight per task of a one-token product.
const ROWS: usize = 32;

/// A packed weight with rows of `cols` elements.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    words: &'a [u32],
    format: Format,
    first: usize,
    cols: usize,
}

impl<'a> Packed<'a> {
    /// Rows of `cols` elements, starting at element `first`.
    pub fn new(words: &'a [u32], format: Format, first: usize, cols: usize) -> Self {
        Self { words, format, first, cols }
    }

    /// The words from a row on, if rows are whole blocks.
    fn whole_rows(&self, row: usize) -> Option<&'a [u32]> {
        let unit = RUN.max(self.format.block_len());
        let whole = self.first.is_multiple_of(unit) && self.cols.is_multiple_of(unit);
        whole.then(|| &self.words[self.format.n_words(self.first + row * self.cols)..])
    }

    /// Unpacks `rows` rows in panels: calls `f` with the first row and the elements of each panel.
    pub fn for_panels<T: Real>(&self, rows: usize, scratch: &RefCell<Vec<T>>, mut f: impl FnMut(usize, &[T])) {
        let step = (PANEL / self.cols).clamp(1, rows.max(1));
        let mut panel = scratch.borrow_mut();
        if panel.len() < step * self.cols {
            panel.resize(step * self.cols, T::ZERO);
        }
        for row in (0..rows).step_by(step) {
            let panel = &mut panel[..step.min(rows - row) * self.cols];
            match self.whole_rows(row) {
                Some(words) => {
                    let tasks = panel.par_chunks_mut(TASK).zip(words.par_chunks(self.format.n_words(TASK)));
                    tasks.for_each(|(out, words)| by_format!(self.format, T, unpack(words, out)));
                }
                None => unpack_from(self.format, self.words, self.first + row * self.cols, panel),
            }
            f(row, panel);
        }
    }

    /// out[j] = alpha · row j · x + beta · out[j]. Returns false, and does nothing, unless rows are
    /// whole blocks.
    pub fn times_vector<T: Real>(&self, x: &[T], out: &mut [T], alpha: T, beta: T) -> bool {
        let (Some(words), row_words) = (self.whole_rows(0), self.format.n_words(self.cols)) else { return false };
        let x = &x[..self.cols];
        let tasks = out.par_chunks_mut(ROWS).zip(words.par_chunks(row_words * ROWS));
        tasks.for_each(|(out, words)| {
            for (out, row) in out.iter_mut().zip(words.chunks_exact(row_words)) {
                let sum = alpha * by_format!(self.format, T, dot(row, x));
                *out = if beta == T::ZERO { sum } else { sum + beta * *out };
            }
        });
        true
    }
}

vectorised! {
    /// Unpacks whole blocks.
    fn unpack<T: Real, const WORDS: usize, B: Blocks<WORDS>>(words: &[u32], out: &mut [T]) {
        let (blocks, out) = (words.as_chunks::<WORDS>().0, out.as_chunks_mut::<RUN>().0);
        for i in 0..out.len() {
            let run = B::unpack(&blocks[i / B::RUNS], i % B::RUNS);
            for l in 0..RUN {
                out[i][l] = T::of(run[l]);
            }
        }
    }
}

vectorised! {
    /// Σ w x over whole blocks of w.
    fn dot<T: Real, const WORDS: usize, B: Blocks<WORDS>>(words: &[u32], x: &[T]) -> T {
        let (blocks, x) = (words.as_chunks::<WORDS>().0, x.as_chunks::<RUN>().0);
        let mut lanes = [T::ZERO; SUM_LANES];
        for i in 0..blocks.len() {
            for run in 0..B::RUNS {
                let (w, x) = (B::unpack(&blocks[i], run), &x[i * B::RUNS + run]);
                for l in 0..SUM_LANES {
                    lanes[l] += T::of(w[l]) * x[l] + T::of(w[l + SUM_LANES]) * x[l + SUM_LANES];
                }
            }
        }
        let mut sum = T::ZERO;
        for l in 0..SUM_LANES {
            sum += lanes[l];
        }
        sum
    }
}
