//! Element types of tensors in files and on the host, quantised types included.
//!
//! A type has a name, and a block size in elements and bytes. [`dequant`](super::dequant) converts
//! elements; [`Format`](super::Format) describes storage on a device.

use crate::error::{Error, Result};
use crate::formats::weight_formats::{BlockLayout, quantised_formats};
use std::fmt;

/// Declares the types: the plain ones with their numbers in GGUF files, then the quantised ones
/// from the table.
macro_rules! element_types {
    (($($plain:ident = $ggml:literal),*) $($dtype:ident $format:ident $name:ident { $($layout:tt)* })*) => {
        /// Element type in memory, little-endian.
        #[allow(non_camel_case_types)] // ggml's names, familiar from file names
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType { $($plain,)* $($dtype,)* }

        impl DType {
            /// All types, in the order of error messages.
            pub const ALL: [DType; [$(stringify!($plain),)* $(stringify!($dtype),)*].len()] =
                [$(DType::$plain,)* $(DType::$dtype,)*];

            /// Name in files and messages.
            pub const fn name(self) -> &'static str {
                match self {
                    $(DType::$plain => stringify!($plain),)*
                    $(DType::$dtype => stringify!($dtype),)*
                }
            }

            /// Number of the type in GGUF files.
            pub const fn ggml(self) -> u32 {
                match self {
                    $(DType::$plain => $ggml,)*
                    $(DType::$dtype => BlockLayout { $($layout)* }.ggml,)*
                }
            }

            /// Size and layout of a block; `None` for plain types.
            pub const fn block_layout(self) -> Option<&'static BlockLayout> {
                match self {
                    $(DType::$plain => None,)*
                    $(DType::$dtype => Some(&BlockLayout { $($layout)* }),)*
                }
            }
        }
    };
}

quantised_formats!(element_types!(F64 = 28, F32 = 0, F16 = 1, BF16 = 30, I64 = 27, I32 = 26));

impl DType {
    /// Elements per block; 1 for plain types.
    pub const fn block_len(self) -> usize {
        match self.block_layout() {
            Some(layout) => layout.elements,
            None => 1,
        }
    }

    /// Bytes per block of [`DType::block_len`] elements.
    pub const fn block_bytes(self) -> usize {
        match (self, self.block_layout()) {
            (_, Some(layout)) => layout.bytes,
            (DType::F64 | DType::I64, _) => 8,
            (DType::F16 | DType::BF16, _) => 2,
            _ => 4,
        }
    }

    /// Whether values are real numbers (plain or quantised), so that
    /// [`HostTensor::to_f32`](super::host_tensor::HostTensor) can convert them.
    pub const fn is_real(self) -> bool {
        !matches!(self, DType::I64 | DType::I32)
    }

    /// Whether the elements of a block share scales.
    pub const fn is_quantised(self) -> bool {
        self.block_layout().is_some()
    }

    /// Bytes of a tensor with this shape. `None` if the number overflows or a row is not a whole
    /// number of blocks.
    pub fn bytes_of(self, shape: &[usize]) -> Option<usize> {
        let row = shape.last().copied().unwrap_or(1);
        if row % self.block_len() != 0 {
            return None;
        }
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (elements / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The type for a safetensors dtype.
    pub fn from_safetensors(dtype: safetensors::Dtype) -> Result<Self> {
        use safetensors::Dtype as S;
        Ok(match dtype {
            S::F64 => DType::F64,
            S::F32 => DType::F32,
            S::F16 => DType::F16,
            S::BF16 => DType::BF16,
            S::I64 => DType::I64,
            S::I32 => DType::I32,
            other => crate::bail!("element type {other} is not supported; expected F64, F32, F16, BF16, I64 or I32"),
        })
    }

    /// The safetensors dtype for this type. Fails for quantised types, which safetensors cannot
    /// store.
    pub fn to_safetensors(self) -> Result<safetensors::Dtype> {
        use safetensors::Dtype as S;
        Ok(match self {
            DType::F64 => S::F64,
            DType::F32 => S::F32,
            DType::F16 => S::F16,
            DType::BF16 => S::BF16,
            DType::I64 => S::I64,
            DType::I32 => S::I32,
            quantised => crate::bail!("safetensors files cannot hold {quantised}: convert it to F32 first"),
        })
    }

    /// The type for a ggml type number. The error names types that Longreach does not read.
    pub fn from_ggml(number: u32) -> Result<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.ggml() == number).ok_or_else(|| unsupported_ggml(number))
    }
}

/// ggml names of the types that Longreach does not read, for error messages.
const GGML_NAMES: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

fn unsupported_ggml(number: u32) -> Error {
    let name = GGML_NAMES.iter().find(|(n, _)| *n == number).map_or("unknown", |(_, name)| name);
    let readable: Vec<&str> = DType::ALL.iter().filter(|d| d.is_real()).map(|d| d.name()).collect();
    Error::new(format!(
        "ggml type {number} ({name}) is not supported; expected one of {} \
         (a file quantised as Q4_0, Q4_K_S or Q8_0 of the same model may do)",
        readable.join(", ")
    ))
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_the_blocks_and_refuse_ragged_rows_and_overflow() {
        assert_eq!(DType::F32.bytes_of(&[]), Some(4));
        assert_eq!(DType::BF16.bytes_of(&[3, 5]), Some(30));
        assert_eq!(DType::Q4_1.bytes_of(&[2, 64]), Some(2 * 2 * 20));
        assert_eq!(DType::Q6_K.bytes_of(&[512]), Some(420));
        assert_eq!(DType::Q8_0.bytes_of(&[4, 33]), None, "a row must be whole blocks even if the whole is");
        assert_eq!(DType::F32.bytes_of(&[usize::MAX, 2]), None);
    }

    #[test]
    fn unsupported_types_are_named() {
        let e = DType::from_ggml(23).unwrap_err().to_string();
        assert!(e.contains("IQ4_XS") && e.contains("Q5_K, Q6_K"), "{e}");
        assert!(DType::from_ggml(4_000_000_000).is_err());
        assert!(DType::from_safetensors(safetensors::Dtype::BOOL).unwrap_err().to_string().contains("BOOL"));
    }

    #[test]
    fn safetensors_names_round_trip() {
        for dtype in DType::ALL.into_iter().filter(|d| !d.is_quantised()) {
            assert_eq!(DType::from_safetensors(dtype.to_safetensors().unwrap()).unwrap(), dtype);
        }
    }
}
