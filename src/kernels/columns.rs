//! Splits a matrix into ranges of its columns, such as fused q, k and v, and puts matrices side by side.

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

/// The ranges of columns that matrices of these widths have side by side.
fn ranges(rows: usize, widths: &[usize]) -> impl Iterator<Item = Params> {
    let width = widths.iter().sum::<usize>() as u32;
    let range = move |(i, &cols): (usize, &usize)| Params {
        rows: rows as u32,
        cols: cols as u32,
        width,
        first: widths[..i].iter().sum::<usize>() as u32,
    };
    widths.iter().enumerate().map(range)
}

/// Copies of the ranges of x [rows, Σ widths].
fn take(rec: &mut Recording, x: &Tensor, widths: &[usize]) -> Vec<Tensor> {
    assert_eq!(x.cols, widths.iter().sum::<usize>(), "the parts are the whole");
    let mut parts = Vec::with_capacity(widths.len());
    for params in ranges(x.rows, widths) {
        let part = Tensor::transient(rec, "columns", x.rows, params.cols as usize);
        rec.dispatch(&TAKE, &[], params, &[x.span(), part.span()], groups_for(part.len(), GROUP));
        parts.push(part);
    }
    parts
}

/// Matrices with the same rows side by side.
fn put(rec: &mut Recording, parts: &[Tensor]) -> Tensor {
    let rows = parts[0].rows;
    assert!(parts.iter().all(|part| part.rows == rows), "the parts have the same rows");
    let widths: Vec<usize> = parts.iter().map(|part| part.cols).collect();
    let out = Tensor::transient(rec, "columns", rows, widths.iter().sum());
    for (params, part) in ranges(rows, &widths).zip(parts) {
        rec.dispatch(&PUT, &[], params, &[part.span(), out.span()], groups_for(part.len(), GROUP));
    }
    out
}

struct Split;

impl Op for Split {
    fn label(&self) -> &'static str {
        TAKE.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![need[0].then(|| put(rec, grads))])
    }
}

/// Splits x [rows, Σ widths] into [rows, width] for each width, from the left.
pub fn split(rec: &mut Recording, x: &Tensor, widths: &[usize]) -> Result<Applied> {
    Ok((take(rec, x, widths), Box::new(Split)))
}

struct Concat {
    widths: Vec<usize>,
}

impl Op for Concat {
    fn label(&self) -> &'static str {
        PUT.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if !need.contains(&true) {
            return Ok(vec![None; self.widths.len()]);
        }
        let parts = take(rec, &grads[0], &self.widths);
        Ok(parts.into_iter().zip(need).map(|(part, need)| need.then_some(part)).collect())
    }
}

/// Puts matrices [rows, width] side by side: [rows, Σ widths]. The inputs are the parts.
pub fn concat(rec: &mut Recording, parts: &[Tensor]) -> Result<Applied> {
    let widths = parts.iter().map(|part| part.cols).collect();
    Ok((vec![put(rec, parts)], Box::new(Concat { widths })))
}

fn split_case(name: &str, rows: usize, widths: &'static [usize]) -> Case {
    let inputs = vec![real(1, rows, widths.iter().sum(), 1.0)];
    Case::new(format!("columns/split: {name} {rows}x{widths:?}"), inputs, Tolerance::EXACT, move |rec, b| {
        split(rec, &b.tensors[0], widths).map(|(outs, op)| (outs, Some(op)))
    })
}

fn concat_case(name: &str, rows: usize, widths: &'static [usize]) -> Case {
    let inputs = widths.iter().enumerate().map(|(i, &cols)| real(1 + i as u64, rows, cols, 1.0)).collect();
    Case::new(format!("columns/concat: {name} {rows}x{widths:?}"), inputs, Tolerance::EXACT, |rec, b| {
        concat(rec, &b.tensors).map(|(outs, op)| (outs, Some(op)))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        split_case("odd", 5, &[7, 3, 11]),
        split_case("one element", 1, &[1]),
        split_case("whole workgroups", 4, &[64, 32, 32]),
        split_case("beyond 16 bits", 70, &[1000, 500]),
        split_case("bench", 1024, &[1024, 1024]).bench(),
        concat_case("odd", 5, &[7, 7]),
        concat_case("parts of different widths", 5, &[7, 3, 11]),
        concat_case("one element", 1, &[1, 1]),
        concat_case("whole workgroups", 4, &[64, 64]),
        concat_case("beyond 16 bits", 70, &[1000, 1000]),
        concat_case("bench", 1024, &[1024, 1024]).bench(),
    ]
}
