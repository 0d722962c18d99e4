//! Products of a few rows with a weight on the CPU, as in decode.
//!
//! Reading the weight takes most of the time. So a weight is unpacked in registers, multiplied there
//! with up to [`Lanes::ROWS`] rows, and never stored. A row gets the same bits whatever the number
//! of rows is that are multiplied together: sequences that are decoded together get the tokens that
//! each gets alone.

use rayon::prelude::*;

use crate::formats::blocks::{Blocks, HEADS, RUN, Runs, by_format};
use crate::gpu::Scratch;
use crate::kernels::product::View;
use crate::simd::{LANES, Lanes, widest, widest_rows};
use crate::tensor::Format;

/// Most rows for which this is faster than unpacking panels for `gemm`. More sequences than this are
/// decoded in several passes, because `gemm` sums in another order.
pub const MOST_ROWS: usize = 32;
/// Weights that one task reads at least: a few microseconds of work.
const TASK: usize = 1 << 17;
/// Tasks for each thread, so that a slow thread does not hold up the rest.
const TASKS_A_THREAD: usize = 4;
/// Elements of a cache line. The rows are laid out at cache lines, because vectors that cross them
/// take two reads.
const LINE: usize = 16;

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
    fn row_words(&self) -> usize {
        self.format.n_words(self.k)
    }
}

/// out [m, n] (rows `out_row` apart) = alpha · x [m, k] wᵀ + beta · out, for at most [`MOST_ROWS`]
/// rows; does not read out if beta is 0.
pub fn times_rows(
    w: WholeRows<'_>,
    x: View<'_, f32>,
    [m, n]: [usize; 2],
    (out, out_row): (&mut [f32], usize),
    [alpha, beta]: [f32; 2],
    scratch: &Scratch<f32>,
) {
    let k = w.k;
    let threads = rayon::current_num_threads();
    let task = if n * k <= TASK { n } else { n.div_ceil(threads * TASKS_A_THREAD).max(TASK.div_ceil(k)) };
    let passes = Passes { m, most: widest_rows() };
    scratch.with(m * k + LINE + m * n, |memory| {
        let (memory, sums) = memory.split_at_mut(m * k + LINE);
        let start = memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        let packed = &mut memory[start..start + m * k];
        for (first, rows) in passes.all() {
            pack(x, first, rows, &mut packed[first * k..(first + rows) * k]);
        }
        let packed = &*packed;
        let of_task = |(sums, words): (&mut [f32], &[u32])| {
            let n = sums.len() / m;
            for (first, rows) in passes.all() {
                let x = &packed[first * k..(first + rows) * k];
                let sums = &mut sums[first * n..(first + rows) * n];
                match rows {
                    1 => by_format!(w.format, dots[1](words, runs_of(x), sums.as_chunks_mut().0)),
                    2 => by_format!(w.format, dots[2](words, runs_of(x), sums.as_chunks_mut().0)),
                    _ => by_format!(w.format, dots[4](words, runs_of(x), sums.as_chunks_mut().0)),
                }
            }
        };
        if task >= n {
            of_task((sums, &w.words[..n * w.row_words()]));
        } else {
            let words = w.words[..n * w.row_words()].par_chunks(task * w.row_words());
            sums.par_chunks_mut(task * m).zip(words).for_each(of_task);
        }
        for (i, sums) in sums.chunks(task * m).enumerate() {
            let n = sums.len() / m;
            for (first, rows) in passes.all() {
                for r in 0..rows {
                    let sums = sums[first * n + r..].iter().step_by(rows).take(n);
                    let out = &mut out[(first + r) * out_row + i * task..][..n];
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = if beta == 0.0 { alpha * sum } else { alpha * sum + beta * *out };
                    }
                }
            }
        }
    });
}

/// The rows that are multiplied together: as many as the CPU's registers take, by powers of two.
#[derive(Clone, Copy)]
struct Passes {
    m: usize,
    most: usize,
}

impl Passes {
    /// First row and number of rows of each pass.
    fn all(self) -> impl Iterator<Item = (usize, usize)> {
        let mut first = 0;
        std::iter::from_fn(move || {
            let rows = [4, 2, 1].into_iter().find(|&rows| rows <= self.most && first + rows <= self.m)?;
            first += rows;
            Some((first - rows, rows))
        })
    }
}

