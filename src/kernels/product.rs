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
    assert!(m == 1 || out_row >= n, "rows of the output are apart");
    let whole = Columns { n, b: b.data.as_ptr(), out: out.as_mut_ptr() };
    // SAFETY: the assertion keeps every strided access within its slice, and out aliases neither
    // input.
    let run = |part: Columns<T>, threads: gemm::Parallelism| unsafe {
        gemm::gemm(
            m,
            part.n,
            k,
            part.out,
            1,
            out_row as isize,
            beta != T::ZERO,
            a.data.as_ptr(),
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
            threads,
        );
    };
    let (threads, blocks) = (rayon::current_num_threads(), n / COLUMNS);
    if !parallel || threads == 1 {
        return run(whole, gemm::Parallelism::None);
    }
    if blocks < threads || m < ROWS {
        return run(whole, gemm::Parallelism::Rayon(0));
    }
    // A thread with a product of its own is faster than threads that share one. The bits are those of
    // the whole.
    (0..threads).into_par_iter().for_each(|i| {
        let from = i * blocks / threads * COLUMNS;
        let to = if i + 1 == threads { n } else { (i + 1) * blocks / threads * COLUMNS };
        // SAFETY: `from` is below n, so both pointers stay within their slices.
        run(unsafe { whole.part(from, to - from, b.col) }, gemm::Parallelism::None);
    });
}

/// A thread takes multiples of this number of columns. They are whole tiles, and too many for gemm's
/// way with small products, which would sum in another order.
const COLUMNS: usize = 128;

/// Below this, gemm uses matrix-vector paths, which sum in another order.
const ROWS: usize = 8;

/// Some columns of a product: of b, and of the output.
#[derive(Clone, Copy)]
struct Columns<T> {
    n: usize,
    b: *const T,
    out: *mut T,
}

// SAFETY: b is only read, and no two threads get the same column of the output.
unsafe impl<T: Sync> Sync for Columns<T> {}

impl<T> Columns<T> {
    /// The columns `from .. from + n`.
    unsafe fn part(self, from: usize, n: usize, b_col: usize) -> Self {
        // SAFETY: the caller says so.
        unsafe { Self { n, b: self.b.add(from * b_col), out: self.out.add(from) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_bits_of_the_whole() {
        let numbers =
            |n: usize, seed: usize| (0..n).map(|i| ((i * 31 + seed) % 61) as f32 / 7.0 - 4.0).collect::<Vec<_>>();
        for [m, n, k] in [
            [70, 300, 50],
            [130, 257, 17],
            [40, 395, 3000],
            [300, 641, 33],
            [33, 700, 700],
            [64, 512, 1900],
            [2, 600, 40],
        ] {
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
                assert!(pool(threads).install(|| run(true)) == whole, "{m}x{n}x{k}, {threads} threads");
            }
        }
    }
}
