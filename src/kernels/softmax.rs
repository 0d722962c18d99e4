//! Softmax over rows as a separate op. Attention and cross-entropy fuse their own and do not use
//! it.

use super::case::{Case, Input, Tolerance, random, real, spiked};
use super::op::{Applied, Op, when};
use super::parts::REDUCE;
use super::rows::{ROW_CONSTANTS, ROW_SHAPES, dot, for_rows, row_groups, row_max, row_shape, row_sum};
use crate::simd::vectorised;
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording};
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

/// The minimum exponent; lower ones are clamped to it. e^-80 is still a normal f32.
const LOWEST_EXPONENT: f32 = -80.0;

params! {
    /// The shape.
    pub struct Params {
        /// Rows.
        rows: u32,
        /// Columns.
        cols: u32,
    }
}

static SOFTMAX: KernelDef = KernelDef {
    label: "softmax/softmax",
    suffix: "",
    parts: &[REDUCE, wgsl!("common/row"), wgsl!("softmax/softmax")],
    bindings: &[Binding::read("x", Kind::Real, "[rows, cols]"), Binding::write("y", Kind::Real, "[rows, cols]")],
    params: Params::FIELDS,
    constants: ROW_CONSTANTS,
    alternatives: &[],
    work: |d| Ok(d.work(4 * d.len("x"))),
    reference_f32: softmax_reference,
    reference_f64: softmax_reference,
};

static SOFTMAX_BACKWARD: KernelDef = KernelDef {
    label: "softmax/softmax_backward",
    suffix: "",
    parts: &[REDUCE, wgsl!("common/row"), wgsl!("softmax/softmax_backward")],
    bindings: &[
        Binding::read("dy", Kind::Real, "[rows, cols]"),
        Binding::read("y", Kind::Real, "[rows, cols]"),
        Binding::write("dx", Kind::Real, "[rows, cols]"),
    ],
    params: Params::FIELDS,
    constants: ROW_CONSTANTS,
    alternatives: &[],
    work: |d| Ok(d.work(4 * d.len("y"))),
    reference_f32: softmax_backward_reference,
    reference_f64: softmax_backward_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [&SOFTMAX, &SOFTMAX_BACKWARD].into_iter().flat_map(|k| ROW_SHAPES.map(|s| (k, s.to_vec()))).collect()
}

fn softmax_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, y] = args.buffers();
    let (x, y) = (x.real(), y.real_mut());
    let (rows, cols) = (p.rows as usize, p.cols as usize);
    for_rows(rows * cols, &mut y[..rows * cols], cols, |r, y| {
        y.copy_from_slice(&x[r * cols..][..cols]);
        softmax_in_place(y);
    });
}

vectorised! {
    fn softmax_in_place<T: Real>(row: &mut [T]) {
        let largest = row_max(row);
        for i in 0..row.len() {
            row[i] = (row[i] - largest).max(T::of(LOWEST_EXPONENT)).exp();
        }
        let factor = T::ONE / row_sum(row);
        for i in 0..row.len() {
            row[i] *= factor;
        }
    }
}

fn softmax_backward_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [dy, y, dx] = args.buffers();
    let (dy, y, dx) = (dy.real(), y.real(), dx.real_mut());
    let (rows, cols) = (p.rows as usize, p.cols as usize);
    for_rows(rows * cols, &mut dx[..rows * cols], cols, |r, dx| {
        let (dy, y) = (&dy[r * cols..][..cols], &y[r * cols..][..cols]);
        let total = dot(dy, y);
        for ((dx, &dy), &y) in dx.iter_mut().zip(dy).zip(y) {
            *dx = y * (dy - total);
        }
    });
}

struct Softmax {
    y: Tensor,
}

impl Op for Softmax {
    fn label(&self) -> &'static str {
        SOFTMAX.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let y = &self.y;
        let dx = when(need[0], || {
            let dx = Tensor::transient(rec, "softmax dx", y.rows, y.cols);
            let (params, shape) = (Params { rows: y.rows as u32, cols: y.cols as u32 }, row_shape(y.cols));
            let spans = [grads[0].span(), y.span(), dx.span()];
            rec.dispatch(&SOFTMAX_BACKWARD, &shape, params, &spans, row_groups(y.rows, shape));
            Ok(dx)
        })?;
        Ok(vec![dx])
    }
}

/// exp(x) / Σ exp(x) of each row: x [rows, cols] → [rows, cols].
pub fn softmax(rec: &mut Recording, x: &Tensor) -> Result<Applied> {
    let y = Tensor::transient(rec, "softmax", x.rows, x.cols);
    let (params, shape) = (Params { rows: x.rows as u32, cols: x.cols as u32 }, row_shape(x.cols));
    rec.dispatch(&SOFTMAX, &shape, params, &[x.span(), y.span()], row_groups(x.rows, shape));
    Ok((vec![y.clone()], Box::new(Softmax { y })))
}

fn case(name: &str, rows: usize, cols: usize, spread: f32) -> Case {
    let inputs = vec![real(1, rows, cols, spread)];
    Case::new(format!("softmax/softmax: {name} {rows}x{cols}"), inputs, Tolerance::SUMS, |rec, b| {
        softmax(rec, &b.tensors[0]).map(|(outs, op)| (outs, Some(op)))
    })
}

/// The forward alone on given values.
fn extreme(name: &str, rows: usize, cols: usize, values: Vec<f32>) -> Case {
    let inputs = vec![Input::Real { rows, cols, format: Format::F32, values, differentiable: false }];
    Case::new(format!("softmax/softmax: {name} {rows}x{cols}"), inputs, Tolerance::SUMS, |rec, b| {
        softmax(rec, &b.tensors[0]).map(|(outs, _)| (outs, None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd", 5, 37, 1.0),
        case("one row", 1, 257, 1.0),
        case("one of all", 1, 1, 1.0),
        case("many short rows", 3003, 23, 1.0),
        case("wide rows", 3, 2051, 1.0),
        case("wider rows", 2, 5001, 1.0),
        case("large values", 4, 130, 40.0),
        extreme("spikes", 38, 37, spiked(1, 38, 37)),
        extreme("spikes", 31, 300, spiked(1, 31, 300)),
        extreme("spikes", 21, 600, spiked(1, 21, 600)),
        extreme("far below zero", 3, 40, random(1, 120, 1.0).iter().map(|x| -2.4e38 + x * 1.5e37).collect()),
        case("bench", 1024, 1024, 1.0).bench(),
    ]
}
