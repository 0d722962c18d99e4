//! The table of ggml's quantised weight formats: one row each, from which the rest is derived.
//!
//! A new format takes three things:
//!
//! 1. a row in `quantised_formats` below,
//! 2. its formula in [`formulas`](super::formulas): a run of 32 elements from the words of a block,
//! 3. its WGSL part `shaders/common/weight_<name>.wgsl`: `weight(i)` from the same words.
//!
//! The row gives the element type of files ([`DType`](crate::formats::dtype::DType)), the storage
//! format on a device ([`Format`](super::Format)), the readers on the host, the embedding look-up,
//! the matrix products, the normed row, and the cases of all of them. `tests/weight_formats.rs`
//! fails for a format without golden blocks.
//!
//! A device holds a block in whole words, with the bytes in the order of the file. Where they do
//! not fill the last word, zero bytes are inserted at one place (`gap_at`), so that every field
//! that a shader reads as a word starts at one. A row of a matrix is a whole number of blocks
//! without gaps.

/// Sizes of a quantised format's block, and its layout on a device.
#[derive(Clone, Copy, Debug)]
pub struct BlockLayout {
    /// The format's number in GGUF files.
    pub ggml: u32,
    /// Elements of a block, a multiple of 32.
    pub elements: usize,
    /// Bytes of a block in a file.
    pub bytes: usize,
    /// The byte before which a device's copy has the zero bytes that fill it up to whole words.
    pub gap_at: usize,
    /// The word of a device's block that holds the block's f16 scales, the lower half first.
    pub scale_word: usize,
    /// Sizes of those scales in random blocks, such that values lie about between -2 and 2.
    pub scale_sizes: &'static [f32],
}

impl BlockLayout {
    /// Words of a block on a device.
    pub const fn words(&self) -> usize {
        self.bytes.div_ceil(4)
    }
}

/// Calls `$then!` with the tokens in its parentheses and a row for each quantised format, in the
/// order in which lists name them. Each place that derives something from the table is such a
/// macro.
macro_rules! quantised_formats {
    ($then:ident!($($first:tt)*)) => {
        $then! {
            ($($first)*)
            // DType, Format, name of its formula, kernels and shader, BlockLayout
            Q8_0 Q8_0 q8_0 { ggml: 8, elements: 32, bytes: 34, gap_at: 2,
                scale_word: 0, scale_sizes: &[-1.0 / 64.0] }
            Q4_0 Q4_0 q4_0 { ggml: 2, elements: 32, bytes: 18, gap_at: 2,
                scale_word: 0, scale_sizes: &[0.25] }
            Q4_1 Q4_1 q4_1 { ggml: 3, elements: 32, bytes: 20, gap_at: 20,
                scale_word: 0, scale_sizes: &[0.25, -2.0] }
            Q5_0 Q5_0 q5_0 { ggml: 6, elements: 32, bytes: 22, gap_at: 2,
                scale_word: 0, scale_sizes: &[0.125] }
            Q5_1 Q5_1 q5_1 { ggml: 7, elements: 32, bytes: 24, gap_at: 24,
                scale_word: 0, scale_sizes: &[0.125, -2.0] }
            Q4_K Q4K q4k { ggml: 12, elements: 256, bytes: 144, gap_at: 144,
                scale_word: 0, scale_sizes: &[1.0 / 240.0, 1.0 / 32.0] }
            Q5_K Q5K q5k { ggml: 13, elements: 256, bytes: 176, gap_at: 176,
                scale_word: 0, scale_sizes: &[1.0 / 480.0, 1.0 / 32.0] }
            Q6_K Q6K q6k { ggml: 14, elements: 256, bytes: 210, gap_at: 210,
                scale_word: 52, scale_sizes: &[1.0 / 2048.0] }
        }
    };
}
pub(crate) use quantised_formats;
