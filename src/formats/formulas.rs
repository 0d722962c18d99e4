//! Formulas of packed weights: the elements of a block from its words.
//!
//! Fields and order of operations are those of ggml (ggml-common.h). All scales are f16, except
//! those of MXFP4. Each formula is written once over [`Lanes`], and gives the same bits with all of
//! them: in every quantised format all products are exact in f32, so there is at most one rounding.

use super::blocks::{
    Bf16, Blocks, F16, F32, Iq4Nl, Mxfp4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Runs,
};
use crate::simd::{LANES, Lanes};

/// x · d as an array. A formula spreads one factor at a time over all lanes.
#[inline(always)]
fn factors<L: Lanes>(l: L, x: L::F, d: f32) -> [f32; LANES] {
    let mut factors = [0.0; LANES];
    l.store(l.mul(x, l.splat(d)), &mut factors);
    factors
}

/// Sixteen bytes, the others zero.
#[inline(always)]
fn sixteen<L: Lanes>(l: L, &[a, b, c, d]: &[u32; 4]) -> L::B {
    l.bytes(&[a, b, c, d, 0, 0, 0, 0])
}

/// `N` words of a block.
#[inline(always)]
fn part<const N: usize>(block: &[u32], at: usize) -> &[u32; N] {
    block[at..].first_chunk().expect("a field lies within its block")
}

/// w · factor for sixteen elements each.
#[inline(always)]
fn scaled<L: Lanes>(l: L, w: [L::F; 2], factors: [f32; 2]) -> [L::F; 2] {
    [l.mul(w[0], l.splat(factors[0])), l.mul(w[1], l.splat(factors[1]))]
}

/// w · factor + offset for sixteen elements each.
#[inline(always)]
fn shifted<L: Lanes>(l: L, w: [L::F; 2], factors: [f32; 2], offsets: [f32; 2]) -> [L::F; 2] {
    let of = |h: usize| l.mul_add(w[h], l.splat(factors[h]), l.splat(offsets[h]));
    [of(0), of(1)]
}

/// Plain f32.
impl Blocks<32, 1> for F32 {
    type Head = ();

    #[inline(always)]
    fn head<L: Lanes>(_: L, _: &[u32; 32]) {}

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, (): &(), block: &[u32; 32], runs: &mut R) {
        let vector = |at: usize| l.load(bytemuck::cast_ref(part::<LANES>(block, at)));
        runs.take(l, 0, [vector(0), vector(LANES)]);
    }
}

/// Two bfloat16 a word.
impl Blocks<16, 1> for Bf16 {
    type Head = ();

    #[inline(always)]
    fn head<L: Lanes>(_: L, _: &[u32; 16]) {}

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, (): &(), block: &[u32; 16], runs: &mut R) {
        runs.take(l, 0, [l.brain(part(block, 0)), l.brain(part(block, 8))]);
    }
}

/// Two half floats a word.
impl Blocks<16, 1> for F16 {
    type Head = ();

    #[inline(always)]
    fn head<L: Lanes>(_: L, _: &[u32; 16]) {}

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, (): &(), block: &[u32; 16], runs: &mut R) {
        runs.take(l, 0, [l.halves(part(block, 0)), l.halves(part(block, 8))]);
    }
}

/// d f16; 32 × i8 q: y = q·d.
impl Blocks<9, 1> for Q8_0 {
    type Head = f32;
    const IN_PAIRS: bool = true;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 9]) -> f32 {
        l.half_pair(block[0])[0]
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, d: &f32, block: &[u32; 9], runs: &mut R) {
        runs.take(l, 0, scaled(l, l.signed(l.bytes(part(block, 1))), [*d; 2]));
    }
}

/// d f16; 16 bytes of two nibbles q (low: elements 0-15, high: 16-31): y = (q-8)·d.
impl Blocks<5, 1> for Q4_0 {
    type Head = f32;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 5]) -> f32 {
        l.half_pair(block[0])[0]
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, d: &f32, block: &[u32; 5], runs: &mut R) {
        let q = l.minus(l.nibbles(part(block, 1)), 8);
        runs.take(l, 0, scaled(l, l.signed(q), [*d; 2]));
    }
}

/// d f16, m f16; nibbles q as in Q4_0: y = q·d + m.
impl Blocks<5, 1> for Q4_1 {
    type Head = [f32; 2];
    const IN_PAIRS: bool = true;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 5]) -> [f32; 2] {
        l.half_pair(block[0])
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, &[d, m]: &[f32; 2], block: &[u32; 5], runs: &mut R) {
        let (levels, q) = (l.levels(d, m), part(block, 1));
        runs.take(l, 0, [l.low(levels, q), l.high(levels, q)]);
    }
}

