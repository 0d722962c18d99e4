//! Concatenates two matrices by columns, such as keys and values without rotation, and splits them.

use super::case::{Case, Tolerance, real};
use super::op::{Applied, Op};
use super::rows::{for_row_pairs, for_rows};
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, groups_for};
use crate::tensor::Tensor;
use crate::{params, wgsl};

/// Workgroup size of the shaders.
const GROUP: usize = 64;

params! {
    /// The shape of each half.
    pub struct Params {
        /// Rows.
        rows: u32,
        /// Columns.
        cols: u32,
    }
}

static CONCAT_COLUMNS: KernelDef = KernelDef {
    label: "concat/concat_columns",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("concat/concat_columns")],
    bindings: &[
        Binding::read("a", Kind::Real, "[rows, cols]"),
        Binding::read("b", Kind::Real, "[rows, cols]"),
        Binding::write("out", Kind::Real, "[rows, 2 * cols]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(0)),
    reference_f32: concat_columns_reference,
    reference_f64: concat_columns_reference,
};

static SPLIT_COLUMNS: KernelDef = KernelDef {
    label: "concat/split_columns",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("concat/split_columns")],
    bindings: &[
        Binding::read("grad", Kind::Real, "[rows, 2 * cols]"),
        Binding::write("da", Kind::Real, "[rows, cols]"),
        Binding::write("db", Kind::Real, "[rows, cols]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(0)),
    reference_f32: split_columns_reference,
    reference_f64: split_columns_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&CONCAT_COLUMNS, vec![]), (&SPLIT_COLUMNS, vec![])]
}

fn concat_columns_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [a, b, out] = args.buffers();
    let (a, b, cols) = (a.real(), b.real(), p.cols as usize);
    let n = p.rows as usize * 2 * cols;
    for_rows(n, &mut out.real_mut()[..n], 2 * cols, |r, out| {
        let (left, right) = out.split_at_mut(cols);
        left.copy_from_slice(&a[r * cols..][..cols]);
        right.copy_from_slice(&b[r * cols..][..cols]);
    });
}

fn split_columns_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [grad, da, db] = args.buffers();
    let (grad, cols) = (grad.real(), p.cols as usize);
    let n = p.rows as usize * cols;
    let (da, db) = (&mut da.real_mut()[..n], &mut db.real_mut()[..n]);
    for_row_pairs((da, cols), (db, cols), |r, da, db| {
        let (left, right) = grad[2 * r * cols..][..2 * cols].split_at(cols);
        da.copy_from_slice(left);
        db.copy_from_slice(right);
    });
}

struct Concat;

impl Op for Concat {
    fn label(&self) -> &'static str {
        CONCAT_COLUMNS.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if !need.contains(&true) {
            return Ok(vec![None, None]);
        }
        let (rows, cols) = (grads[0].rows, grads[0].cols / 2);
        let da = Tensor::transient(rec, "left half", rows, cols);
        let db = Tensor::transient(rec, "right half", rows, cols);
        let params = Params { rows: rows as u32, cols: cols as u32 };
        let spans = [grads[0].span(), da.span(), db.span()];
        rec.dispatch(&SPLIT_COLUMNS, &[], params, &spans, groups_for(rows * cols, GROUP));
        Ok(vec![need[0].then_some(da), need[1].then_some(db)])
    }
}

/// Concatenates a and b [rows, cols] into [rows, 2 · cols]. Inputs: a, b.
pub fn concat_columns(rec: &mut Recording, a: &Tensor, b: &Tensor) -> Result<Applied> {
    assert_eq!((a.rows, a.cols), (b.rows, b.cols), "shapes of both halves");
    let out = Tensor::transient(rec, "concat", a.rows, 2 * a.cols);
    let params = Params { rows: a.rows as u32, cols: a.cols as u32 };
    rec.dispatch(&CONCAT_COLUMNS, &[], params, &[a.span(), b.span(), out.span()], groups_for(a.len(), GROUP));
    Ok((vec![out], Box::new(Concat)))
}

fn case(name: &str, rows: usize, cols: usize) -> Case {
    let inputs = vec![real(1, rows, cols, 1.0), real(2, rows, cols, 1.0)];
    let name = format!("concat/concat_columns: {name} {rows}x{cols}");
    Case::new(name, inputs, Tolerance::EXACT, move |rec, b| {
        concat_columns(rec, &b.tensors[0], &b.tensors[1]).map(|(outs, op)| (outs, Some(op)))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd", 5, 7),
        case("one element", 1, 1),
        case("whole workgroups", 4, 64),
        case("beyond 16 bits", 70, 1000),
        case("bench", 1024, 1024).bench(),
    ]
}
