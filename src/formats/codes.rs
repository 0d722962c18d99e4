//! Integer codes of packed weights.
//!
//! Every quantised format is y = factor·code + offset, with a factor and an offset for each group of
//! 32 or 16 elements. Products in integers need the codes as they are. [`formulas`](super::formulas)
//! computes y.

use super::blocks::{Blocks, Iq4Nl, Mxfp4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, part};
use crate::simd::{LANES, Lanes};

/// Blocks of sixteen runs, or fewer at the end of a row.
pub const RUNS_AT_ONCE: usize = LANES;

/// Factors and offsets of sixteen groups.
pub type Scales<L> = [<L as Lanes>::F; 2];

/// The codes of a quantised format with blocks of `WORDS` words and `RUNS` runs.
pub trait Codes<const WORDS: usize, const RUNS: usize>: Blocks<WORDS, RUNS> {
    /// Whether each half of a run is a group, instead of the run.
    const HALVES: bool = false;
    /// Whether codes are numbers from -128 to 127, and offsets zero. Other codes are from 0 to 127.
    const SIGNED: bool = false;

    /// The codes of a run.
    fn codes<L: Lanes>(lanes: L, block: &[u32; WORDS], run: usize) -> L::B;

    /// Factors and offsets of blocks of sixteen runs, or fewer: those of the groups in order, in the
    /// second vectors too if there are two groups a run. Those of missing blocks are those of the last
    /// one.
    fn scales<L: Lanes>(lanes: L, blocks: &[[u32; WORDS]]) -> [Scales<L>; 2];
}

/// The first words of up to sixteen blocks; the last one's stands for those that are missing. They are
/// not collected in memory, where a vector that is read at once would wait for sixteen writes.
#[inline(always)]
fn first_words<const WORDS: usize>(blocks: &[[u32; WORDS]]) -> [u32; LANES] {
    match blocks.first_chunk::<RUNS_AT_ONCE>() {
        Some(blocks) => std::array::from_fn(|i| blocks[i][0]),
        None => std::array::from_fn(|i| blocks[if i < blocks.len() { i } else { blocks.len() - 1 }][0]),
    }
}

/// The low half floats of the first words.
#[inline(always)]
fn low_halves<L: Lanes, const WORDS: usize>(l: L, blocks: &[[u32; WORDS]]) -> L::F {
    l.half_pairs(&first_words(blocks))[0]
}

/// The scales of codes with a sign.
#[inline(always)]
fn signed<L: Lanes>(l: L, factors: L::F) -> [Scales<L>; 2] {
    [[factors, l.splat(0.0)], [l.splat(0.0); 2]]
}

/// The scales of codes from which a number is subtracted: offset = zero · factor.
#[inline(always)]
fn around<L: Lanes>(l: L, factors: L::F, zero: f32) -> [Scales<L>; 2] {
    [[factors, l.mul(factors, l.splat(zero))], [l.splat(0.0); 2]]
}

/// The heads of two K blocks, or of one twice.
#[inline(always)]
fn heads<L: Lanes, const WORDS: usize, const RUNS: usize, B: Blocks<WORDS, RUNS>>(
    l: L,
    blocks: &[[u32; WORDS]],
) -> [B::Head; 2] {
    [B::head(l, &blocks[0]), B::head(l, &blocks[blocks.len() - 1])]
}

/// The scales of two blocks with eight factors and eight offsets each.
#[inline(always)]
fn six_bit_scales<L: Lanes>(l: L, [a, b]: [[f32; LANES]; 2]) -> [Scales<L>; 2] {
    [l.regrouped(l.load(&a), l.load(&b)), [l.splat(0.0); 2]]
}

impl Codes<9, 1> for Q8_0 {
    const SIGNED: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 9], _: usize) -> L::B {
        l.bytes(part(block, 1))
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 9]]) -> [Scales<L>; 2] {
        signed(l, low_halves(l, blocks))
    }
}

impl Codes<5, 1> for Q4_0 {
    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 5], _: usize) -> L::B {
        l.nibbles(part(block, 1))
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 5]]) -> [Scales<L>; 2] {
        around(l, low_halves(l, blocks), -8.0)
    }
}

impl Codes<5, 1> for Q4_1 {
    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 5], _: usize) -> L::B {
        l.nibbles(part(block, 1))
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 5]]) -> [Scales<L>; 2] {
        let none = l.splat(0.0);
        [l.half_pairs(&first_words(blocks)), [none; 2]]
    }
}

/// Nibbles with a fifth bit: of element i, bit i of word 1.
#[inline(always)]
fn five_bits<L: Lanes>(l: L, block: &[u32; 6]) -> L::B {
    l.or_shifted(l.nibbles(part(block, 2)), l.bits(block[1]), 4)
}

