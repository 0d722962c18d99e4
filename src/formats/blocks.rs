//! Unpacks packed weights on the CPU, for the kernel references.
//!
//! [`formulas`] has the formula for a run of [`RUN`] elements. This file
//! dispatches on the format. `kernels/weights.rs` computes matrix products from the unpacked runs.

use super::format::Format;
use super::formulas;
pub use super::formulas::RUN;
use super::weight_formats::{BlockLayout, quantised_formats};

/// A packed format with blocks of `WORDS` words.
pub trait Blocks<const WORDS: usize> {
    /// Runs per block.
    const RUNS: usize;

    /// Unpacks run `run` of a block.
    fn unpack(block: &[u32; WORDS], run: usize) -> [f32; RUN];
}

/// Declares one type per quantised format, for functions that are generic over formats.
macro_rules! block_types {
    (() $($dtype:ident $format:ident $name:ident { $($layout:tt)* })*) => {
        $(
            #[doc = concat!("Blocks of ggml's ", stringify!($dtype), ".")]
            pub struct $format;

            impl Blocks<{ Format::$format.block_words() }> for $format {
                const RUNS: usize = {
                    let layout = BlockLayout { $($layout)* };
                    assert!(layout.elements.is_multiple_of(RUN) && layout.gap_at <= layout.bytes);
                    layout.elements / RUN
                };

                #[inline(always)]
                fn unpack(block: &[u32; Format::$format.block_words()], run: usize) -> [f32; RUN] {
                    formulas::$name(block, run)
                }
            }
        )*
    };
}

quantised_formats!(block_types!());

/// Blocks of 16 words with two bfloat16 each.
pub struct Bf16;

impl Blocks<16> for Bf16 {
    const RUNS: usize = 1;

    #[inline(always)]
    fn unpack(block: &[u32; 16], _: usize) -> [f32; RUN] {
        formulas::bf16(block)
    }
}

/// Blocks of 16 words with two half floats each.
pub struct F16;

impl Blocks<16> for F16 {
    const RUNS: usize = 1;

    #[inline(always)]
    fn unpack(block: &[u32; 16], _: usize) -> [f32; RUN] {
        formulas::f16(block)
    }
}

/// Calls a function that is generic over number type, block words and packed format, with the given
/// format.
macro_rules! by_format {
    ((@ $format:expr, $number:ty, $function:ident, $args:tt)
        $($dtype:ident $variant:ident $name:ident { $($layout:tt)* })*) => {
        match $format {
            Format::F32 => unreachable!("f32 weights are not packed"),
            Format::Bf16 => by_format!(@call $function, $number, 16, Bf16, $args),
            Format::F16 => by_format!(@call $function, $number, 16, F16, $args),
            $(Format::$variant => {
                by_format!(@call $function, $number, { Format::$variant.block_words() }, $variant, $args)
            })*
        }
    };
    (@call $function:ident, $number:ty, $words:expr, $blocks:ident, ($($arg:expr),*)) => {
        $function::<$number, { $words }, $crate::formats::blocks::$blocks>($($arg),*)
    };
    ($format:expr, $number:ty, $function:ident($($arg:expr),*)) => {
        $crate::formats::weight_formats::quantised_formats!(by_format!(@ $format, $number, $function, ($($arg),*)))
    };
}
pub(crate) use by_format;

/// Unpacks elements `from..` of a packed tensor, one by one. For code where vectorising is not
/// worth it.
pub fn unpack_from<T: From<f32> + Copy>(format: Format, words: &[u32], from: usize, out: &mut [T]) {
    fn copy<T: From<f32> + Copy, const WORDS: usize, B: Blocks<WORDS>>(words: &[u32], from: usize, out: &mut [T]) {
        let mut block = [0; WORDS];
        let mut held = None;
        let mut run = [0.0; RUN];
        for (i, out) in (from..).zip(out) {
            if held != Some(i / RUN) {
                let part = &words[i / RUN / B::RUNS * WORDS..];
                let n = part.len().min(WORDS); // 16-bit tensors may end inside a run
                block[..n].copy_from_slice(&part[..n]);
                run = B::unpack(&block, i / RUN % B::RUNS);
                held = Some(i / RUN);
            }
            *out = T::from(run[i % RUN]);
        }
    }
    by_format!(format, T, copy(words, from, out));
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
