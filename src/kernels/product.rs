//! Strided matrix product for the CPU references: a safe wrapper of the `gemm` crate.

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
    let threads = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: the assertion keeps every strided access within its slice, and out aliases neither
    // input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_row as isize,
            beta != T::ZERO,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            beta,
            alpha,
            false,
            false,
            false,
            threads,
        );
    }
}
