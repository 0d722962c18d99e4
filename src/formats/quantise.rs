//! Converts f32 values to the types of files: 16-bit floats, and ggml's quantised blocks.
//!
//! Blocks with one scale are in `quantise_blocks.rs`, those of 256 elements in `quantise_k.rs`.
//! [`formulas`](super::formulas) has the layouts, and [`dequant`](super::dequant) is the way back.

use half::{bf16, f16};
use rayon::prelude::*;

use super::dtype::DType;
use super::host_tensor::HostTensor;
use super::quantise_blocks::{q5_0, q8_0};
use super::quantise_k;
use crate::error::Result;

/// Rows of a tensor that one task converts.
const ROWS_AT_ONCE: usize = 16;

/// A tensor of these values in another type.
///
/// Fails for a type that cannot be written, for a last dimension that is not a whole number of its
/// blocks, and for values that it cannot hold: NaN, infinity, and numbers beyond f16.
pub fn quantise(values: &[f32], shape: &[usize], dtype: DType) -> Result<HostTensor> {
    let Some(n_bytes) = dtype.bytes_of(shape) else {
        crate::bail!("rows of {:?} values are no whole number of {dtype} blocks", shape.last())
    };
    if let Some(value) = values.iter().find(|v| !v.is_finite()) {
        crate::bail!("a value is {value}: the weights are damaged, or training diverged");
    }
    let block: Block = match dtype {
        DType::F32 => |x, out| out.copy_from_slice(&x[0].to_le_bytes()),
        DType::F16 => |x, out| out.copy_from_slice(&f16::from_f32(x[0]).to_le_bytes()),
        DType::BF16 => |x, out| out.copy_from_slice(&bf16::from_f32(x[0]).to_le_bytes()),
        DType::Q8_0 => q8_0,
        DType::Q5_0 => q5_0,
        DType::Q4_K => quantise_k::q4_k,
        DType::Q5_K => quantise_k::q5_k,
        DType::Q6_K => quantise_k::q6_k,
        other => crate::bail!("{other} cannot be written"),
    };
    if dtype == DType::F16
        && let Some(value) = values.iter().find(|v| f16::from_f32(**v).is_infinite())
    {
        crate::bail!("the value {value} is beyond the range of F16 (65504); BF16 and F32 hold it");
    }
    let (elements, bytes) = (dtype.block_len(), dtype.block_bytes());
    let blocks = ROWS_AT_ONCE * shape.last().map_or(1, |n| n / elements).max(1);
    let mut out = vec![0; n_bytes];
    let parts = values.par_chunks(blocks * elements).zip(out.par_chunks_mut(blocks * bytes));
    parts.for_each(|(values, out)| {
        values.chunks_exact(elements).zip(out.chunks_exact_mut(bytes)).for_each(|(x, out)| block(x, out));
    });
    HostTensor::new(dtype, shape.to_vec(), out)
}

/// Writes the bytes of one block.
type Block = fn(&[f32], &mut [u8]);

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Values as weights have them: near a bell curve, with an outlier here and there.
    pub fn weights(n: usize) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut bell = || (0..6).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>() * 0.02;
        (0..n).map(|i| bell() * if i % 97 == 0 { 4.0 } else { 1.0 }).collect()
    }

    /// Root of the mean squared error relative to that of the values.
    fn error(dtype: DType, x: &[f32]) -> f64 {
        let back = quantise(x, &[x.len() / 512, 512], dtype).unwrap().to_f32().unwrap();
        let sum = |f: &dyn Fn(usize) -> f32| (0..x.len()).map(|i| f64::from(f(i)).powi(2)).sum::<f64>();
        (sum(&|i| x[i] - back[i]) / sum(&|i| x[i])).sqrt()
    }

    /// A uniform grid of b bits over a bell curve of k standard deviations has an error of about
    /// 2k / 2^b / √12; the searches must stay below what rounding to the extremes gives.
    #[test]
    fn errors_are_those_of_the_bits() {
        let x = weights(64 * 512);
        for (dtype, low, high) in [
            (DType::F32, 0.0, 0.0),
            (DType::F16, 1e-4, 4e-4),
            (DType::BF16, 1e-3, 3e-3),
            (DType::Q8_0, 3e-3, 8e-3),
            (DType::Q6_K, 1e-2, 2.3e-2),
            (DType::Q5_K, 2e-2, 4.2e-2),
            (DType::Q5_0, 2e-2, 5e-2),
            (DType::Q4_K, 5e-2, 8.5e-2),
        ] {
            let error = error(dtype, &x);
            assert!((low..=high).contains(&error), "{dtype}: {error}");
        }
    }

    /// Values that a block can hold come back as they were.
    #[test]
    fn whole_numbers_of_a_scale_come_back_exactly() {
        let eights: Vec<f32> = (0..512).map(|i| ((i * 37) % 255 - 127) as f32 * 0.25).collect();
        let mut eights = eights;
        eights.chunks_mut(32).for_each(|block| block[5] = 127.0 * 0.25);
        assert_eq!(quantise(&eights, &[1, 512], DType::Q8_0).unwrap().to_f32().unwrap(), eights);
        let mut fives: Vec<f32> = (0..512).map(|i| ((i * 7) % 32 - 16) as f32 * 0.5).collect();
        fives.chunks_mut(32).for_each(|block| block[3] = -16.0 * 0.5);
        assert_eq!(quantise(&fives, &[1, 512], DType::Q5_0).unwrap().to_f32().unwrap(), fives);
        for dtype in [DType::Q8_0, DType::Q5_0, DType::Q4_K, DType::Q5_K, DType::Q6_K] {
            let zeros = quantise(&[0.0; 256], &[1, 256], dtype).unwrap().to_f32().unwrap();
            assert_eq!(zeros, [0.0; 256], "{dtype}");
            let ones = quantise(&[-3.0; 256], &[1, 256], dtype).unwrap().to_f32().unwrap();
            assert!(ones.iter().all(|v| (v + 3.0).abs() < 0.02), "{dtype}: {ones:?}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        for (values, dtype, said) in [
            (vec![f32::NAN; 32], DType::Q8_0, "NaN"),
            (vec![7e4; 32], DType::F16, "65504"),
            (vec![0.0; 33], DType::Q8_0, "whole number"),
            (vec![0.0; 32], DType::Q4_1, "cannot be written"),
        ] {
            let e = quantise(&values, &[values.len()], dtype).unwrap_err().to_string();
            assert!(e.contains(said), "{e}");
        }
    }
}
