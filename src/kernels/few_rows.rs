//! Products of a few rows with a weight on the CPU, as in decode.
//!
//! Reading the weight takes most of the time. So a weight is unpacked in registers, multiplied there
//! with up to [`Lanes::ROWS`] rows, and never stored. Long rows are multiplied in parts, so that the
//! rows stay in the first cache, and a product is the sum of those of its parts. A row gets the same
//! bits whatever the number of rows is that are multiplied together: sequences that are decoded
//! together get the tokens that each gets alone.

use crate::formats::blocks::{Blocks, RUN, Runs, by_format};
use crate::gpu::Scratch;
use crate::kernels::product::View;
use crate::kernels::row_tasks::{LINE, RowTasks, WholeRows, from_line};
use crate::simd::{LANES, Lanes, widest, widest_rows};
use crate::tensor::Format;

/// Most rows for which this is faster than unpacking panels for `gemm`. More sequences than this are
/// decoded in several passes, because `gemm` sums in another order.
pub const MOST_ROWS: usize = 32;
/// Runs of a part of a row: 2,048 elements.
const PART: usize = 64;
/// Most elements of the parts of the rows that are multiplied together: 32 KiB.
const NEAR: usize = 1 << 13;

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
    let tasks = RowTasks { w, m, n, most: widest_rows().min(NEAR / k.clamp(1, PART * RUN)) };
    scratch.with(m * k + LINE + m * n, |memory| {
        let (packed, sums) = from_line(memory).split_at_mut(m * k);
        for (first, rows) in tasks.passes() {
            pack(x, first, rows, &mut packed[first * k..(first + rows) * k]);
        }
        let packed = &*packed;
        tasks.run(sums, (out, out_row), [alpha, beta], |words, first, rows, sums| {
            let x = &packed[first * k..(first + rows) * k];
            sums.fill(0.0);
            match rows {
                1 => by_format!(w.format, dots[1](words, runs_of(x), sums)),
                2 => by_format!(w.format, dots[2](words, runs_of(x), sums)),
                4 => by_format!(w.format, dots[4](words, runs_of(x), sums)),
                _ => by_format!(w.format, dots[8](words, runs_of(x), sums)),
            }
        });
    });
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

/// Prefetch distance in words: 4 KiB, or 8 KiB for blocks of several runs.
const AHEAD: usize = 1 << 10;

/// The products of one weight row with `M` rows. Even and odd vectors have different sums, so that
/// an addition need not wait for the one before.
struct Dots<'a, L: Lanes, const M: usize> {
    x: &'a [[[f32; RUN]; M]],
    sums: &'a mut [[L::F; 2]; M],
}

impl<L: Lanes, const M: usize> Runs<L> for Dots<'_, L, M> {
    #[inline(always)]
    fn take(&mut self, lanes: L, run: usize, w: [L::F; 2]) {
        for r in 0..M {
            let (x, _) = self.x[run][r].as_chunks::<LANES>();
            for h in 0..2 {
                self.sums[r][h] = lanes.mul_add(w[h], lanes.load(&x[h]), self.sums[r][h]);
            }
        }
    }
}

/// The sum of all lanes of each row's sums.
#[inline(always)]
fn totals<L: Lanes, const M: usize>(lanes: L, sums: &[[L::F; 2]; M]) -> [f32; M] {
    let mut out = [0.0; M];
    let mut r = 0;
    while r + 4 <= M {
        let mut four = [lanes.splat(0.0); 4];
        for i in 0..4 {
            four[i] = lanes.add(sums[r + i][0], sums[r + i][1]);
        }
        out[r..r + 4].copy_from_slice(&lanes.totals(four));
        r += 4;
    }
    while r < M {
        out[r] = lanes.total(lanes.add(sums[r][0], sums[r][1]));
        r += 1;
    }
    out
}

/// The heads of a part of `R` weight rows. Vectors that cross cache lines are slow to read back.
#[repr(align(64))]
struct Heads<H, const R: usize>([[H; PART]; R]);

widest! {
    /// out [M, n] += the products of the rows of x with the `n` weight rows.
    fn dots[const WORDS: usize, const RUNS: usize, B: Blocks<WORDS, RUNS>, const M: usize]<WORDS, RUNS, B, M>(
        lanes: L, words: &[u32], x: &[[[f32; RUN]; M]], out: &mut [f32]
    ) {
        if M == 1 && B::IN_PAIRS {
            add_dots::<L, WORDS, RUNS, B, M, 2>(lanes, words, x, out);
        } else {
            add_dots::<L, WORDS, RUNS, B, M, 1>(lanes, words, x, out);
        }
    }
}

