//! Helpers for row-wise kernels: lanes per row, and loops over rows for the references.
//!
//! The loops run in parallel for large inputs. Sums use a fixed number of lanes, so LLVM vectorises
//! them and the result does not depend on the number of threads.

use rayon::prelude::*;

use crate::gpu::{Real, groups_for};
use crate::simd::vectorised;

/// References that process fewer elements run on one thread.
const PARALLEL_FROM: usize = 1 << 15;
/// Minimum elements of a parallel task.
const TASK: usize = 1 << 12;
/// Number of partial sums in the references' reductions.
pub const SUM_LANES: usize = 16;

/// Names of the constants of `common/row.wgsl` and `common/reduce.wgsl`.
pub const ROW_CONSTANTS: &[&str] = &["GROUP", "LANES"];

/// All values of [`ROW_CONSTANTS`]: workgroup size, and invocations per row.
pub const ROW_SHAPES: [[u32; 2]; 4] = [[64, 8], [64, 32], [64, 64], [256, 256]];

/// The row shape for `cols` columns: short rows share a workgroup, long rows have a large one each.
pub fn row_shape(cols: usize) -> [u32; 2] {
    ROW_SHAPES[match cols {
        ..=128 => 0,
        129..=512 => 1,
        513..=2048 => 2,
        _ => 3,
    }]
}

/// Workgroups for `rows` rows in the given shape.
pub fn row_groups(rows: usize, [group, lanes]: [u32; 2]) -> [u32; 3] {
    groups_for(rows * lanes as usize, group as usize)
}

/// Calls `f(r, row)` for each row of `out`, in parallel if the total `work` in elements is large
/// enough.
pub fn for_rows<T: Send>(work: usize, out: &mut [T], cols: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    if work < PARALLEL_FROM {
        return out.chunks_mut(cols).enumerate().for_each(|(r, row)| f(r, row));
    }
    let rows_per_task = TASK.div_ceil((work / (out.len() / cols).max(1)).max(1));
    out.par_chunks_mut(cols).enumerate().with_min_len(rows_per_task).for_each(|(r, row)| f(r, row));
}

/// Like [`for_rows`], for two outputs with the same number of rows and `a_cols` and `b_cols`
/// columns.
pub fn for_row_pairs<T: Send>(
    (a, a_cols): (&mut [T], usize),
    (b, b_cols): (&mut [T], usize),
    f: impl Fn(usize, &mut [T], &mut [T]) + Sync + Send,
) {
    if a.len() < PARALLEL_FROM {
        return a.chunks_mut(a_cols).zip(b.chunks_mut(b_cols)).enumerate().for_each(|(r, (a, b))| f(r, a, b));
    }
    let rows = a.par_chunks_mut(a_cols).zip(b.par_chunks_mut(b_cols)).enumerate();
    rows.with_min_len(TASK.div_ceil(a_cols)).for_each(|(r, (a, b))| f(r, a, b));
}

/// Sums the partial sums in order. Adding them by halves could lead the compiler to use shorter
/// vectors in the preceding loop.
#[allow(clippy::needless_range_loop)] // see simd/vectorised.rs
#[inline(always)]
pub fn total<T: Real>(lanes: [T; SUM_LANES]) -> T {
    let mut sum = T::ZERO;
    for l in 0..SUM_LANES {
        sum += lanes[l];
    }
    sum
}

vectorised! {
    /// Σ a b.
    pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
        let n = if a.len() < b.len() { a.len() } else { b.len() };
        let (a, b) = (&a[..n], &b[..n]);
        let whole = n / SUM_LANES * SUM_LANES;
        let mut lanes = [T::ZERO; SUM_LANES];
        let mut i = 0;
        while i < whole {
            for l in 0..SUM_LANES {
                lanes[l] += a[i + l] * b[i + l];
            }
            i += SUM_LANES;
        }
        let mut sum = total(lanes);
        for i in whole..n {
            sum += a[i] * b[i];
        }
        sum
    }
}

vectorised! {
    /// Σ a b c.
    pub fn dot3<T: Real>(a: &[T], b: &[T], c: &[T]) -> T {
        let n = if a.len() < b.len() { a.len() } else { b.len() };
        let (a, b, c) = (&a[..n], &b[..n], &c[..n]);
        let whole = n / SUM_LANES * SUM_LANES;
        let mut lanes = [T::ZERO; SUM_LANES];
        let mut i = 0;
        while i < whole {
            for l in 0..SUM_LANES {
                lanes[l] += a[i + l] * b[i + l] * c[i + l];
            }
            i += SUM_LANES;
        }
        let mut sum = total(lanes);
        for i in whole..n {
            sum += a[i] * b[i] * c[i];
        }
        sum
    }
}

/// The maximum of a row; a large negative number if it is empty.
#[allow(clippy::needless_range_loop)] // see simd/vectorised.rs
#[inline(always)]
pub fn row_max<T: Real>(row: &[T]) -> T {
    let (chunks, rest) = row.as_chunks::<SUM_LANES>();
    let mut lanes = [T::LOWEST; SUM_LANES];
    for i in 0..chunks.len() {
        for l in 0..SUM_LANES {
            lanes[l] = larger(lanes[l], chunks[i][l]);
        }
    }
    let mut top = T::LOWEST;
    for l in 0..SUM_LANES {
        top = larger(top, lanes[l]);
    }
    for i in 0..rest.len() {
        top = larger(top, rest[i]);
    }
    top
}

#[inline(always)]
fn larger<T: Real>(a: T, b: T) -> T {
    if b > a { b } else { a }
}

/// Sum of a row.
#[allow(clippy::needless_range_loop)] // see simd/vectorised.rs
#[inline(always)]
pub fn row_sum<T: Real>(row: &[T]) -> T {
    let (chunks, rest) = row.as_chunks::<SUM_LANES>();
    let mut lanes = [T::ZERO; SUM_LANES];
    for i in 0..chunks.len() {
        for l in 0..SUM_LANES {
            lanes[l] += chunks[i][l];
        }
    }
    let mut sum = total(lanes);
    for i in 0..rest.len() {
        sum += rest[i];
    }
    sum
}

vectorised! {
    /// Turns scores into weights that sum to 1; returns their log-sum-exp.
    pub fn softmax<T: Real>(row: &mut [T]) -> T {
        let top = row_max(row);
        for i in 0..row.len() {
            row[i] = (row[i] - top).exp();
        }
        let sum = row_sum(row);
        let factor = T::ONE / sum;
        for i in 0..row.len() {
            row[i] *= factor;
        }
        top + sum.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_rows_are_each_visited_once() {
        let (rows, cols) = (4099, 17);
        let mut out = vec![0u32; rows * cols];
        let mut stat = vec![0u32; rows];
        for_row_pairs((&mut out, cols), (&mut stat, 1), |r, row, s| {
            row.iter_mut().for_each(|x| *x += r as u32);
            s[0] += 1;
        });
        for_rows(out.len(), &mut out[..], cols, |r, row| row.iter_mut().for_each(|x| *x -= r as u32));
        assert!(out.iter().all(|&x| x == 0) && stat.iter().all(|&s| s == 1));
    }

    #[test]
    fn dots_count_the_rest() {
        let a: Vec<f64> = (1..=37).map(f64::from).collect();
        let squares = a.iter().map(|x| x * x).sum::<f64>();
        let cubes = a.iter().map(|x| x * x * x).sum::<f64>();
        assert_eq!((dot(&a, &a), dot3(&a, &a, &a)), (squares, cubes));
    }
}
