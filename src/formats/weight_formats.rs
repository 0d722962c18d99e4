//! The table of ggml's quantised weight formats: one row per format.
//!
//! To add a format:
//!
//! 1. add a row to `quantised_formats` below,
//! 2. add its formula to [`formulas`](super::formulas): a run of 32 elements from a block of words,
//! 3. add `shaders/common/weight_<name>.wgsl`, which declares `weight(i)` for the same words and reads
//!    half floats by `half(bits)`.
//!
//! The row yields the element type of files ([`DType`](crate::formats::dtype::DType)), the storage
//! format on a device ([`Format`](super::Format)), the host readers, the embedding lookup, the
//! matrix products, the fused norm and row product, and the cases of all of them.
//! `tests/weight_formats.rs` fails for a format without golden blocks.
//!
//! On a device, a block is a whole number of words, with the bytes in file order. If the bytes do
//! not fill the last word, the device copy inserts zero bytes at one place (`gap_at`), so that
//! every field that a shader reads as a word starts at a word boundary. A matrix row is a whole
//! number of blocks without gaps between them.

/// Size of a block of a quantised format, and its layout on a device.
#[derive(Clone, Copy, Debug)]
pub struct BlockLayout {
    /// Number of the format in GGUF files.
    pub ggml: u32,
    /// Elements per block, a multiple of 32.
    pub elements: usize,
    /// Bytes per block in a file.
    pub bytes: usize,
    /// Offset of the zero bytes that pad the device copy to whole words.
    pub gap_at: usize,
    /// Word of the device block with the scales, the first in the lowest bits.
    pub scale_word: usize,
    /// Bits of a scale: 16 for an f16, 8 for a power of two (2^(byte - 128)).
    pub scale_bits: usize,
    /// Magnitudes of those scales in random test blocks, chosen so that values lie roughly in -2 to
    /// 2.
    pub scale_sizes: &'static [f32],
}

impl BlockLayout {
    /// Words per block on a device.
    pub const fn words(&self) -> usize {
        self.bytes.div_ceil(4)
    }

    /// Overwrites the scales of a test block, each with what `scale` makes of its size in the table.
    /// The scales lie before any gap, so the bytes may be those of a file or of a device.
    pub fn write_scales(&self, block: &mut [u8], mut scale: impl FnMut(f32) -> f32) {
        for (i, &size) in self.scale_sizes.iter().enumerate() {
            let scale = scale(size);
            let at = 4 * self.scale_word + i * self.scale_bits / 8;
            match self.scale_bits {
                16 => block[at..at + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes()),
                _ => block[at] = (scale.log2().round() + 128.0) as u8,
            }
        }
    }
}

/// Calls `$then!` with the tokens in its parentheses and one row per quantised format, in the order
/// of lists. Every place that derives code from the table is such a macro.
macro_rules! quantised_formats {
    ($then:ident!($($first:tt)*)) => {
        $then! {
            ($($first)*)
            // DType, Format, name of formula, kernels and shader, BlockLayout
            Q8_0 Q8_0 q8_0 { ggml: 8, elements: 32, bytes: 34, gap_at: 2,
                scale_word: 0, scale_bits: 16, scale_sizes: &[-1.0 / 64.0] }
            Q4_0 Q4_0 q4_0 { ggml: 2, elements: 32, bytes: 18, gap_at: 2,
                scale_word: 0, scale_bits: 16, scale_sizes: &[0.25] }
            Q4_1 Q4_1 q4_1 { ggml: 3, elements: 32, bytes: 20, gap_at: 20,
                scale_word: 0, scale_bits: 16, scale_sizes: &[0.25, -2.0] }
            Q5_0 Q5_0 q5_0 { ggml: 6, elements: 32, bytes: 22, gap_at: 2,
                scale_word: 0, scale_bits: 16, scale_sizes: &[0.125] }
            Q5_1 Q5_1 q5_1 { ggml: 7, elements: 32, bytes: 24, gap_at: 24,
                scale_word: 0, scale_bits: 16, scale_sizes: &[0.125, -2.0] }
            Q2_K Q2K q2k { ggml: 10, elements: 256, bytes: 84, gap_at: 84,
                scale_word: 20, scale_bits: 16, scale_sizes: &[1.0 / 12.0, 1.0 / 8.0] }
            Q3_K Q3K q3k { ggml: 11, elements: 256, bytes: 110, gap_at: 110,
                scale_word: 27, scale_bits: 16, scale_sizes: &[1.0 / 64.0] }
            Q4_K Q4K q4k { ggml: 12, elements: 256, bytes: 144, gap_at: 144,
                scale_word: 0, scale_bits: 16, scale_sizes: &[1.0 / 240.0, 1.0 / 32.0] }
            Q5_K Q5K q5k { ggml: 13, elements: 256, bytes: 176, gap_at: 176,
                scale_word: 0, scale_bits: 16, scale_sizes: &[1.0 / 480.0, 1.0 / 32.0] }
            Q6_K Q6K q6k { ggml: 14, elements: 256, bytes: 210, gap_at: 210,
                scale_word: 52, scale_bits: 16, scale_sizes: &[1.0 / 2048.0] }
            IQ4_NL Iq4Nl iq4nl { ggml: 20, elements: 32, bytes: 18, gap_at: 2,
                scale_word: 0, scale_bits: 16, scale_sizes: &[1.0 / 64.0] }
            MXFP4 Mxfp4 mxfp4 { ggml: 39, elements: 32, bytes: 17, gap_at: 1,
                scale_word: 0, scale_bits: 8, scale_sizes: &[1.0 / 8.0] }
        }
    };
}
pub(crate) use quantised_formats;
