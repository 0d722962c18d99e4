//! Packed weights on the CPU: the blocks of each format, unpacked in vectors.
//!
//! [`formulas`](super::formulas) has the formula of each format. This file declares the formats'
//! types, unpacks whole blocks, and dispatches on the format. `kernels/few_rows.rs` multiplies
//! without storing what is unpacked.

use super::format::Format;
use super::weight_formats::{BlockLayout, quantised_formats};
use crate::simd::{LANES, Lanes, widest};

/// Elements per run: the unit of unpacking.
pub const RUN: usize = 2 * LANES;

/// Takes the runs of a block: stores them, or multiplies them.
pub trait Runs<L: Lanes> {
    /// Takes the elements of a run of the block, two vectors.
    fn take(&mut self, lanes: L, run: usize, w: [L::F; 2]);
}

/// A packed format with blocks of `WORDS` words and `RUNS` runs.
pub trait Blocks<const WORDS: usize, const RUNS: usize> {
    /// The factors of a block as f32. They are computed for several blocks before the elements of
    /// any, which keeps the conversions out of the inner loop.
    type Head: Copy + Default;
    /// Whether a product with one row interleaves two weight rows. This pays where blocks are
    /// unpacked faster than the sums of one weight row can follow each other.
    const IN_PAIRS: bool = false;

    /// The head of a block.
    fn head<L: Lanes>(lanes: L, block: &[u32; WORDS]) -> Self::Head;

    /// The heads of blocks, at the start of `out`.
    #[inline(always)]
    fn heads<L: Lanes>(lanes: L, blocks: &[[u32; WORDS]], out: &mut [Self::Head]) {
        let mut i = 0;
        while i < blocks.len() {
            out[i] = Self::head(lanes, &blocks[i]);
            i += 1;
        }
    }

    /// Unpacks a block and passes on its runs.
    fn each<L: Lanes, R: Runs<L>>(lanes: L, head: &Self::Head, block: &[u32; WORDS], runs: &mut R);
}

/// `N` words of a block.
#[inline(always)]
pub fn part<const N: usize>(block: &[u32], at: usize) -> &[u32; N] {
    block[at..].first_chunk().expect("a field lies within its block")
}

/// Heads that are computed at a time.
const HEADS: usize = 16;

/// Declares one type per quantised format, for functions that are generic over formats.
macro_rules! block_types {
    (() $($dtype:ident $format:ident $name:ident { $($layout:tt)* })*) => {
        $(
            #[doc = concat!("Blocks of ggml's ", stringify!($dtype), ".")]
            pub struct $format;

            const _: () = {
                let layout = BlockLayout { $($layout)* };
                assert!(layout.elements.is_multiple_of(RUN) && layout.gap_at <= layout.bytes);
            };
        )*
    };
}

quantised_formats!(block_types!());

/// Blocks of 16 words with two bfloat16 each.
pub struct Bf16;

/// Blocks of 16 words with two half floats each.
pub struct F16;

/// Blocks of 32 plain f32.
pub struct F32;

/// Calls a function that is generic over block words, runs and format, with the given format. What
/// stands in brackets is passed as further generic arguments.
macro_rules! by_format {
    ((@ ($($plain:tt)*) $format:expr, $function:ident, $more:tt, $args:tt)
        $($dtype:ident $variant:ident $name:ident { $($layout:tt)* })*) => {
        match $format {
            $($plain)*
            $(Format::$variant => {
                by_format!(
                    @call $function, { Format::$variant.block_words() },
                    { Format::$variant.block_len() / $crate::formats::blocks::RUN }, $variant, $more, $args
                )
            })*
        }
    };
    (@call $function:ident, $words:expr, $runs:expr, $blocks:ident, [$($more:tt)*], ($($arg:expr),*)) => {
        $function::<{ $words }, { $runs }, $crate::formats::blocks::$blocks $($more)*>($($arg),*)
    };
    (quantised $format:expr, $function:ident $([$($more:tt)*])? ($($arg:expr),*)) => {
        $crate::formats::weight_formats::quantised_formats!(by_format!(@ (
            Format::F32 | Format::Bf16 | Format::F16 => unreachable!("the format is quantised"),
        ) $format, $function, [$($(, $more)*)?], ($($arg),*)))
    };
    ($format:expr, $function:ident $([$($more:tt)*])? ($($arg:expr),*)) => {
        $crate::formats::weight_formats::quantised_formats!(by_format!(@ (
            Format::F32 => by_format!(@call $function, 32, 1, F32, [$($(, $more)*)?], ($($arg),*)),
            Format::Bf16 => by_format!(@call $function, 16, 1, Bf16, [$($(, $more)*)?], ($($arg),*)),
            Format::F16 => by_format!(@call $function, 16, 1, F16, [$($(, $more)*)?], ($($arg),*)),
        ) $format, $function, [$($(, $more)*)?], ($($arg),*)))
    };
}
pub(crate) use by_format;