/// d f16; one word of fifth bits (bit i for element i); nibbles as in Q4_0: y = (q-16)·d with 5-bit
/// q.
impl Blocks<6, 1> for Q5_0 {
    type Head = f32;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 6]) -> f32 {
        l.half_pair(block[0])[0]
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, d: &f32, block: &[u32; 6], runs: &mut R) {
        let q = l.or_shifted(l.nibbles(part(block, 2)), l.bits(block[1]), 4);
        runs.take(l, 0, scaled(l, l.signed(l.minus(q, 16)), [*d; 2]));
    }
}

/// d f16, m f16; fifth bits and nibbles as in Q5_0: y = q·d + m.
impl Blocks<6, 1> for Q5_1 {
    type Head = [f32; 2];

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 6]) -> [f32; 2] {
        l.half_pair(block[0])
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, &[d, m]: &[f32; 2], block: &[u32; 6], runs: &mut R) {
        let q = l.or_shifted(l.nibbles(part(block, 2)), l.bits(block[1]), 4);
        runs.take(l, 0, shifted(l, l.unsigned(q), [d; 2], [m; 2]));
    }
}

/// d·scale and -dmin·min of the eight runs. Words 1 to 3 have eight 6-bit pairs (scale, min). Bytes
/// 0-3 hold the first four scales in their low six bits, bytes 4-7 the first four minima. The last
/// four pairs have their low nibbles in bytes 8-11 and their top two bits in the top bits of bytes
/// 0-7.
#[inline(always)]
fn six_bit_pairs<L: Lanes>(l: L, block: &[u32]) -> [f32; LANES] {
    let [d, dmin] = l.half_pair(block[0]);
    let [scales, minima, last] = *part(block, 1);
    let words = [
        scales & 0x3f3f_3f3f,
        last & 0x0f0f_0f0f | scales >> 2 & 0x3030_3030,
        minima & 0x3f3f_3f3f,
        last >> 4 & 0x0f0f_0f0f | minima >> 2 & 0x3030_3030,
    ];
    let factors = std::array::from_fn(|i| if i < 8 { d } else { -dmin });
    let mut pairs = [0.0; LANES];
    let [small, _] = l.unsigned(sixteen(l, &words));
    l.store(l.mul(small, l.load(&factors)), &mut pairs);
    pairs
}

/// d f16, dmin f16; 12 bytes of eight 6-bit pairs (scale, min); 128 bytes of nibbles q.
/// Run j: y = (d·scale_j)·q - dmin·min_j.
/// Even runs are low nibbles; odd runs are the high nibbles of the same bytes.
impl Blocks<36, 8> for Q4K {
    type Head = [f32; LANES];
    const IN_PAIRS: bool = true;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 36]) -> [f32; LANES] {
        six_bit_pairs(l, block)
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, pairs: &[f32; LANES], block: &[u32; 36], runs: &mut R) {
        for pair in 0..4 {
            let run = 2 * pair;
            let q = [part(block, 4 + 4 * run), part(block, 8 + 4 * run)];
            let low = l.levels(pairs[run], pairs[8 + run]);
            runs.take(l, run, [l.low(low, q[0]), l.low(low, q[1])]);
            let high = l.levels(pairs[run + 1], pairs[9 + run]);
            runs.take(l, run + 1, [l.high(high, q[0]), l.high(high, q[1])]);
        }
    }
}

/// d f16, dmin f16; pairs as in Q4_K; 32 bytes of fifth bits (bit j of each for run j); 128 bytes
/// of nibbles as in Q4_K.
/// Run j: y = (d·scale_j)·q - dmin·min_j with 5-bit q.
impl Blocks<44, 8> for Q5K {
    type Head = [f32; LANES];

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 44]) -> [f32; LANES] {
        six_bit_pairs(l, block)
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, pairs: &[f32; LANES], block: &[u32; 44], runs: &mut R) {
        let fifth = l.bytes(part(block, 4));
        for run in 0..8 {
            let nibbles = l.field(l.bytes(part(block, 12 + run / 2 * 8)), 4 * (run as u32 % 2), 15);
            let q = l.or_shifted(nibbles, l.field(fifth, run as u32, 1), 4);
            runs.take(l, run, shifted(l, l.unsigned(q), [pairs[run]; 2], [pairs[8 + run]; 2]));
        }
    }
}