/// [`dots`] that takes `R` weight rows at a time, block by block.
#[inline(always)]
fn add_dots<L: Lanes, const WORDS: usize, const RUNS: usize, B: Blocks<WORDS, RUNS>, const M: usize, const R: usize>(
    lanes: L,
    words: &[u32],
    x: &[[[f32; RUN]; M]],
    out: &mut [f32],
) {
    let (n, row_blocks) = (out.len() / M, x.len() / RUNS);
    let all = words.as_chunks::<WORDS>().0;
    let Heads(heads) = &mut Heads([[B::Head::default(); PART]; R]);
    // Where parts of a row are not followed by those of the next row, long blocks are prefetched one by
    // one, since the CPU waits when too many reads are under way. Plain elements always are.
    let one_by_one = WORDS >= LINE * RUNS || RUNS > 1 && row_blocks > PART / RUNS;
    let distance = if RUNS > 1 { 2 * AHEAD } else { AHEAD };
    let mut from = 0;
    while from < row_blocks {
        let count = if row_blocks - from < PART / RUNS { row_blocks - from } else { PART / RUNS };
        let x = &x[from * RUNS..(from + count) * RUNS];
        let ahead = 1 + distance / (count * WORDS);
        let mut j = 0;
        while j < n {
            let mut blocks = [all; R];
            let mut sums = [[[lanes.splat(0.0); 2]; M]; R];
            for r in 0..R {
                let row = if j + r < n { j + r } else { j }; // a row without a partner is taken twice
                blocks[r] = &all[row * row_blocks + from..][..count];
                if !one_by_one {
                    lanes.prefetch(words, ((row + ahead) * row_blocks + from) * WORDS, count * WORDS);
                }
                B::heads(lanes, blocks[r], &mut heads[r][..count]);
            }
            for i in 0..count {
                let x = &x[i * RUNS..(i + 1) * RUNS];
                if one_by_one {
                    for r in 0..R {
                        lanes.prefetch(words, ((j + r + ahead) * row_blocks + from + i) * WORDS, WORDS);
                    }
                }
                // In a loop over long blocks the sums would stay in memory.
                B::each(lanes, &heads[0][i], &blocks[0][i], &mut Dots::<L, M> { x, sums: &mut sums[0] });
                if R == 2 {
                    B::each(
                        lanes,
                        &heads[R - 1][i],
                        &blocks[R - 1][i],
                        &mut Dots::<L, M> { x, sums: &mut sums[R - 1] },
                    );
                }
            }
            for r in 0..R {
                if j + r < n {
                    let totals = totals(lanes, &sums[r]);
                    for i in 0..M {
                        out[i * n + j + r] += totals[i];
                    }
                }
            }
            j += R;
        }
        from += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::case::{Input, blocks};
    use crate::tensor::Format;

    #[test]
    fn a_row_has_the_same_bits_in_any_company() {
        let (k, n, most) = (2 * PART * RUN + 256, 5, 11);
        let numbers = |n: usize| (0..n).map(|i| (i * 31 % 61) as f32 / 7.0 - 4.0).collect::<Vec<_>>();
        let (x, scratch) = (numbers(most * k), Scratch::new());
        let plain = numbers(n * k).into_iter().map(f32::to_bits).collect();
        let quantised = Format::QUANTISED.map(|format| match blocks(2, n, k, format) {
            Input::Blocks { words, .. } => (format, words),
            _ => unreachable!("blocks are quantised"),
        });
        for (format, words) in quantised.into_iter().chain([(Format::F32, plain)]) {
            let products = |first: usize, m: usize| {
                let mut out = vec![f32::NAN; m * n];
                let (w, x) = (WholeRows { words: &words, format, k }, View::rows(&x[first * k..], k));
                times_rows(w, x, [m, n], (&mut out, n), [1.0, 0.0], &scratch);
                out
            };
            let alone: Vec<f32> = (0..most).flat_map(|row| products(row, 1)).collect();
            assert!(alone.iter().any(|x| x.abs() > 1.0), "{format:?}");
            for m in 2..=most {
                assert!(products(0, m) == alone[..m * n], "{format:?}, {m} rows");
            }
        }
    }
}
