//! RMS norm over rows: of activations, or of query and key heads (QK-norm) with one row per head.

use super::case::{Case, Input, Tolerance, real};
use super::op::{Applied, Op, when};
use super::parts::REDUCE;
use super::reduce;
use super::rows::{ROW_CONSTANTS, ROW_SHAPES, dot, dot3, for_row_pairs, for_rows, row_groups, row_shape};
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, groups_for};
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

params! {
    /// The shape and epsilon.
    pub struct Params {
        /// Rows.
        rows: u32,
        /// Columns.
        cols: u32,
        /// Added to the mean square.
        eps: f32,
    }
}

static RMS_NORM: KernelDef = KernelDef {
    label: "norm/rms_norm",
    suffix: "",
    parts: &[REDUCE, wgsl!("common/row"), wgsl!("norm/rms_norm")],
    bindings: &[
        Binding::read("x", Kind::Real, "[rows, cols]"),
        Binding::read("w", Kind::Real, "[cols]"),
        Binding::write("y", Kind::Real, "[rows, cols]"),
        Binding::write("rstd", Kind::Real, "[rows]"),
    ],
    params: Params::FIELDS,
    constants: ROW_CONSTANTS,
    alternatives: &[],
    work: |d| Ok(d.work(4 * d.len("x"))),
    reference_f32: rms_norm_reference,
    reference_f64: rms_norm_reference,
};

static RMS_NORM_BACKWARD: KernelDef = KernelDef {
    label: "norm/rms_norm_backward",
    suffix: "",
    parts: &[REDUCE, wgsl!("common/row"), wgsl!("norm/rms_norm_backward")],
    bindings: &[
        Binding::read("dy", Kind::Real, "[rows, cols]"),
        Binding::read("x", Kind::Real, "[rows, cols]"),
        Binding::read("w", Kind::Real, "[cols]"),
        Binding::read("rstd", Kind::Real, "[rows]"),
        Binding::write("dx", Kind::Real, "[rows, cols]"),
    ],
    params: Params::FIELDS,
    constants: ROW_CONSTANTS,
    alternatives: &[],
    work: |d| Ok(d.work(7 * d.len("x"))),
    reference_f32: rms_norm_backward_reference,
    reference_f64: rms_norm_backward_reference,
};

static RMS_NORM_BACKWARD_DW: KernelDef = KernelDef {
    label: "norm/rms_norm_backward_dw",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("norm/rms_norm_backward_dw")],
    bindings: &[
        Binding::read("dy", Kind::Real, "[rows, cols]"),
        Binding::read("x", Kind::Real, "[rows, cols]"),
        Binding::read("rstd", Kind::Real, "[rows]"),
        Binding::write("dw", Kind::Real, "[rows / block, cols]"),
    ],
    params: reduce::Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(3 * d.len("x"))),
    reference_f32: rms_norm_backward_dw_reference,
    reference_f64: rms_norm_backward_dw_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    let shaped = [&RMS_NORM, &RMS_NORM_BACKWARD].into_iter().flat_map(|k| ROW_SHAPES.map(|s| (k, s.to_vec())));
    shaped.chain([(&RMS_NORM_BACKWARD_DW, vec![])]).collect()
}

fn rms_norm_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, w, y, rstd] = args.buffers();
    let (x, w, y, rstd) = (x.real(), w.real(), y.real_mut(), rstd.real_mut());
    let (rows, cols) = (p.rows as usize, p.cols as usize);
    let eps = T::of(p.eps);
    for_row_pairs((&mut y[..rows * cols], cols), (&mut rstd[..rows], 1), |r, y, rstd| {
        rstd[0] = normed(&x[r * cols..][..cols], w, eps, y);
    });
}

/// Writes the norm of a row to y, and returns its scale factor.
pub(super) fn normed<T: Real>(x: &[T], w: &[T], eps: T, y: &mut [T]) -> T {
    let scale = T::ONE / (dot(x, x) / T::of(x.len() as f32) + eps).sqrt();
    for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
        *y = w * (x * scale);
    }
    scale
}

fn rms_norm_backward_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [dy, x, w, rstd, dx] = args.buffers();
    let (dy, x, w, rstd, dx) = (dy.real(), x.real(), w.real(), rstd.real(), dx.real_mut());
    let (rows, cols) = (p.rows as usize, p.cols as usize);
    let n = T::of(cols as f32);
    for_rows(rows * cols, &mut dx[..rows * cols], cols, |r, dx| {
        let (dy, x, scale) = (&dy[r * cols..][..cols], &x[r * cols..][..cols], rstd[r]);
        let shrink = scale * scale * dot3(dy, w, x) / n;
        for (((dx, &dy), &x), &w) in dx.iter_mut().zip(dy).zip(x).zip(w) {
            *dx = scale * (dy * w - x * shrink);
        }
    });
}