/// Stores runs in memory.
struct Store<'a> {
    out: &'a mut [[f32; RUN]],
}

impl<L: Lanes> Runs<L> for Store<'_> {
    #[inline(always)]
    fn take(&mut self, lanes: L, run: usize, w: [L::F; 2]) {
        let (vectors, _) = self.out[run].as_chunks_mut::<LANES>();
        for h in 0..2 {
            lanes.store(w[h], &mut vectors[h]);
        }
    }
}

widest! {
    /// Unpacks whole blocks.
    fn unpack_blocks[const WORDS: usize, const RUNS: usize, B: Blocks<WORDS, RUNS>]<WORDS, RUNS, B>(
        lanes: L, words: &[u32], out: &mut [f32]
    ) {
        let (blocks, out) = (words.as_chunks::<WORDS>().0, out.as_chunks_mut::<RUN>().0);
        let mut heads = [B::Head::default(); HEADS];
        for (blocks, out) in blocks.chunks(HEADS).zip(out.chunks_mut(HEADS * RUNS)) {
            let count = out.len() / RUNS; // there may be more words
            B::heads(lanes, &blocks[..count], &mut heads);
            for i in 0..count {
                B::each(lanes, &heads[i], &blocks[i], &mut Store { out: &mut out[i * RUNS..(i + 1) * RUNS] });
            }
        }
    }
}

/// Unpacks the first `out.len()` elements of a packed tensor, which are whole blocks. Blocks of
/// 16-bit formats have 32 elements here.
pub fn unpack(format: Format, words: &[u32], out: &mut [f32]) {
    by_format!(format, unpack_blocks(words, out))
}

/// Elements of the largest block.
const MOST: usize = 256;

/// Unpacks elements `from..` of a packed tensor, one by one. For code where vectorising is not
/// worth it.
pub fn unpack_from<T: From<f32> + Copy>(format: Format, words: &[u32], from: usize, out: &mut [T]) {
    let len = format.block_len().max(RUN);
    let n_words = format.n_words(len);
    let (mut block, mut values) = ([0; RUN], [0.0; MOST]);
    let mut held = None;
    for (i, out) in (from..).zip(out) {
        if held != Some(i / len) {
            let words = &words[i / len * n_words..];
            if words.len() >= n_words {
                unpack(format, &words[..n_words], &mut values[..len]);
            } else {
                block[..words.len()].copy_from_slice(words); // tensors of plain elements may end inside a run
                unpack(format, &block[..n_words], &mut values[..len]);
            }
            held = Some(i / len);
        }
        *out = T::from(values[i % len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::dequant;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn packed_blocks_hold_the_values_of_the_file_to_the_bit() {
        let mut rng = StdRng::seed_from_u64(7);
        for format in Format::QUANTISED {
            let stored: Vec<u8> = (0..format.dtype().block_bytes() * 64).map(|_| rng.random_range(0..=255)).collect();
            let words = format.words_of_blocks(&stored).unwrap();
            let expected = dequant::to_f32(format.dtype(), &stored).unwrap();
            let mut values = vec![0.0f32; expected.len()];
            unpack_from(format, &words, 0, &mut values);
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            assert!(values.iter().zip(&expected).all(same), "{format:?}");
            let mut some = vec![0.0f64; 70];
            unpack_from(format, &words, 45, &mut some);
            assert!(some.iter().zip(&expected[45..]).all(|(a, b)| *a == f64::from(*b) || b.is_nan()), "{format:?}");
        }
    }

    #[test]
    fn ragged_blocks_are_refused() {
        assert!(Format::Q4_1.words_of_blocks(&[0; 21]).is_err());
        assert!(Format::F16.words_of_blocks(&[0; 4]).is_err());
    }
}
