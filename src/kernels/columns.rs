//! Splits a matrix into ranges of its columns, such as the product of fused q, k and v weights.

use super::case::{Case, Tolerance, real};
use super::op::{Applied, Op};
use super::rows::for_rows;
use crate::error::Result;
use crate::gpu::{Binding, DispatchView, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Work, groups_for};
use crate::tensor::Tensor;
use crate::{params, wgsl};

/// Workgroup size of the shaders.
const GROUP: usize = 64;

params! {
    /// A range of columns.
    pub struct Params {
        /// Rows.
        rows: u32,
        /// Columns of the range.
        cols: u32,
        /// Columns of the whole matrix.
        width: u32,
        /// First column of the range.
        first: u32,
    }
}

/// A copy of the range.
fn range_work(d: &mut DispatchView<'_>) -> Result<Work> {
    Ok(Work { flops: 0, bytes: 8 * d.param("rows") * d.param("cols") })
}

static TAKE: KernelDef = KernelDef {
    label: "columns/take",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("columns/take")],
    bindings: &[
        Binding::read("x", Kind::Real, "[rows, width]"),
        Binding::write("out", Kind::Real, "[rows, cols]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: range_work,
    reference_f32: take_reference,
    reference_f64: take_reference,
};

static PUT: KernelDef = KernelDef {
    label: "columns/put",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("columns/put")],
    bindings: &[
        Binding::read("x", Kind::Real, "[rows, cols]"),
        Binding::read_write("out", Kind::Real, "[rows, width]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: range_work,
    reference_f32: put_reference,
    reference_f64: put_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&TAKE, vec![]), (&PUT, vec![])]
}

fn take_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, out] = args.buffers();
    let (rows, cols, width, first) = (p.rows as usize, p.cols as usize, p.width as usize, p.first as usize);
    let x = x.real();
    for_rows(rows * cols, &mut out.real_mut()[..rows * cols], cols, |r, out| {
        out.copy_from_slice(&x[r * width + first..][..cols]);
    });
}

fn put_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, out] = args.buffers();
    let (rows, cols, width, first) = (p.rows as usize, p.cols as usize, p.width as usize, p.first as usize);
    let x = x.real();
    for_rows(rows * cols, &mut out.real_mut()[..rows * width], width, |r, out| {
        out[first..first + cols].copy_from_slice(&x[r * cols..][..cols]);
    });
}

struct Split {
    widths: Vec<usize>,
}

impl Split {
    /// The parameters of each range of a matrix with these rows.
    fn ranges(&self, rows: usize) -> impl Iterator<Item = Params> {
        let width = self.widths.iter().sum::<usize>() as u32;
        let first_of = |i: usize| self.widths[..i].iter().sum::<usize>() as u32;
        let range = move |(i, &cols): (usize, &usize)| Params {
            rows: rows as u32,
            cols: cols as u32,
            width,
            first: first_of(i),
        };
        self.widths.iter().enumerate().map(range)
    }
}

impl Op for Split {
    fn label(&self) -> &'static str {
        TAKE.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if !need[0] {
            return Ok(vec![None]);
        }
        let rows = grads[0].rows;
        let dx = Tensor::transient(rec, "columns dx", rows, self.widths.iter().sum());
        for (params, grad) in self.ranges(rows).zip(grads) {
            rec.dispatch(&PUT, &[], params, &[grad.span(), dx.span()], groups_for(grad.len(), GROUP));
        }
        Ok(vec![Some(dx)])
    }
}

/// Splits x [rows, Σ widths] into [rows, width] for each width, from the left.
pub fn split(rec: &mut Recording, x: &Tensor, widths: &[usize]) -> Result<Applied> {
    assert_eq!(x.cols, widths.iter().sum::<usize>(), "the parts are the whole");
    let op = Split { widths: widths.to_vec() };
    let mut parts = Vec::with_capacity(widths.len());
    for params in op.ranges(x.rows) {
        let part = Tensor::transient(rec, "columns", x.rows, params.cols as usize);
        rec.dispatch(&TAKE, &[], params, &[x.span(), part.span()], groups_for(part.len(), GROUP));
        parts.push(part);
    }
    Ok((parts, Box::new(op)))
}

fn case(name: &str, rows: usize, widths: &'static [usize]) -> Case {
    let inputs = vec![real(1, rows, widths.iter().sum(), 1.0)];
    Case::new(format!("columns/split: {name} {rows}x{widths:?}"), inputs, Tolerance::EXACT, move |rec, b| {
        split(rec, &b.tensors[0], widths).map(|(outs, op)| (outs, Some(op)))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd", 5, &[7, 3, 11]),
        case("one element", 1, &[1]),
        case("whole workgroups", 4, &[64, 32, 32]),
        case("beyond 16 bits", 70, &[1000, 500]),
        case("bench", 1024, &[1024, 1024]).bench(),
    ]
}
