//! Splits products of a few rows with a weight among threads.

use rayon::prelude::*;

use crate::tensor::Format;

/// Weights that one task reads, if there are not too many tasks: a few microseconds of work.
const TASK: usize = 1 << 17;
/// Tasks for each thread, so that a slow thread does not hold up the rest.
pub const TASKS_A_THREAD: usize = 4;
/// Elements or words of a cache line.
pub const LINE: usize = 16;

/// The memory from its first cache line on, up to [`LINE`] elements later. Rows are laid out there,
/// because vectors that cross cache lines take two reads.
pub fn from_line(memory: &mut [f32]) -> &mut [f32] {
    let start = memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    &mut memory[start..]
}

/// A weight [n, k] whose rows are whole blocks of whole runs.
#[derive(Clone, Copy)]
pub struct WholeRows<'a> {
    /// The words of `n` rows.
    pub words: &'a [u32],
    /// Their format.
    pub format: Format,
    /// Elements of a row.
    pub k: usize,
}

impl WholeRows<'_> {
    /// Words of a row.
    pub fn row_words(&self) -> usize {
        self.format.n_words(self.k)
    }
}

/// Products of `m` rows with the `n` rows of a weight.
#[derive(Clone, Copy)]
pub struct RowTasks<'a> {
    /// The weight.
    pub w: WholeRows<'a>,
    /// Rows of x.
    pub m: usize,
    /// Rows of the weight.
    pub n: usize,
    /// Most rows of x that are multiplied together.
    pub most: usize,
}

impl RowTasks<'_> {
    /// First row and number of rows of each pass, by powers of two.
    pub fn passes(self) -> impl Iterator<Item = (usize, usize)> {
        let mut first = 0;
        std::iter::from_fn(move || {
            let rows = [8, 4, 2, 1].into_iter().find(|&rows| rows <= self.most && first + rows <= self.m)?;
            first += rows;
            Some((first - rows, rows))
        })
    }

    /// out (rows `out_row` apart) = alpha · sums + beta · out. `dots` gets words of whole rows of the
    /// weight, the first row of x, the number of rows of x, and their sums, those of a row of x
    /// together. `sums` has at least `m · n` elements.
    pub fn run(
        self,
        sums: &mut [f32],
        (out, out_row): (&mut [f32], usize),
        [alpha, beta]: [f32; 2],
        dots: impl Fn(&[u32], usize, usize, &mut [f32]) + Sync,
    ) {
        let Self { w, m, n, .. } = self;
        let sums = &mut sums[..m * n];
        let task = n.div_ceil(n_tasks(n * w.k, rayon::current_num_threads()));
        let of_task = |(sums, words): (&mut [f32], &[u32])| {
            let n = sums.len() / m;
            for (first, rows) in self.passes() {
                dots(words, first, rows, &mut sums[first * n..(first + rows) * n]);
            }
        };
        let words = &w.words[..n * w.row_words()];
        if task >= n {
            of_task((sums, words));
        } else {
            sums.par_chunks_mut(task * m).zip(words.par_chunks(task * w.row_words())).for_each(of_task);
        }
        for (i, sums) in sums.chunks(task * m).enumerate() {
            let n = sums.len() / m;
            for (r, sums) in sums.chunks(n).enumerate() {
                let out = &mut out[r * out_row + i * task..][..n];
                store(out, sums, [alpha, beta]);
            }
        }
    }
}

/// Number of tasks for a product with so many weights: each thread gets as many as the others.
fn n_tasks(weights: usize, threads: usize) -> usize {
    let tasks = weights.div_ceil(TASK).clamp(1, threads * TASKS_A_THREAD);
    if tasks > threads { tasks / threads * threads } else { tasks }
}

/// out = alpha · sums + beta · out; does not read out if beta is 0.
pub fn store(out: &mut [f32], sums: &[f32], [alpha, beta]: [f32; 2]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = if beta == 0.0 { alpha * sum } else { alpha * sum + beta * *out };
    }
}
