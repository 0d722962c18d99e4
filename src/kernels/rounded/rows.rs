//! Products of packed weights with a few rounded rows, as in decode.
//!
//! A weight is y = factor·code + offset. So a dot product is the sum over groups of weights of an
//! integer product times both factors, and of the offset times the sum of the group's x.

use std::array::from_fn;

use super::chunk::{CHUNK, Chunk};
use crate::formats::blocks::RUN;
use crate::formats::codes::{Codes, RUNS_AT_ONCE};
use crate::simd::{ByteDots, Lanes, widest_dots};

/// Prefetch distance in words: 8 KiB.
const AHEAD: usize = 1 << 11;

/// Adds the products of pair `i` of the chunk's runs. `at` says which of the factors they take.
#[inline(always)]
fn add_pair<const WORDS: usize, const RUNS: usize, B: Codes<WORDS, RUNS>, D: ByteDots, const M: usize>(
    d: D,
    w: [<D::L as Lanes>::B; 2],
    (x, i): ([&Chunk; M], usize),
    (factors, at): (&[D::Factors; M], usize),
    sums: &mut [[<D::L as Lanes>::F; 2]; M],
) {
    for r in 0..M {
        let x = &x[r].codes[i];
        let dots = if B::SIGNED { d.dot_signed(w, x) } else { d.dot(w, x) };
        let spread = if B::HALVES { d.fours(&factors[r], at) } else { d.eights(&factors[r], at) };
        sums[r][i % 2] = d.lanes().mul_add(dots, spread, sums[r][i % 2]);
    }
}

widest_dots! {
    /// out [M, n] = x wᵀ for `n` rows of the weight. Rows have `k` elements.
    pub fn rounded_dots[const WORDS: usize, const RUNS: usize, B: Codes<WORDS, RUNS>, const M: usize]<WORDS, RUNS, B, M>(
        d: D, words: &[u32], k: usize, x: &[Chunk], out: &mut [f32]
    ) {
        let (l, chunks) = (d.lanes(), k.div_ceil(CHUNK));
        let row_words = k / (RUN * RUNS) * WORDS;
        let blocks_at_once = const { RUNS_AT_ONCE / RUNS };
        let n = out.len() / M;
        for j in 0..n {
            let mut blocks = words[j * row_words..(j + 1) * row_words].as_chunks::<WORDS>().0;
            let mut sums = [[l.splat(0.0); 2]; M];
            let mut offsets = [l.splat(0.0); M];
            for c in 0..chunks {
                let first = j * row_words + c * blocks_at_once * WORDS;
                l.prefetch(words, first + AHEAD, blocks_at_once * WORDS);
                let count = if blocks.len() < blocks_at_once { blocks.len() } else { blocks_at_once };
                let (some, rest) = blocks.split_at(count);
                blocks = rest;
                let x: [&Chunk; M] = from_fn(|r| &x[r * chunks + c]);
                let scales = B::scales(l, some);
                let mut factors = [[d.factors(l.splat(0.0)); M]; 2];
                for h in 0..if B::HALVES { 2 } else { 1 } {
                    for r in 0..M {
                        factors[h][r] = d.factors(l.mul(scales[h][0], l.load(&x[r].factors[h])));
                        if !B::SIGNED {
                            offsets[r] = l.mul_add(scales[h][1], l.load(&x[r].sums[h]), offsets[r]);
                        }
                    }
                }
                let mut b = 0;
                while b < some.len() {
                    if RUNS == 1 {
                        // The last block may have no partner. Then x is zero.
                        let second = if b + 1 < some.len() { b + 1 } else { b };
                        let w = [B::codes(l, &some[b], 0), B::codes(l, &some[second], 0)];
                        add_pair::<WORDS, RUNS, B, D, M>(d, w, (x, b / 2), (&factors[0], b / 2), &mut sums);
                        b += 2;
                    } else {
                        for p in 0..RUNS / 2 {
                            let w = [B::codes(l, &some[b], 2 * p), B::codes(l, &some[b], 2 * p + 1)];
                            let i = RUNS / 2 * b + p;
                            let at = if B::HALVES { (&factors[b], p) } else { (&factors[0], i) };
                            add_pair::<WORDS, RUNS, B, D, M>(d, w, (x, i), at, &mut sums);
                        }
                        b += 1;
                    }
                }
            }
            for r in 0..M {
                out[r * n + j] = l.total(l.add(l.add(sums[r][0], sums[r][1]), offsets[r]));
            }
        }
    }
}
