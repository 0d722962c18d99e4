//! Tensors on the host: type, shape and raw little-endian bytes, as in files.
//!
//! 16-bit and quantised values keep their stored bytes, so that they can be uploaded unchanged.
//! [`HostTensor::to_f32`] converts them. See [`dtype`](super::dtype) for the types and [`dequant`]
//! for the conversion.

use super::dequant;
use super::dtype::DType;
use super::file_bytes::{FileBytes, TensorBytes};
use crate::error::Result;

/// Name, type and shape of a tensor that is to be written. The last dimension is contiguous.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Its size in a file. Fails if a row is no whole number of blocks.
    pub fn n_bytes(&self) -> Result<usize> {
        let Self { name, dtype, shape } = self;
        let Some(bytes) = dtype.bytes_of(shape) else {
            crate::bail!("tensor '{name}': a {dtype} tensor cannot have the shape {shape:?}")
        };
        Ok(bytes)
    }

    /// Fails if the content has another type or shape.
    pub fn check(&self, tensor: &HostTensor) -> Result<()> {
        let Self { name, dtype, shape } = self;
        crate::ensure!(
            (tensor.dtype, &tensor.shape) == (*dtype, shape),
            "tensor '{name}': announced as {dtype} {shape:?}, and made as {} {:?}",
            tensor.dtype,
            tensor.shape
        );
        Ok(())
    }
}

/// A row-major tensor; its last dimension is contiguous.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: TensorBytes,
}

impl HostTensor {
    /// A tensor from bytes. Fails if their number does not match type and shape.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self> {
        Self::of(dtype, shape, bytes.into())
    }

    /// A tensor whose bytes stay in their file. Fails if their number does not match type and shape.
    pub fn mapped(dtype: DType, shape: Vec<usize>, bytes: FileBytes) -> Result<Self> {
        Self::of(dtype, shape, TensorBytes::Mapped(bytes))
    }

    fn of(dtype: DType, shape: Vec<usize>, bytes: TensorBytes) -> Result<Self> {
        crate::ensure!(
            dtype.bytes_of(&shape) == Some(bytes.len()),
            "a {dtype} tensor of shape {shape:?} cannot have {} bytes",
            bytes.len()
        );
        Ok(Self { dtype, shape, bytes })
    }

    /// An f32 tensor. Panics if the number of values is not the product of the shape.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values must fill the shape {shape:?}");
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into();
        Self { dtype: DType::F32, shape: shape.to_vec(), bytes }
    }

    /// An i32 tensor. Panics if the number of values is not the product of the shape.
    pub fn from_i32(shape: &[usize], values: &[i32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values must fill the shape {shape:?}");
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into();
        Self { dtype: DType::I32, shape: shape.to_vec(), bytes }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as f32 (f64 is rounded). Fails for integers.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        dequant::to_f32(self.dtype, &self.bytes)
    }

    /// The values of an integer tensor as i64. Fails for real numbers.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        Ok(match self.dtype {
            DType::I32 => self.bytes.as_chunks().0.iter().map(|&b| i64::from(i32::from_le_bytes(b))).collect(),
            DType::I64 => self.bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect(),
            other => crate::bail!("expected integers, found {other}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_must_match_type_and_shape() {
        assert!(HostTensor::new(DType::F16, vec![2, 3], vec![0; 12]).is_ok());
        let e = HostTensor::new(DType::F16, vec![2, 3], vec![0; 11]).unwrap_err().to_string();
        assert!(e.contains("F16") && e.contains("[2, 3]") && e.contains("11"), "{e}");
        assert!(HostTensor::new(DType::F32, vec![usize::MAX, usize::MAX], vec![]).is_err());
    }

    #[test]
    fn values_round_trip() {
        let t = HostTensor::from_f32(&[2, 2], &[1.0, -2.5, 0.0, 3e30]);
        assert_eq!(t.to_f32().unwrap(), [1.0, -2.5, 0.0, 3e30]);
        assert!(t.to_i64().is_err());
        let ids = HostTensor::from_i32(&[3], &[-100, 7, i32::MAX]);
        assert_eq!(ids.to_i64().unwrap(), [-100, 7, i64::from(i32::MAX)]);
        assert!(ids.to_f32().is_err());
    }

    #[test]
    fn sixteen_bits_stay_raw_until_asked() {
        let t = HostTensor::new(DType::BF16, vec![1], vec![0x80, 0x3f]).unwrap();
        assert_eq!(t.to_f32().unwrap(), [1.0]);
    }
}
