//! Storage formats of tensors on a device: plain numbers, or ggml blocks in whole words.
//!
//! A quantised weight keeps the bits of its file. Only the byte layout changes, so that a shader,
//! which reads u32 words, finds each field of a block at a word boundary.
//! [`weight_formats`](super::weight_formats) defines the layouts and [`formulas`](super::formulas)
//! the fields. In every quantised format all products are exact in f32 (at most 24 bits). So there
//! is at most one rounding, and a device with fused multiply-add gets the same bits.
//! `shaders/common/weight_*.wgsl` read this layout on a GPU, [`blocks`](super::blocks) on the CPU.

use super::weight_formats::quantised_formats;
use crate::error::Result;
use crate::formats::dtype::DType;

/// Declares the formats: the plain ones, then the quantised ones from the table.
macro_rules! storage_formats {
    (() $($dtype:ident $format:ident $name:ident { $($layout:tt)* })*) => {
        /// Storage format of the elements of a tensor on a device.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Format {
            /// One f32 per element.
            F32,
            /// Two bfloat16 per word, the first in the low half.
            Bf16,
            /// Two IEEE half floats per word, the first in the low half.
            F16,
            $(
                #[doc = concat!("ggml's ", stringify!($dtype), " in whole words.")]
                $format,
            )*
        }

        impl Format {
            /// The quantised formats.
            pub const QUANTISED: [Format; [$(stringify!($format)),*].len()] = [$(Format::$format),*];

            /// Element type in a file.
            pub const fn dtype(self) -> DType {
                match self {
                    Format::F32 => DType::F32,
                    Format::Bf16 => DType::BF16,
                    Format::F16 => DType::F16,
                    $(Format::$format => DType::$dtype,)*
                }
            }
        }
    };
}

quantised_formats!(storage_formats!());

impl Format {
    /// All formats.
    pub fn all() -> impl Iterator<Item = Self> {
        [Format::F32, Format::Bf16, Format::F16].into_iter().chain(Self::QUANTISED)
    }

    /// The format that stores a matrix of this type unchanged, if there is one.
    pub fn of(dtype: DType) -> Option<Self> {
        Self::all().find(|format| format.dtype() == dtype)
    }

    /// Whether the elements of a block share scales.
    pub const fn is_quantised(self) -> bool {
        self.dtype().is_quantised()
    }

    /// Elements per block of words.
    pub const fn block_len(self) -> usize {
        match self {
            Format::Bf16 | Format::F16 => 2,
            _ => self.dtype().block_len(),
        }
    }

    /// Words per block.
    pub const fn block_words(self) -> usize {
        self.dtype().block_bytes().div_ceil(4)
    }

    /// Number of 4-byte words for `n` elements.
    pub fn n_words(self, n: usize) -> usize {
        n.div_ceil(self.block_len()) * self.block_words()
    }

    /// Whether rows of `cols` elements are whole blocks. Rows of 16-bit elements may end inside a
    /// word.
    pub fn takes_rows_of(self, cols: usize) -> bool {
        !self.is_quantised() || cols.is_multiple_of(self.block_len())
    }

    /// Whether the words of a device are the bytes of a file in their order.
    pub const fn has_file_layout(self) -> bool {
        !self.is_quantised() || self.dtype().block_bytes().is_multiple_of(4)
    }

    /// Lays out whole blocks of a file as words, which it overwrites whole. 16-bit elements may end
    /// within the last word. Panics if the sizes do not match.
    pub fn pack(self, bytes: &[u8], words: &mut [u32]) {
        let (stored, n_words) = (self.dtype().block_bytes(), self.block_words());
        if self.has_file_layout() {
            assert_eq!(bytes.len().div_ceil(4), words.len(), "words for all bytes");
            let out: &mut [u8] = bytemuck::cast_slice_mut(words);
            let (content, rest) = out.split_at_mut(bytes.len());
            content.copy_from_slice(bytes);
            rest.fill(0);
        } else {
            assert_eq!(bytes.len() / stored * n_words, words.len(), "words for all blocks");
            let gap_at = self.dtype().block_layout().map_or(0, |layout| layout.gap_at);
            let after = 4 * n_words - (stored - gap_at);
            for (source, words) in bytes.chunks_exact(stored).zip(words.chunks_exact_mut(n_words)) {
                let block: &mut [u8] = bytemuck::cast_slice_mut(words);
                block[..gap_at].copy_from_slice(&source[..gap_at]);
                block[gap_at..after].fill(0);
                block[after..].copy_from_slice(&source[gap_at..]);
            }
        }
        words.iter_mut().for_each(|word| *word = u32::from_le(*word));
    }

    /// Repacks blocks of a file into words. Fails for plain types and for a byte count that is not
    /// a whole number of blocks.
    pub fn words_of_blocks(self, bytes: &[u8]) -> Result<Vec<u32>> {
        let (stored, n_words) = (self.dtype().block_bytes(), self.block_words());
        crate::ensure!(
            self.is_quantised() && bytes.len().is_multiple_of(stored),
            "{} bytes are no whole number of {} blocks of {stored} bytes",
            bytes.len(),
            self.dtype()
        );
        let mut words = vec![0; bytes.len() / stored * n_words];
        self.pack(bytes, &mut words);
        Ok(words)
    }
}
