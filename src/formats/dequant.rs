//! Converts stored elements to f32: plain types and ggml quantised blocks.
//!
//! Used on load; kernels read quantised weights directly. The formulas of the quantised formats are
//! in [`formulas`](crate::formats::formulas), with the order of operations of ggml.

use super::dtype::DType;
use crate::error::Result;
use crate::formats::Format;
use crate::formats::blocks::unpack;
use half::{bf16, f16};

/// Quantised blocks per step.
const AT_ONCE: usize = 1024;

/// Converts whole blocks of `dtype` to f32.
///
/// Fails for integer types and for a byte count that is not a whole number of blocks.
pub fn to_f32(dtype: DType, bytes: &[u8]) -> Result<Vec<f32>> {
    crate::ensure!(
        bytes.len().is_multiple_of(dtype.block_bytes()),
        "{} bytes are no whole number of {dtype} blocks of {} bytes",
        bytes.len(),
        dtype.block_bytes()
    );
    Ok(match dtype {
        DType::F64 => plain(bytes, |b| f64::from_le_bytes(b) as f32),
        DType::F32 => plain(bytes, f32::from_le_bytes),
        DType::F16 => plain(bytes, |b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => plain(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        DType::I64 | DType::I32 => crate::bail!("expected real numbers, found {dtype}"),
        _ => quantised(dtype, bytes)?,
    })
}

fn plain<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&b| convert(b)).collect()
}

/// Converts blocks of a quantised type, a limited number per step to bound the temporary memory.
fn quantised(dtype: DType, bytes: &[u8]) -> Result<Vec<f32>> {
    let format = Format::of(dtype).expect("every quantised type has a format");
    let mut out = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    let some = out.chunks_mut(AT_ONCE * dtype.block_len()).zip(bytes.chunks(AT_ONCE * dtype.block_bytes()));
    for (out, bytes) in some {
        unpack(format, &format.words_of_blocks(bytes)?, out);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(x: f32) -> [u8; 2] {
        f16::from_f32(x).to_le_bytes()
    }

    #[test]
    fn sixteen_bit_floats() {
        let bytes: Vec<u8> = [0x3f80u16, 0xc040, 0x7f80].iter().flat_map(|b| b.to_le_bytes()).collect();
        assert_eq!(to_f32(DType::BF16, &bytes).unwrap(), [1.0, -3.0, f32::INFINITY]);
        let bytes: Vec<u8> = [0x3c00u16, 0xc200, 0x0001].iter().flat_map(|b| b.to_le_bytes()).collect();
        assert_eq!(to_f32(DType::F16, &bytes).unwrap(), [1.0, -3.0, 2f32.powi(-24)]);
    }

    #[test]
    fn q8_0_scales_signed_bytes() {
        let mut block = half(0.5).to_vec();
        block.extend((0..32).map(|i| (i * 8 - 128) as i8 as u8));
        let y = to_f32(DType::Q8_0, &block).unwrap();
        assert_eq!((y[0], y[16], y[31]), (-64.0, 0.0, 60.0));
    }

    #[test]
    fn q4_low_nibbles_come_first() {
        let nibbles: Vec<u8> = (0..16).map(|i| i | ((15 - i) << 4)).collect();
        let q4_0 = [&half(2.0)[..], &nibbles].concat();
        let y = to_f32(DType::Q4_0, &q4_0).unwrap();
        assert_eq!((y[0], y[15], y[16], y[31]), (-16.0, 14.0, 14.0, -16.0));
        let q4_1 = [&half(0.25)[..], &half(-1.0), &nibbles].concat();
        let y = to_f32(DType::Q4_1, &[q4_1.clone(), q4_1].concat()).unwrap();
        assert_eq!((y[0], y[15], y[16], y[31]), (-1.0, 2.75, 2.75, -1.0));
        assert_eq!(y[..32], y[32..]);
    }

    #[test]
    fn q4_k_unpacks_every_scale_and_minimum() {
        // Scales 1, 2, 3, 4 | 33, 34, 51, 52 and minima 5, 6, 7, 8 | 20, 37, 54, 9: the last four
        // differ in their top bits.
        let (scales, mins) = ([1u8, 2, 3, 4, 33, 34, 51, 52], [5u8, 6, 7, 8, 20, 37, 54, 9]);
        let mut packed = [0u8; 12];
        for j in 0..4 {
            packed[j] = scales[j] | (scales[j + 4] >> 4 << 6);
            packed[j + 4] = mins[j] | (mins[j + 4] >> 4 << 6);
            packed[j + 8] = (scales[j + 4] & 15) | (mins[j + 4] << 4);
        }
        let nibbles: Vec<u8> = (0..128).map(|i| (i / 32 + 1) as u8 | (((i / 32 + 9) as u8) << 4)).collect();
        let block = [&half(0.5)[..], &half(2.0), &packed, &nibbles].concat();
        let y = to_f32(DType::Q4_K, &block).unwrap();
        for j in 0..8 {
            let q = (j / 2 + if j % 2 == 0 { 1 } else { 9 }) as f32;
            let expected = 0.5 * f32::from(scales[j]) * q - 2.0 * f32::from(mins[j]);
            assert_eq!(y[j * 32..][..32], [expected; 32], "sub-block {j}");
        }
    }

    #[test]
    fn q6_k_joins_nibbles_and_bit_pairs() {
        // Element e has q = (7 e + 3) mod 64, packed as the format defines.
        let q: Vec<u8> = (0..256).map(|e| ((7 * e + 3) % 64) as u8).collect();
        let mut block = vec![0u8; 210];
        for (e, &q) in q.iter().enumerate() {
            let (half, run, l) = (e / 128, e % 128 / 32, e % 32);
            block[half * 64 + run % 2 * 32 + l] |= (q & 15) << (run / 2 * 4);
            block[128 + half * 32 + l] |= (q >> 4) << (run * 2);
        }
        for s in 0..16 {
            block[192 + s] = (s as i8 * 3 - 20) as u8;
        }
        block[208..].copy_from_slice(&half(0.125));
        let y = to_f32(DType::Q6_K, &block).unwrap();
        for (e, &q) in q.iter().enumerate() {
            let scale = (e / 16) as f32 * 3.0 - 20.0;
            assert_eq!(y[e], 0.125 * scale * (f32::from(q) - 32.0), "element {e}");
        }
    }

    #[test]
    fn ragged_bytes_and_integers_are_refused() {
        assert!(to_f32(DType::Q4_1, &[0; 21]).is_err());
        assert!(to_f32(DType::I32, &[0; 4]).is_err());
    }
}
