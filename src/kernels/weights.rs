//! Products with 16-bit and quantised weights on the CPU: panels of unpacked rows for `gemm`.
//!
//! A few rows are multiplied without storing what is unpacked ([`few_rows`](super::few_rows)).

use rayon::prelude::*;

use super::row_tasks::WholeRows;
use crate::formats::blocks::{RUN, unpack, unpack_from};
use crate::gpu::{Real, Scratch};
use crate::tensor::Format;

/// Elements to unpack at a time for `gemm`: 16 MiB of f32. It repacks the other operand for every
/// panel, so small panels cost time.
const PANEL: usize = 1 << 22;
/// Elements that one task unpacks, a multiple of every block length.
const TASK: usize = 1 << 13;

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
    fn words_from(&self, row: usize) -> Option<&'a [u32]> {
        let unit = RUN.max(self.format.block_len());
        let whole = self.first.is_multiple_of(unit) && self.cols.is_multiple_of(unit);
        whole.then(|| &self.words[self.format.n_words(self.first + row * self.cols)..])
    }

    /// The rows, if they are whole blocks.
    pub fn whole_rows(&self) -> Option<WholeRows<'a>> {
        Some(WholeRows { words: self.words_from(0)?, format: self.format, k: self.cols })
    }

    /// Unpacks `rows` rows in panels: calls `f` with the first row and the elements of each panel.
    pub fn for_panels<T: Real>(&self, rows: usize, scratch: &Scratch<T>, mut f: impl FnMut(usize, &[T])) {
        let step = (PANEL / self.cols).clamp(1, rows.max(1));
        scratch.with(step * self.cols, |panel| {
            for row in (0..rows).step_by(step) {
                let panel = &mut panel[..step.min(rows - row) * self.cols];
                match self.words_from(row) {
                    Some(words) => {
                        let tasks = panel.par_chunks_mut(TASK).zip(words.par_chunks(self.format.n_words(TASK)));
                        tasks.for_each(|(out, words)| unpack_reals(self.format, words, out));
                    }
                    None => unpack_from(self.format, self.words, self.first + row * self.cols, panel),
                }
                f(row, panel);
            }
        });
    }
}

/// Unpacks whole blocks.
fn unpack_reals<T: Real>(format: Format, words: &[u32], out: &mut [T]) {
    match T::as_f32_mut(out) {
        Some(out) => unpack(format, words, out),
        None => unpack_from(format, words, 0, out),
    }
}