/// 128 bytes of low nibbles; 64 bytes of high bit pairs; 16 × i8 scale; d f16:
/// y = (d·scale)·(q-32).
/// Each half of 128 elements has four runs. Run r takes nibble r/2 of byte (r%2)·32+l and bit pair
/// r of byte l. Every 16 elements share a scale.
impl Blocks<53, 8> for Q6K {
    type Head = [f32; LANES];

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 53]) -> [f32; LANES] {
        let [scales, _] = l.signed(sixteen(l, part(block, 48)));
        factors(l, scales, l.half_pair(block[52])[0])
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, factors: &[f32; LANES], block: &[u32; 53], runs: &mut R) {
        for half in 0..2 {
            let high = l.bytes(part(block, 32 + half * 8));
            for r in 0..4 {
                let low = l.bytes(part(block, half * 16 + r % 2 * 8));
                let nibbles = l.field(low, r as u32 / 2 * 4, 15);
                let q = l.minus(l.or_shifted(nibbles, l.field(high, 2 * r as u32, 3), 4), 32);
                let run = 4 * half + r;
                runs.take(l, run, scaled(l, l.signed(q), [factors[2 * run], factors[2 * run + 1]]));
            }
        }
    }
}

/// 16 bytes of two nibbles (scale: low, min: high); 64 bytes of bit pairs q; d f16, dmin f16.
/// Each half of 128 elements has four runs of 32: run r takes bit pair r of the half's 32 bytes.
/// Every 16 elements share a scale and a min: y = (d·scale)·q - dmin·min.
impl Blocks<21, 8> for Q2K {
    /// d·scale, then -dmin·min.
    type Head = [[f32; LANES]; 2];

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 21]) -> [[f32; LANES]; 2] {
        let [d, dmin] = l.half_pair(block[20]);
        let [scales, minima] = l.unsigned(l.nibbles(part(block, 0)));
        [factors(l, scales, d), factors(l, minima, -dmin)]
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, [scales, minima]: &[[f32; LANES]; 2], block: &[u32; 21], runs: &mut R) {
        for half in 0..2 {
            let pairs = l.bytes(part(block, 4 + half * 8));
            for r in 0..4 {
                let (run, q) = (4 * half + r, l.unsigned(l.field(pairs, 2 * r as u32, 3)));
                let of = |x: &[f32; LANES]| [x[2 * run], x[2 * run + 1]];
                runs.take(l, run, shifted(l, q, of(scales), of(minima)));
            }
        }
    }
}

/// 32 bytes of third bits (bit j of each for run j); 64 bytes of bit pairs as in Q2_K; 16 6-bit
/// scales in 12 bytes; d f16. Every 16 elements share a scale: y = (d·(scale-32))·(q-4) with 3-bit
/// q.
/// Scale s has its low bits in a nibble of byte s%8 (low for s < 8) and its high bits in bit pair
/// s/4 of byte 8+s%4.
impl Blocks<28, 8> for Q3K {
    type Head = [f32; LANES];

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 28]) -> [f32; LANES] {
        let [a, b, high] = *part(block, 24);
        let low = [a, b, a >> 4, b >> 4];
        let words: [u32; 4] = std::array::from_fn(|i| low[i] & 0x0f0f_0f0f | (high >> (2 * i) & 0x0303_0303) << 4);
        let [scales, _] = l.signed(l.minus(sixteen(l, &words), 32));
        factors(l, scales, l.half_pair(block[27])[0])
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, factors: &[f32; LANES], block: &[u32; 28], runs: &mut R) {
        let third = l.bytes(part(block, 0));
        for half in 0..2 {
            let pairs = l.bytes(part(block, 8 + half * 8));
            for r in 0..4 {
                let run = 4 * half + r;
                let q = l.or_shifted(l.field(pairs, 2 * r as u32, 3), l.field(third, run as u32, 1), 2);
                runs.take(l, run, scaled(l, l.signed(l.minus(q, 4)), [factors[2 * run], factors[2 * run + 1]]));
            }
        }
    }
}

/// The levels of IQ4_NL.
const LEVELS: [i8; LANES] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// d f16; nibbles as in Q4_0, each the number of a level: y = level·d.
impl Blocks<5, 1> for Iq4Nl {
    type Head = f32;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 5]) -> f32 {
        l.half_pair(block[0])[0]
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, d: &f32, block: &[u32; 5], runs: &mut R) {
        let levels = l.signed(l.lookup(&LEVELS, l.nibbles(part(block, 1))));
        runs.take(l, 0, scaled(l, levels, [*d; 2]));
    }
}

/// Twice the values of FP4 (sign, two exponent bits, one mantissa bit).
const FP4: [i8; LANES] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// One byte e; nibbles as in Q4_0, each an FP4 number v: y = 2v·2^(e-128).
impl Blocks<5, 1> for Mxfp4 {
    type Head = f32;

    #[inline(always)]
    fn head<L: Lanes>(_: L, block: &[u32; 5]) -> f32 {
        let e = block[0] & 0xff;
        f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 })
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, power: &f32, block: &[u32; 5], runs: &mut R) {
        let values = l.signed(l.lookup(&FP4, l.nibbles(part(block, 1))));
        runs.take(l, 0, scaled(l, values, [*power; 2]));
    }
}