/// Lays rows out run by run: run i of row r is at (i · rows + r) · RUN.
fn pack(x: View<'_, f32>, first: usize, rows: usize, out: &mut [f32]) {
    for (i, out) in out.as_chunks_mut::<RUN>().0.iter_mut().enumerate() {
        let row = &x.data[(first + i % rows) * x.row..];
        out.copy_from_slice(&row[i / rows * RUN..][..RUN]);
    }
}

/// The runs of `M` packed rows.
fn runs_of<const M: usize>(x: &[f32]) -> &[[[f32; RUN]; M]] {
    x.as_chunks::<RUN>().0.as_chunks::<M>().0
}

/// Prefetch distance in words: 4 KiB.
const AHEAD: usize = 1 << 10;
/// Most sums that a dot product keeps.
const MOST_SUMS: usize = 4;

/// Sums of the products of one weight row with `M` rows.
struct Dots<'a, L: Lanes, const M: usize> {
    x: &'a [[[f32; RUN]; M]],
    sums: [[L::F; MOST_SUMS]; M],
    /// Number of the block's first run, modulo 2.
    first: usize,
}

impl<L: Lanes, const M: usize> Runs<L> for Dots<'_, L, M> {
    #[inline(always)]
    fn take(&mut self, lanes: L, run: usize, w: [L::F; 2]) {
        for r in 0..M {
            let (x, _) = self.x[run][r].as_chunks::<LANES>();
            for h in 0..2 {
                let s = (2 * (self.first + run) + h) % L::SUMS;
                self.sums[r][s] = lanes.mul_add(w[h], lanes.load(&x[h]), self.sums[r][s]);
            }
        }
    }
}

/// The sum of all lanes of a dot product's sums.
#[inline(always)]
fn total<L: Lanes>(lanes: L, sums: &[L::F; MOST_SUMS]) -> f32 {
    let sum = lanes.add(sums[0], sums[1]);
    lanes.total(if L::SUMS == 2 { sum } else { lanes.add(sum, lanes.add(sums[2], sums[3])) })
}

widest! {
    /// out[j][r] = w row j · x row r.
    fn dots[const WORDS: usize, const RUNS: usize, B: Blocks<WORDS, RUNS>, const M: usize]<WORDS, RUNS, B, M>(
        lanes: L, words: &[u32], x: &[[[f32; RUN]; M]], out: &mut [[f32; M]]
    ) {
        // Blocks of one run are taken in pairs, so that a constant says which sums a run goes to.
        const { assert!(RUNS == 1 || RUNS.is_multiple_of(2)) };
        let mut heads = [B::Head::default(); HEADS];
        let row_words = x.len() / RUNS * WORDS;
        for (j, out) in out.iter_mut().enumerate() {
            let row = &words[j * row_words..(j + 1) * row_words];
            let blocks = row.as_chunks::<WORDS>().0;
            let mut sums = [[lanes.splat(0.0); MOST_SUMS]; M];
            let mut from = 0;
            while from < blocks.len() {
                let count = if blocks.len() - from < HEADS { blocks.len() - from } else { HEADS };
                let next = j * row_words + from * WORDS + AHEAD;
                if next < words.len() {
                    let end = next + count * WORDS;
                    lanes.prefetch(&words[next..if end < words.len() { end } else { words.len() }]);
                }
                for i in 0..count {
                    heads[i] = B::head(lanes, &blocks[from + i]);
                }
                let x = &x[from * RUNS..(from + count) * RUNS];
                let mut i = 0;
                while i < count {
                    let mut dots = Dots::<L, M> { x: &x[i * RUNS..(i + 1) * RUNS], sums, first: 0 };
                    B::each(lanes, &heads[i], &blocks[from + i], &mut dots);
                    sums = dots.sums;
                    i += 1;
                    if RUNS == 1 && i < count {
                        let mut dots = Dots::<L, M> { x: &x[i * RUNS..(i + 1) * RUNS], sums, first: 1 };
                        B::each(lanes, &heads[i], &blocks[from + i], &mut dots);
                        sums = dots.sums;
                        i += 1;
                    }
                }
                from += count;
            }
            for r in 0..M {
                out[r] = total(lanes, &sums[r]);
            }
        }
    }
}