fn rms_norm_backward_dw_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: reduce::Params = args.params();
    let [dy, x, rstd, dw] = args.buffers();
    let (dy, x, rstd, dw) = (dy.real(), x.real(), rstd.real(), dw.real_mut());
    let (rows, cols, block) = (p.rows as usize, p.cols as usize, p.block as usize);
    let n_blocks = rows.div_ceil(block);
    for_rows(rows * cols, &mut dw[..n_blocks * cols], cols, |b, dw| {
        dw.fill(T::ZERO);
        for r in b * block..(b * block + block).min(rows) {
            let (dy, x, scale) = (&dy[r * cols..][..cols], &x[r * cols..][..cols], rstd[r]);
            for ((dw, &dy), &x) in dw.iter_mut().zip(dy).zip(x) {
                *dw += dy * (x * scale);
            }
        }
    });
}

struct RmsNorm {
    x: Tensor,
    w: Tensor,
    rstd: Span,
    params: Params,
}

impl Op for RmsNorm {
    fn label(&self) -> &'static str {
        RMS_NORM.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (x, dy) = (&self.x, &grads[0]);
        let dx = when(need[0], || {
            let dx = Tensor::transient(rec, "rms_norm dx", x.rows, x.cols);
            let shape = row_shape(x.cols);
            let spans = [dy.span(), x.span(), self.w.span(), &self.rstd, dx.span()];
            rec.dispatch(&RMS_NORM_BACKWARD, &shape, self.params, &spans, row_groups(x.rows, shape));
            Ok(dx)
        })?;
        let dw = when(need[1], || {
            let block = reduce::block_rows(x.rows);
            let partials = Tensor::transient(rec, "rms_norm dw", x.rows.div_ceil(block), x.cols);
            let params = reduce::Params { rows: x.rows as u32, cols: x.cols as u32, block: block as u32 };
            let spans = [dy.span(), x.span(), &self.rstd, partials.span()];
            rec.dispatch(&RMS_NORM_BACKWARD_DW, &[], params, &spans, groups_for(partials.len(), 64));
            Ok(reduce::sum_partials(rec, &partials))
        })?;
        Ok(vec![dx, dw])
    }
}

/// y = w · x / sqrt(mean(x²) + eps), row by row: x [rows, cols], w [1, cols] in f32 → [rows, cols].
/// Inputs: x, w.
pub fn rms_norm(rec: &mut Recording, x: &Tensor, w: &Tensor, eps: f32) -> Result<Applied> {
    assert_eq!((w.rows, w.cols, w.format), (1, x.cols, Format::F32), "the weight of a norm is one row of f32");
    let y = Tensor::transient(rec, "rms_norm", x.rows, x.cols);
    let rstd = rec.transient("rms_norm rstd", Kind::Real, x.rows);
    let params = Params { rows: x.rows as u32, cols: x.cols as u32, eps };
    let shape = row_shape(x.cols);
    rec.dispatch(&RMS_NORM, &shape, params, &[x.span(), w.span(), y.span(), &rstd], row_groups(x.rows, shape));
    Ok((vec![y], Box::new(RmsNorm { x: x.clone(), w: w.clone(), rstd, params })))
}

fn case(name: &str, rows: usize, cols: usize, spread: f32) -> Case {
    let eps = if spread < 1.0 { 1e-2 * spread * spread } else { 1e-5 };
    let inputs: Vec<Input> = vec![real(1, rows, cols, spread), real(2, 1, cols, 1.0)];
    Case::new(format!("norm/rms_norm: {name} {rows}x{cols}"), inputs, Tolerance::SUMS, move |rec, b| {
        rms_norm(rec, &b.tensors[0], &b.tensors[1], eps).map(|(outs, op)| (outs, Some(op)))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd", 5, 37, 1.0),
        case("one row", 1, 257, 1.0),
        // A row of one element would only test cancellation: its gradient is zero except for eps.
        case("smallest row", 1, 2, 1.0),
        case("many short rows", 3003, 32, 1.0),
        case("a workgroup a row", 3, 700, 1.0),
        case("wide rows", 3, 8192, 1.0),
        case("wide rows, ragged", 2, 2300, 1.0),
        case("whole blocks of rows", 64, 37, 1.0),
        case("long blocks of rows", 9001, 8, 1.0),
        case("large values", 4, 130, 1e4),
        case("small values", 4, 130, 1e-3),
        case("bench", 1024, 2048, 1.0).bench(),
    ]
}
