//! The parameters of the matrix products.

use crate::params;

params! {
    /// out[i, j] = alpha · Σ_k A(i, k) B(k, j) + beta · out[i, j].
    pub struct Params {
        /// Rows of the output.
        m: u32,
        /// Columns of the product.
        n: u32,
        /// Length of the sum.
        k: u32,
        /// Elements between rows of a.
        a_stride: u32,
        /// First element of a.
        a_offset: u32,
        /// First element of w.
        w_offset: u32,
        /// Elements between rows of the output.
        c_stride: u32,
        /// First element of the output.
        c_offset: u32,
        /// Factor of the product.
        alpha: f32,
        /// Factor of the old output; if it is 0, the output is not read.
        beta: f32,
    }
}
