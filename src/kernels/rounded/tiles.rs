//! Products of packed weights with many rounded rows, as in prefill.
//!
//! The codes of sixteen rows of the weight are laid out so that a vector has four codes of each row.
//! It is multiplied by four codes of x in all lanes, so every lane sums for a row of the weight, and
//! no sum goes across lanes.
#![allow(clippy::needless_range_loop)] // iterators are calls, which a development build does not inline

use super::chunk::{CHUNK, Chunk};
use crate::formats::blocks::RUN;
use crate::formats::codes::{Codes, RUNS_AT_ONCE};
use crate::simd::{BYTES, ByteDots, LANES, Lanes, widest_dots};

/// Quads of codes in a run.
const QUADS: usize = RUN / 4;

/// Sixteen runs of sixteen rows of a weight.
pub struct Panel {
    /// Four codes of each row.
    codes: [[[i8; BYTES]; QUADS]; RUNS_AT_ONCE],
    /// The factor of each row, for each group.
    factors: [[f32; LANES]; 2 * RUNS_AT_ONCE],
    /// The offset of each row, for each group.
    offsets: [[f32; LANES]; 2 * RUNS_AT_ONCE],
}

impl Panel {
    /// Zeros.
    pub const ZERO: Self = Self {
        codes: [[[0; BYTES]; QUADS]; RUNS_AT_ONCE],
        factors: [[0.0; LANES]; 2 * RUNS_AT_ONCE],
        offsets: [[0.0; LANES]; 2 * RUNS_AT_ONCE],
    };
}

/// Lays out blocks of up to sixteen rows.
#[inline(always)]
fn lay_out<const WORDS: usize, const RUNS: usize, B: Codes<WORDS, RUNS>, D: ByteDots>(
    d: D,
    rows: &[&[[u32; WORDS]]],
    panel: &mut Panel,
) {
    let l = d.lanes();
    let groups = if B::HALVES { 2 } else { 1 };
    for row in 0..LANES {
        let Some(blocks) = rows.get(row) else { continue };
        let scales = B::scales(l, blocks);
        for h in 0..groups {
            let mut numbers = [[0.0; LANES]; 2];
            for i in 0..2 {
                l.store(scales[h][i], &mut numbers[i]);
            }
            for g in 0..LANES {
                panel.factors[h * LANES + g][row] = numbers[0][g];
                panel.offsets[h * LANES + g][row] = numbers[1][g];
            }
        }
        for b in 0..blocks.len() {
            for run in 0..RUNS {
                let mut codes = [0u32; QUADS];
                l.store_bytes(B::codes(l, &blocks[b], run), &mut codes);
                for q in 0..QUADS {
                    panel.codes[b * RUNS + run][q].as_chunks_mut::<4>().0[row] = bytemuck::cast(codes[q]);
                }
            }
        }
    }
}

/// Adds the products of a panel with `M` rows of x to their sums.
#[inline(always)]
fn add_panel<const WORDS: usize, const RUNS: usize, B: Codes<WORDS, RUNS>, D: ByteDots, const M: usize>(
    d: D,
    panel: &Panel,
    runs: usize,
    x: [&Chunk; M],
    sums: &mut [[f32; LANES]; M],
) {
    let l = d.lanes();
    let mut total: [_; M] = std::array::from_fn(|r| l.load(&sums[r]));
    let groups = const { if B::HALVES { 2 } else { 1 } };
    for run in 0..runs {
        for h in 0..groups {
            let g = groups * run + h;
            let mut dots = [d.zero(); M];
            for q in 0..QUADS / groups {
                let q = h * (QUADS / groups) + q;
                let w = &panel.codes[run][q];
                for r in 0..M {
                    let x = x[r].codes.as_flattened().as_chunks::<4>().0[QUADS * run + q];
                    dots[r] = if B::SIGNED { d.add_quads_signed(dots[r], w, x) } else { d.add_quads(dots[r], w, x) };
                }
            }
            let (factor, offset) = (l.load(&panel.factors[g]), l.load(&panel.offsets[g]));
            for r in 0..M {
                let (xf, xs) = (x[r].factors.as_flattened()[g], x[r].sums.as_flattened()[g]);
                total[r] = l.mul_add(l.mul(d.numbers(dots[r]), l.splat(xf)), factor, total[r]);
                if !B::SIGNED {
                    total[r] = l.mul_add(offset, l.splat(xs), total[r]);
                }
            }
        }
    }
    for r in 0..M {
        l.store(total[r], &mut sums[r]);
    }
}

/// Rows of x that are multiplied together.
pub const ROWS: usize = 8;

widest_dots! {
    /// sums[i][j] = w row j · x row i, for up to sixteen rows of the weight.
    pub fn rounded_tile[const WORDS: usize, const RUNS: usize, B: Codes<WORDS, RUNS>]<WORDS, RUNS, B>(
        d: D, words: &[u32], k: usize, x: &[Chunk], panel: &mut Panel, sums: &mut [[f32; LANES]]
    ) {
        let chunks = k.div_ceil(CHUNK);
        let row_words = k / (RUN * RUNS) * WORDS;
        let blocks_at_once = const { RUNS_AT_ONCE / RUNS };
        for sum in sums.iter_mut() {
            *sum = [0.0; LANES];
        }
        for c in 0..chunks {
            let first = c * blocks_at_once;
            let in_row = row_words / WORDS;
            let last = if first + blocks_at_once < in_row { first + blocks_at_once } else { in_row };
            let n = words.len() / row_words;
            let mut rows: [&[[u32; WORDS]]; LANES] = [&[]; LANES];
            for j in 0..n {
                rows[j] = &words[j * row_words..(j + 1) * row_words].as_chunks::<WORDS>().0[first..last];
            }
            lay_out::<WORDS, RUNS, B, D>(d, &rows[..n], panel);
            let runs = (last - first) * RUNS;
            let mut r = 0;
            while r + ROWS <= sums.len() {
                let x: [&Chunk; ROWS] = std::array::from_fn(|i| &x[(r + i) * chunks + c]);
                let sums = sums[r..].first_chunk_mut().expect("as many sums as rows");
                add_panel::<WORDS, RUNS, B, D, ROWS>(d, panel, runs, x, sums);
                r += ROWS;
            }
            while r < sums.len() {
                let sums = sums[r..].first_chunk_mut().expect("as many sums as rows");
                add_panel::<WORDS, RUNS, B, D, 1>(d, panel, runs, [&x[r * chunks + c]], sums);
                r += 1;
            }
        }
    }
}
