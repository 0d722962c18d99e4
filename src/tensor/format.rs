//! How the elements of a tensor are stored on a device: plain numbers, or ggml's blocks in whole words.
//!
//! A quantised weight keeps the numbers of its file; only the bytes are laid out so that a shader, which reads u32 words, finds
//! each field of a block in place. Blocks follow one another without gaps, a row is a whole number of them, little-endian:
//!
//! | format | elements | words | word 0 | then |
//! | --- | --- | --- | --- | --- |
//! | Q8_0 | 32 | 9 | d f16, two zero bytes | 32 × i8 |
//! | Q4_0 | 32 | 5 | d f16, two zero bytes | 16 bytes: low nibbles elements 0-15, high nibbles 16-31 |
//! | Q4_1 | 32 | 5 | d f16, m f16 | as Q4_0 |
//! | Q4K | 256 | 36 | d f16, dmin f16 | 12 bytes of 6-bit scales and minima, 128 bytes of nibbles |
//! | Q6K | 256 | 53 | first of 128 bytes of low nibbles | 64 bytes of high bit pairs, 16 × i8 scale, d f16, two zero bytes |
//!
//! [`dequant`](crate::formats::dequant) has the formulas. In all five every product is exact in f32 (at most 24 bits), so that there is
//! one rounding at most and a device that fuses it gets the same bits. `shaders/common/weight_*.wgsl` read this layout on a
//! GPU, [`blocks`](super::blocks) on the CPU.

use crate::error::Result;
use crate::formats::dtype::DType;
use crate::gpu::Kind;

/// How the elements of a tensor are stored on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One f32 an element.
    F32,
    /// Two bfloat16 a word, the lower half first.
    Bf16,
    /// Two IEEE half floats a word, the lower half first.
    F16,
    /// ggml's Q8_0, padded to words.
    Q8_0,
    /// ggml's Q4_0, padded to words.
    Q4_0,
    /// ggml's Q4_1.
    Q4_1,
    /// ggml's Q4_K.
    Q4K,
    /// ggml's Q6_K, padded to words.
    Q6K,
}

impl Format {
    /// The quantised formats.
    pub const QUANTISED: [Format; 5] = [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q4K, Format::Q6K];

    /// Every format.
    pub fn all() -> impl Iterator<Item = Self> {
        [Format::F32, Format::Bf16, Format::F16].into_iter().chain(Self::QUANTISED)
    }

    /// The format that keeps a matrix of a file as it is, where there is one.
    pub fn of(dtype: DType) -> Option<Self> {
        Some(match dtype {
            DType::F32 => Format::F32,
            DType::BF16 => Format::Bf16,
            DType::F16 => Format::F16,
            DType::Q8_0 => Format::Q8_0,
            DType::Q4_0 => Format::Q4_0,
            DType::Q4_1 => Format::Q4_1,
            DType::Q4_K => Format::Q4K,
            DType::Q6_K => Format::Q6K,
            DType::F64 | DType::I64 | DType::I32 => return None,
        })
    }

    /// Type of the elements in a file.
    pub fn dtype(self) -> DType {
        match self {
            Format::F32 => DType::F32,
            Format::Bf16 => DType::BF16,
            Format::F16 => DType::F16,
            Format::Q8_0 => DType::Q8_0,
            Format::Q4_0 => DType::Q4_0,
            Format::Q4_1 => DType::Q4_1,
            Format::Q4K => DType::Q4_K,
            Format::Q6K => DType::Q6_K,
        }
    }

    /// Buffer kind of this format.
    pub fn kind(self) -> Kind {
        if self == Format::F32 { Kind::Real } else { Kind::Packed }
    }

    /// Whether several elements share a scale.
    pub fn is_quantised(self) -> bool {
        self.block_len() > 2
    }

    /// Elements that share one block of words.
    pub fn block_len(self) -> usize {
        match self {
            Format::F32 => 1,
            Format::Bf16 | Format::F16 => 2,
            Format::Q8_0 | Format::Q4_0 | Format::Q4_1 => 32,
            Format::Q4K | Format::Q6K => 256,
        }
    }

    /// Words of one block.
    pub fn block_words(self) -> usize {
        match self {
            Format::F32 | Format::Bf16 | Format::F16 => 1,
            Format::Q8_0 => 9,
            Format::Q4_0 | Format::Q4_1 => 5,
            Format::Q4K => 36,
            Format::Q6K => 53,
        }
    }

    /// Four-byte words that hold `n` elements.
    pub fn n_words(self, n: usize) -> usize {
        n.div_ceil(self.block_len()) * self.block_words()
    }

    /// Whether rows of `cols` elements are whole blocks; rows of 16-bit elements may end within a word.
    pub fn takes_rows_of(self, cols: usize) -> bool {
        !self.is_quantised() || cols.is_multiple_of(self.block_len())
    }

    /// Blocks of a file as words. Errors: a byte count that is no whole number of blocks.
    pub fn words_of_blocks(self, bytes: &[u8]) -> Result<Vec<u32>> {
        let stored = self.dtype().block_bytes();
        crate::ensure!(
            self.is_quantised() && bytes.len().is_multiple_of(stored),
            "{} bytes are no whole number of {} blocks of {stored} bytes",
            bytes.len(),
            self.dtype()
        );
        let n_words = self.block_words();
        let mut words = Vec::with_capacity(bytes.len() / stored * n_words);
        let mut block = vec![0u8; 4 * n_words];
        for source in bytes.chunks_exact(stored) {
            match self {
                Format::Q8_0 | Format::Q4_0 => {
                    block[..2].copy_from_slice(&source[..2]);
                    block[4..].copy_from_slice(&source[2..]);
                }
                _ => block[..stored].copy_from_slice(source),
            }
            words.extend(block.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b)));
        }
        Ok(words)
    }
}
