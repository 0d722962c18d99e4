//! Stored elements to f32: 16-bit floats and ggml's quantised blocks, with ggml's order of operations.
//!
//! Blocks as ggml defines them (ggml-common.h), all numbers little-endian, scales f16. This is the converter used on load;
//! kernels that read quantised weights directly are another matter. Read [`dtype`](super::dtype) for the block sizes.

use super::dtype::DType;
use crate::error::Result;
use half::{bf16, f16};

/// Converts whole blocks of `dtype` to f32. `bytes` must be a whole number of blocks.
///
/// Errors: integer types, and a byte count that is no whole number of blocks.
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
        DType::Q8_0 => blocks::<34, 32>(bytes, q8_0),
        DType::Q4_0 => blocks::<18, 32>(bytes, q4_0),
        DType::Q4_1 => blocks::<20, 32>(bytes, q4_1),
        DType::Q4_K => blocks::<144, 256>(bytes, q4_k),
        DType::Q6_K => blocks::<210, 256>(bytes, q6_k),
        DType::I64 | DType::I32 => crate::bail!("expected real numbers, found {dtype}"),
    })
}

fn plain<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&b| convert(b)).collect()
}

/// Runs `convert` on every block of `BYTES` bytes, each giving `LEN` values.
fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    convert: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) -> Vec<f32> {
    let source = bytes.as_chunks::<BYTES>().0;
    let mut out = vec![0.0; source.len() * LEN];
    for (block, values) in source.iter().zip(out.as_chunks_mut::<LEN>().0) {
        convert(block, values);
    }
    out
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// scale f16, 32 × i8: y = q·d.
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (y, &q) in out.iter_mut().zip(&block[2..]) {
        *y = f32::from(q as i8) * d;
    }
}

/// scale f16, 16 bytes of two nibbles (low: elements 0-15, high: 16-31): y = (q-8)·d.
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (j, &q) in block[2..].iter().enumerate() {
        out[j] = (f32::from(q & 15) - 8.0) * d;
        out[j + 16] = (f32::from(q >> 4) - 8.0) * d;
    }
}

/// scale f16, minimum f16, nibbles as in Q4_0: y = q·d + m.
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (j, &q) in block[4..].iter().enumerate() {
        out[j] = f32::from(q & 15) * d + m;
        out[j + 16] = f32::from(q >> 4) * d + m;
    }
}

/// d f16, dmin f16, 12 bytes of eight 6-bit (scale, minimum) pairs, 128 bytes of nibbles.
/// Sub-block j of 32: y = (d·scale_j)·q - dmin·min_j; even sub-blocks are low nibbles, odd ones the high nibbles beside them.
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, nibbles) = (&block[4..16], &block[16..]);
    for (j, y) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(packed, j);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let shift = 4 * (j % 2);
        for (y, &q) in y.iter_mut().zip(&nibbles[j / 2 * 32..]) {
            *y = scale * f32::from(q >> shift & 15) - min;
        }
    }
}

/// The j-th 6-bit scale and minimum: the first four lie in the low six bits of bytes j and j+4; the last four have their
/// low nibbles in byte j+4 and their top two bits above the first four.
fn scale_min(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        return (packed[j] & 63, packed[j + 4] & 63);
    }
    let low = packed[j + 4];
    ((low & 15) | (packed[j - 4] >> 6 << 4), (low >> 4) | (packed[j] >> 6 << 4))
}

/// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 × i8 scale, d f16: y = (d·scale)·(q-32).
/// Each half of 128 elements is four runs of 32: run r takes nibble r/2 of byte (r%2)·32+l, bit pair r of byte l.
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for half in 0..2 {
        let low = &block[half * 64..][..64];
        let high = &block[128 + half * 32..][..32];
        let scales = &block[192 + half * 8..][..8];
        for run in 0..4 {
            for l in 0..32 {
                let bits = (low[run % 2 * 32 + l] >> (run / 2 * 4) & 15) | ((high[l] >> (run * 2) & 3) << 4);
                let scale = d * f32::from(scales[run * 2 + l / 16] as i8);
                out[half * 128 + run * 32 + l] = scale * (f32::from(bits) - 32.0);
            }
        }
    }
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
        // Scales 1, 2, 3, 4 | 33, 34, 51, 52 and minima 5, 6, 7, 8 | 20, 37, 54, 9: top bits differ among the last four.
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
        // Element e holds q = (7 e + 3) mod 64, packed by the definition of the format.
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