impl Codes<6, 1> for Q5_0 {
    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 6], _: usize) -> L::B {
        five_bits(l, block)
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 6]]) -> [Scales<L>; 2] {
        around(l, low_halves(l, blocks), -16.0)
    }
}

impl Codes<6, 1> for Q5_1 {
    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 6], _: usize) -> L::B {
        five_bits(l, block)
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 6]]) -> [Scales<L>; 2] {
        let none = l.splat(0.0);
        [l.half_pairs(&first_words(blocks)), [none; 2]]
    }
}

/// Nibbles of a K block from word `at` on: 32 bytes for two runs, the low nibbles for the first.
#[inline(always)]
fn nibbles_of_run<L: Lanes>(l: L, block: &[u32], at: usize, run: usize) -> L::B {
    l.field(l.bytes(part(block, at + run / 2 * 8)), 4 * (run as u32 % 2), 15)
}

/// Bit pairs of a K block from word `at` on: 32 bytes for the four runs of a half.
#[inline(always)]
fn pairs_of_run<L: Lanes>(l: L, block: &[u32], at: usize, run: usize) -> L::B {
    l.field(l.bytes(part(block, at + run / 4 * 8)), 2 * (run as u32 % 4), 3)
}

/// One bit of a K block for each element, from word `at` on: bit j of 32 bytes for run j.
#[inline(always)]
fn bits_of_run<L: Lanes>(l: L, block: &[u32], at: usize, run: usize) -> L::B {
    l.field(l.bytes(part(block, at)), run as u32, 1)
}

impl Codes<36, 8> for Q4K {
    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 36], run: usize) -> L::B {
        nibbles_of_run(l, block, 4, run)
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 36]]) -> [Scales<L>; 2] {
        six_bit_scales(l, heads::<L, 36, 8, Self>(l, blocks))
    }
}

impl Codes<44, 8> for Q5K {
    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 44], run: usize) -> L::B {
        l.or_shifted(nibbles_of_run(l, block, 12, run), bits_of_run(l, block, 4, run), 4)
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 44]]) -> [Scales<L>; 2] {
        six_bit_scales(l, heads::<L, 44, 8, Self>(l, blocks))
    }
}

impl Codes<53, 8> for Q6K {
    const HALVES: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 53], run: usize) -> L::B {
        let low = l.bytes(part(block, run / 4 * 16 + run % 2 * 8));
        let nibbles = l.field(low, run as u32 % 4 / 2 * 4, 15);
        l.or_shifted(nibbles, pairs_of_run(l, block, 32, run), 4)
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 53]]) -> [Scales<L>; 2] {
        heads::<L, 53, 8, Self>(l, blocks).map(|factors| around(l, l.load(&factors), -32.0)[0])
    }
}

impl Codes<21, 8> for Q2K {
    const HALVES: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 21], run: usize) -> L::B {
        pairs_of_run(l, block, 4, run)
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 21]]) -> [Scales<L>; 2] {
        heads::<L, 21, 8, Self>(l, blocks).map(|[scales, minima]| [l.load(&scales), l.load(&minima)])
    }
}

impl Codes<28, 8> for Q3K {
    const HALVES: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 28], run: usize) -> L::B {
        l.or_shifted(pairs_of_run(l, block, 8, run), bits_of_run(l, block, 0, run), 2)
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 28]]) -> [Scales<L>; 2] {
        heads::<L, 28, 8, Self>(l, blocks).map(|factors| around(l, l.load(&factors), -4.0)[0])
    }
}

/// The levels of IQ4_NL.
const LEVELS: [i8; LANES] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl Codes<5, 1> for Iq4Nl {
    const SIGNED: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 5], _: usize) -> L::B {
        l.lookup(&LEVELS, l.nibbles(part(block, 1)))
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 5]]) -> [Scales<L>; 2] {
        signed(l, low_halves(l, blocks))
    }
}

/// Twice the values of FP4 (sign, two exponent bits, one mantissa bit).
const FP4: [i8; LANES] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

impl Codes<5, 1> for Mxfp4 {
    const SIGNED: bool = true;

    #[inline(always)]
    fn codes<L: Lanes>(l: L, block: &[u32; 5], _: usize) -> L::B {
        l.lookup(&FP4, l.nibbles(part(block, 1)))
    }

    #[inline(always)]
    fn scales<L: Lanes>(l: L, blocks: &[[u32; 5]]) -> [Scales<L>; 2] {
        let powers =
            std::array::from_fn(|i| Self::head(l, &blocks[if i < blocks.len() { i } else { blocks.len() - 1 }]));
        signed(l, l.load(&powers))
    }
}
