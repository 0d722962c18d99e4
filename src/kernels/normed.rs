//! An RMS norm and the following matrix product in one dispatch, for a single row.
//!
//! It saves a dispatch per generated token. It has no op and no rule, because it is only recorded
//! without gradients.

use super::case::{Case, Input, Tolerance, blocks, frozen};
use super::matmul_reference::vector_nt;
use super::norm::normed;
use super::parts::{HALF, REDUCE, for_format, weight_part};
use crate::error::Result;
use crate::gpu::{Binding, DispatchView, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, Work};
use crate::tensor::{Format, Tensor, kind_of};
use crate::{params, wgsl};

params! {
    /// out\[j\] = Σ_k norm(x)\[k\] W(j, k).
    pub struct Params {
        /// Columns of the product.
        n: u32,
        /// Length of the row.
        k: u32,
        /// First element of the output.
        c_offset: u32,
        /// Added to the mean square.
        eps: f32,
    }
}

/// Counts the square of each element, the norm's two products, and the product of the row with each
/// row of w.
fn normed_row_work(d: &mut DispatchView<'_>) -> Result<Work> {
    let [n, k] = ["n", "k"].map(|name| d.param(name));
    // A weight with fewer bits is bound in fewer words.
    Ok(Work { flops: (2 * n + 4) * k, bytes: 4 * (2 * k + (n * k).min(d.len("w")) + n) })
}

/// The kernel of one storage format of w.
macro_rules! kernel {
    ($format:ident, $name:ident) => {{
        static KERNEL: KernelDef = KernelDef {
            label: "matmul/normed_row",
            suffix: stringify!($name),
            parts: &[REDUCE, HALF, wgsl!("matmul/normed_row"), weight_part(Format::$format)],
            bindings: &[
                Binding::read("x", Kind::Real, "[k]"),
                Binding::read("w", kind_of(Format::$format), "[n, k]"),
                Binding::read("scale", Kind::Real, "[k]"),
                Binding::read_write("out", Kind::Real, "[n]"),
            ],
            params: Params::FIELDS,
            constants: &[],
            alternatives: &[],
            work: normed_row_work,
            reference_f32: |c| reference(c, Format::$format),
            reference_f64: |c| reference(c, Format::$format),
        };
        &KERNEL
    }};
}

fn kernel(format: Format) -> &'static KernelDef {
    for_format!(format, kernel)
}

/// The kernels of the family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    Format::all().map(|format| (kernel(format), vec![])).collect()
}

fn reference<T: Real>(args: KernelArgs<'_, T>, format: Format) {
    let p: Params = args.params();
    let host = args.host;
    let [x, w, scale, out] = args.buffers();
    let (n, k) = (p.n as usize, p.k as usize);
    host.scratch.with(k, |row| {
        normed(&x.real()[..k], scale.real(), T::of(p.eps), row);
        vector_nt(row, (w, format), &mut out.real_mut()[p.c_offset as usize..][..n], host);
    });
}

/// y = norm(x) wᵀ: x [1, in], scale [1, in], w [out, in] → [1, out]; norm is
/// [`super::norm::rms_norm`].
pub fn normed_linear(rec: &mut Recording, x: &Tensor, scale: &Tensor, eps: f32, w: &Tensor) -> Tensor {
    assert_eq!((x.rows, x.cols, scale.cols), (1, w.cols, w.cols), "shapes of norm(x) wᵀ");
    let y = Tensor::transient(rec, "normed linear", 1, w.rows);
    for piece in w.pieces() {
        let params = Params { n: piece.rows as u32, k: w.cols as u32, c_offset: piece.row as u32, eps };
        record(rec, w.format, params, [x.span(), &piece.span, scale.span(), y.span()]);
    }
    y
}

fn record(rec: &mut Recording, format: Format, params: Params, spans: [&Span; 4]) {
    rec.dispatch(kernel(format), &[], params, &spans, [params.n.div_ceil(8), 1, 1]);
}

fn case(name: &str, spread: f32, [n, k]: [usize; 2], weight: Input) -> Case {
    let inputs = vec![frozen(1, 1, k, spread, Format::F32), weight, frozen(3, 1, k, 1.0, Format::F32)];
    Case::new(format!("matmul/normed_row: {name} {k} to {n}"), inputs, Tolerance::SUMS, |rec, b| {
        Ok((vec![normed_linear(rec, &b.tensors[0], &b.tensors[2], 1e-3, &b.tensors[1])], None))
    })
}

/// Columns in the middle of an output, as for a weight that is cut into slices.
fn slice_case(n: usize, k: usize, c_offset: usize) -> Case {
    let frozen = |seed, rows, cols| frozen(seed, rows, cols, 1.0, Format::F32);
    let inputs = vec![frozen(1, 1, k), frozen(2, n, k), frozen(3, 1, k), frozen(4, 1, n + 2 * c_offset)];
    Case::new(format!("matmul/normed_row: a slice, {k} to {n}"), inputs, Tolerance::SUMS, move |rec, b| {
        let out = rec.transient("slice", Kind::Real, b.tensors[3].len());
        rec.copy(b.tensors[3].span(), &out);
        let params = Params { n: n as u32, k: k as u32, c_offset: c_offset as u32, eps: 1e-3 };
        record(rec, Format::F32, params, [b.tensors[0].span(), b.tensors[1].span(), b.tensors[2].span(), &out]);
        Ok((vec![], None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let of_format = |format: Format| {
        let (n, k) = (67, 2 * format.block_len().max(48));
        let weight = if format.is_quantised() { blocks(2, n, k, format) } else { frozen(2, n, k, 1.0, format) };
        case(&format!("{format:?} weights,"), 1.0, [n, k], weight)
    };
    let sized = |name, spread, [n, k]: [usize; 2]| case(name, spread, [n, k], frozen(2, n, k, 1.0, Format::F32));
    let sizes = [
        sized("one of all,", 1.0, [1, 1]),
        sized("small values,", 1e-3, [9, 31]),
        sized("large values,", 1e4, [130, 33]),
        sized("a long row,", 1.0, [8, 3001]),
        slice_case(19, 40, 5),
        sized("bench,", 1.0, [3072, 576]).bench(),
    ];
    Format::all().map(of_format).chain(sizes).collect()
}
