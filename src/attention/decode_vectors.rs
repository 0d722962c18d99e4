//! Attention of a single query on the CPU, in vectors: its scores, and the weighted sum of values.
//!
//! [`decode`](super::decode) calls these functions for f32.

use super::reference::Shape;
use crate::simd::{LANES, Lanes, widest};

/// How many keys ahead to prefetch, with their values, which [`mix`] reads soon: the alternation of
/// keys and values defeats the hardware prefetcher. Each head asks for a share, since the CPU waits
/// when too many reads are under way.
const AHEAD: usize = 8;

widest! {
    /// out[h, k] = scale · q[h] · key k of the head's group, for `n` rows of kv. Rows of out are
    /// `out_row` apart.
    pub(super) fn scores[]<>(
        lanes: L, q: &[f32], kv: &[f32], n: usize, shape: Shape, scale: f32, out: &mut [f32], out_row: usize
    ) {
        let (dim, group, cols) = (shape.dim, shape.group(), shape.kv_cols());
        let share = (4 * cols).div_ceil(shape.n_heads);
        let mut k = 0;
        while k < n {
            let some = if n - k < 4 { n - k } else { 4 };
            for kv_head in 0..shape.n_kv_heads {
                let keys = &kv[k * cols + kv_head * dim..];
                for h in kv_head * group..(kv_head + 1) * group {
                    if k + AHEAD < n {
                        lanes.prefetch(kv, (k + AHEAD) * cols + h * share, share);
                    }
                    let dots = dots(lanes, &q[h * dim..][..dim], keys, cols, some);
                    for i in 0..some {
                        out[h * out_row + k + i] = scale * dots[i];
                    }
                }
            }
            k += some;
        }
    }
}

/// The products of q with up to four keys, `cols` apart.
#[inline(always)]
fn dots<L: Lanes>(lanes: L, q: &[f32], keys: &[f32], cols: usize, n: usize) -> [f32; 4] {
    let (q, q_rest) = q.as_chunks::<LANES>();
    let mut sums = [lanes.splat(0.0); 4];
    for i in 0..n {
        let (key, _) = keys[i * cols..][..q.len() * LANES].as_chunks::<LANES>();
        let mut odd = lanes.splat(0.0);
        let mut c = 0;
        while c + 1 < q.len() {
            sums[i] = lanes.mul_add(lanes.load(&key[c]), lanes.load(&q[c]), sums[i]);
            odd = lanes.mul_add(lanes.load(&key[c + 1]), lanes.load(&q[c + 1]), odd);
            c += 2;
        }
        if c < q.len() {
            sums[i] = lanes.mul_add(lanes.load(&key[c]), lanes.load(&q[c]), sums[i]);
        }
        sums[i] = lanes.add(sums[i], odd);
    }
    let mut dots = lanes.totals(sums);
    for i in 0..n {
        let rest = &keys[i * cols + q.len() * LANES..];
        for c in 0..q_rest.len() {
            dots[i] += q_rest[c] * rest[c];
        }
    }
    dots
}

widest! {
    /// out[h] += Σ_k weights[h, k] · value k of the head's group, over `n` rows of kv. Rows of
    /// weights are `weight_row` apart.
    pub(super) fn mix[]<>(
        lanes: L, weights: &[f32], weight_row: usize, kv: &[f32], n: usize, shape: Shape, out: &mut [f32]
    ) {
        let (dim, group) = (shape.dim, shape.group());
        for kv_head in 0..shape.n_kv_heads {
            let values = Values { rows: &kv[(shape.n_kv_heads + kv_head) * dim..], cols: shape.kv_cols(), n, dim };
            let mut h = kv_head * group;
            while h < (kv_head + 1) * group {
                let (weights, out) = (&weights[h * weight_row..], &mut out[h * dim..]);
                h += match (kv_head + 1) * group - h {
                    1 => heads::<L, 1>(lanes, weights, weight_row, values, out),
                    2 => heads::<L, 2>(lanes, weights, weight_row, values, out),
                    _ => heads::<L, 3>(lanes, weights, weight_row, values, out),
                };
            }
        }
    }
}

/// The values of one head: `n` rows of `dim` channels, `cols` apart.
#[derive(Clone, Copy)]
struct Values<'a> {
    rows: &'a [f32],
    cols: usize,
    n: usize,
    dim: usize,
}

/// [`mix`] for `H` query heads that read the same values. Returns their number.
#[inline(always)]
fn heads<L: Lanes, const H: usize>(
    lanes: L,
    weights: &[f32],
    weight_row: usize,
    values: Values<'_>,
    out: &mut [f32],
) -> usize {
    let mut at = 0;
    while at + 2 * LANES <= values.dim {
        channels::<L, H, 2>(lanes, weights, weight_row, values, at, out);
        at += 2 * LANES;
    }
    if at + LANES <= values.dim {
        channels::<L, H, 1>(lanes, weights, weight_row, values, at, out);
        at += LANES;
    }
    while at < values.dim {
        for h in 0..H {
            for k in 0..values.n {
                out[h * values.dim + at] += weights[h * weight_row + k] * values.rows[k * values.cols + at];
            }
        }
        at += 1;
    }
    H
}

/// [`heads`] for `V` vectors of channels from `at` on.
#[inline(always)]
fn channels<L: Lanes, const H: usize, const V: usize>(
    lanes: L,
    weights: &[f32],
    weight_row: usize,
    values: Values<'_>,
    at: usize,
    out: &mut [f32],
) {
    let mut sums = [[lanes.splat(0.0); V]; H];
    for k in 0..values.n {
        let (row, _) = values.rows[k * values.cols + at..][..V * LANES].as_chunks::<LANES>();
        for h in 0..H {
            let weight = lanes.splat(weights[h * weight_row + k]);
            for v in 0..V {
                sums[h][v] = lanes.mul_add(weight, lanes.load(&row[v]), sums[h][v]);
            }
        }
    }
    for h in 0..H {
        let (row, _) = out[h * values.dim + at..][..V * LANES].as_chunks_mut::<LANES>();
        for v in 0..V {
            lanes.store(lanes.add(lanes.load(&row[v]), sums[h][v]), &mut row[v]);
        }
    }
}
