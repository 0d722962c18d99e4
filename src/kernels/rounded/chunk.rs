//! Activations rounded to 8 bits, for products in integers.
#![allow(clippy::needless_range_loop)] // iterators are calls, which a development build does not inline

use bytemuck::{Pod, Zeroable};

use crate::formats::blocks::RUN;
use crate::formats::codes::RUNS_AT_ONCE;
use crate::simd::{BYTES, LANES, widest};

/// Elements of a chunk.
pub const CHUNK: usize = RUNS_AT_ONCE * RUN;

/// Sixteen runs of a row: x = factor·code, as in ggml's Q8_0 but with an f32 factor. Runs past the
/// end of the row are zeros.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Chunk {
    /// Codes from -127 to 127.
    pub codes: [[i8; BYTES]; CHUNK / BYTES],
    /// The factor for each group of weights that share a scale, in order.
    pub factors: [[f32; LANES]; 2],
    /// The sum of x over each group.
    pub sums: [[f32; LANES]; 2],
}

widest! {
    /// Rounds a row for weights whose groups have `group` elements, 16 or 32.
    pub fn round_row[]<>(_lanes: L, x: &[f32], group: usize, out: &mut [Chunk]) {
        for c in 0..out.len() {
            out[c] = Chunk::zeroed();
            let end = if (c + 1) * CHUNK < x.len() { (c + 1) * CHUNK } else { x.len() };
            let runs = x[c * CHUNK..end].as_chunks::<RUN>().0;
            for i in 0..runs.len() {
                let (codes, factor) = round_run(&runs[i]);
                out[c].codes[i / 2].as_chunks_mut::<RUN>().0[i % 2] = codes;
                for g in 0..RUN / group {
                    let mut sum = 0;
                    for j in 0..group {
                        sum += i32::from(codes[g * group + j]);
                    }
                    let at = RUN / group * i + g;
                    out[c].factors[at / LANES][at % LANES] = factor;
                    out[c].sums[at / LANES][at % LANES] = factor * sum as f32;
                }
            }
        }
    }
}

/// The smallest magnitude that gets a factor. Runs of smaller numbers become zeros.
const SMALLEST: f32 = 1e-30;

/// The codes and the factor of a run. The factor is NaN if a number of the run is not finite,
/// so every product with the row is NaN, where one in f32 may be infinite.
#[inline(always)]
fn round_run(x: &[f32; RUN]) -> ([i8; RUN], f32) {
    let (mut most, mut probe) = (0.0f32, 0.0f32);
    for i in 0..RUN {
        let size = x[i].abs();
        most = if size > most { size } else { most };
        probe += size * 0.0;
    }
    let inverse = if most > SMALLEST { 127.0 / most } else { 0.0 };
    let mut codes = [0; RUN];
    for i in 0..RUN {
        codes[i] = (x[i] * inverse).round_ties_even() as i8;
    }
    (codes, most / 127.0 + probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(x: &[f32], group: usize) -> Chunk {
        let mut out = [Chunk::zeroed()];
        round_row(x, group, &mut out);
        out[0]
    }

    #[test]
    fn a_run_is_rounded_to_its_largest_number() {
        let mut x = [0.0f32; 3 * RUN];
        x[0] = 2.0;
        x[1] = -1.0;
        x[2] = 0.5 / 127.0;
        x[RUN + 20] = -254.0;
        let chunk = rounded(&x, 16);
        assert_eq!(chunk.codes[0][..4], [127, -64, 0, 0]); // -63.5 and 0.25 to the even neighbour
        assert_eq!(chunk.codes[0][RUN + 20], -127);
        assert_eq!(chunk.factors[0][..7], [2.0 / 127.0, 2.0 / 127.0, 2.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(chunk.sums[0][..4], [2.0 / 127.0 * 63.0, 0.0, 0.0, -254.0]);
        let whole = rounded(&x, 32);
        assert_eq!(whole.sums[0][..3], [2.0 / 127.0 * 63.0, -254.0, 0.0]);
    }

    #[test]
    fn what_is_not_finite_stays_so_and_tiny_runs_are_zero() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0f32; 2 * RUN];
            x[40] = bad;
            let factors = rounded(&x, 32).factors[0];
            assert!(factors[0] == 1.0 / 127.0 && factors[1].is_nan(), "{bad}");
        }
        let tiny = rounded(&[1e-38; RUN], 32);
        assert!(tiny.codes[0][..RUN] == [0; RUN] && tiny.sums[0][0] == 0.0);
    }
}
