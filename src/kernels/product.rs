//! Strided matrix product for the CPU references: a safe wrapper of the `gemm` crate.

use rayon::prelude::*;

use crate::gpu::Real;

/// A matrix inside a slice: element (i, j) is at `i * row + j * col`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl<'a, T> View<'a, T> {
    /// Contiguous rows, `row` elements apart.
    pub fn rows(data: &'a [T], row: usize) -> Self {
        Self { data, row, col: 1 }
    }

    /// The transpose of [`View::rows`].
    pub fn columns(data: &'a [T], row: usize) -> Self {
        Self { data, row: 1, col: row }
    }

    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.row + (cols - 1) * self.col < self.data.len()
    }
}

/// out [m, n] (rows `out_row` apart) = alpha · a [m, k] · b [k, n] + beta · out; does not read out
/// if beta is 0.
#[allow(clippy::too_many_arguments)] // a BLAS call has this many
pub fn product<T: Real>(
    [m, n, k]: [usize; 3],
    a: View<'_, T>,
    b: View<'_, T>,
    out: &mut [T],
    out_row: usize,
    alpha: T,
    beta: T,
    parallel: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.holds(m, k) && b.holds(k, n) && (m - 1) * out_row + n <= out.len(), "operands hold the product");
    let whole = Block { m, n, k, a: a.data.as_ptr(), b: b.data.as_ptr(), out: out.as_mut_ptr() };
    // SAFETY: the assertion keeps every strided access within its slice, and out aliases neither
    // input.
    let run = |part: Block<T>| unsafe {
        gemm::gemm(
            part.m,
            part.n,
            part.k,
            part.out,
            1,
            out_row as isize,
            beta != T::ZERO,
            part.a,
            a.col as isize,
            a.row as isize,
            part.b,
            b.col as isize,
            b.row as isize,
            beta,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    };
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    if threads == 1 {
        return run(whole);
    }
    // A thread with a product of its own is faster than threads that share one. The parts add up k
    // in the same order, so the bits are those of the whole.
    let by_columns = n >= m || n >= threads * COLUMNS;
    let (length, unit) = if by_columns { (n, COLUMNS) } else { (m, ROWS) };
    let step = length.div_ceil(threads).next_multiple_of(unit);
    (0..length.div_ceil(step)).into_par_iter().for_each(|i| {
        let (from, len) = (i * step, step.min(length - i * step));
        // SAFETY: `from` is below the length of its axis, so all pointers stay within their slices.
        run(unsafe {
            if by_columns { whole.columns(from, len, b.col) } else { whole.rows(from, len, a.row, out_row) }
        });
    });
}

/// Columns that a thread takes at least: those of gemm's widest tile.
const COLUMNS: usize = 64;
/// Rows that a thread takes at least: several of gemm's tiles.
const ROWS: usize = 24;

/// A part of a product. Different parts write different elements of the output.
#[derive(Clone, Copy)]
struct Block<T> {
    m: usize,
    n: usize,
    k: usize,
    a: *const T,
    b: *const T,
    out: *mut T,
}

// SAFETY: the inputs are only read, and no two threads get parts with a common element of the output.
unsafe impl<T: Sync> Sync for Block<T> {}

impl<T> Block<T> {
    /// The columns `from .. from + n`.
    unsafe fn columns(self, from: usize, n: usize, b_col: usize) -> Self {
        // SAFETY: the caller says so.
        unsafe { Self { n, b: self.b.add(from * b_col), out: self.out.add(from), ..self } }
    }

    /// The rows `from .. from + m`.
    unsafe fn rows(self, from: usize, m: usize, a_row: usize, out_row: usize) -> Self {
        // SAFETY: the caller says so.
        unsafe { Self { m, a: self.a.add(from * a_row), out: self.out.add(from * out_row), ..self } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_the_bits_of_the_whole() {
        let numbers =
            |n: usize, seed: usize| (0..n).map(|i| ((i * 31 + seed) % 61) as f32 / 7.0 - 4.0).collect::<Vec<_>>();
        for [m, n, k] in [[70, 300, 50], [300, 9, 40], [130, 131, 17], [1, 500, 64], [500, 1, 64]] {
            let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
            let run = |parallel: bool| {
                let mut out = numbers(m * (n + 3), 3);
                let (a, b) = (View::rows(&a, k), View::columns(&b, k));
                product([m, n, k], a, b, &mut out, n + 3, 0.7, 0.5, parallel);
                out
            };
            let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            let whole = run(false);
            for threads in [1, 2, 3, 5] {
                assert_eq!(pool(threads).install(|| run(true)), whole, "{m}x{n}x{k}, {threads} threads");
            }
        }
    }
}
