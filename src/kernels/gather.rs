//! Gathers rows of an activation, such as the tokens that need logits; each row at most once.

use super::case::{Case, Input, Tolerance, real};
use super::op::{Applied, Op, when};
use super::rows::for_rows;
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, Work, groups_for};
use crate::tensor::Tensor;
use crate::{params, wgsl};

/// Workgroup size of the shaders.
const GROUP: usize = 64;
/// Marks a row in the inverse table that is not gathered.
pub const NOT_CHOSEN: u32 = u32::MAX;

params! {
    /// The shape of the output.
    pub struct Params {
        /// Rows of the output.
        n_rows: u32,
        /// Columns.
        cols: u32,
    }
}

static GATHER_ROWS: KernelDef = KernelDef {
    label: "gather/gather_rows",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("gather/gather_rows")],
    bindings: &[
        Binding::read("x", Kind::Real, "[tokens, cols]"),
        Binding::read("rows", Kind::U32, "[n_rows]"),
        Binding::write("out", Kind::Real, "[n_rows, cols]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(Work { flops: 0, bytes: 4 * d.param("n_rows") * (1 + 2 * d.param("cols")) }),
    reference_f32: gather_rows_reference,
    reference_f64: gather_rows_reference,
};

static GATHER_ROWS_BACKWARD: KernelDef = KernelDef {
    label: "gather/gather_rows_backward",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("gather/gather_rows_backward")],
    bindings: &[
        Binding::read("dy", Kind::Real, "[chosen, cols]"),
        Binding::read("inverse", Kind::U32, "[n_rows]"),
        Binding::write("dx", Kind::Real, "[n_rows, cols]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(0)),
    reference_f32: gather_rows_backward_reference,
    reference_f64: gather_rows_backward_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&GATHER_ROWS, vec![]), (&GATHER_ROWS_BACKWARD, vec![])]
}

fn gather_rows_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, rows, out] = args.buffers();
    let (x, rows, out) = (x.real(), rows.u32(), out.real_mut());
    let cols = p.cols as usize;
    let n = p.n_rows as usize * cols;
    for_rows(n, &mut out[..n], cols, |j, out| out.copy_from_slice(&x[rows[j] as usize * cols..][..cols]));
}

fn gather_rows_backward_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [dy, inverse, dx] = args.buffers();
    let (dy, inverse, dx) = (dy.real(), inverse.u32(), dx.real_mut());
    let cols = p.cols as usize;
    let n = p.n_rows as usize * cols;
    for_rows(n, &mut dx[..n], cols, |t, dx| match inverse[t] {
        NOT_CHOSEN => dx.fill(T::ZERO),
        j => dx.copy_from_slice(&dy[j as usize * cols..][..cols]),
    });
}

struct GatherRows {
    inverse: Span,
    tokens: usize,
}

impl Op for GatherRows {
    fn label(&self) -> &'static str {
        GATHER_ROWS.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let dy = &grads[0];
        let dx = when(need[0], || {
            let dx = Tensor::transient(rec, "gather_rows dx", self.tokens, dy.cols);
            let params = Params { n_rows: dx.rows as u32, cols: dx.cols as u32 };
            let spans = [dy.span(), &self.inverse, dx.span()];
            rec.dispatch(&GATHER_ROWS_BACKWARD, &[], params, &spans, groups_for(dx.len(), GROUP));
            Ok(dx)
        })?;
        Ok(vec![dx])
    }
}

/// `x[rows]`: x [tokens, cols], rows U32 `[n]` of distinct tokens → [n, cols]. `inverse` U32
/// `[tokens]` holds each token's position in `rows`, or [`NOT_CHOSEN`].
pub fn gather_rows(rec: &mut Recording, x: &Tensor, rows: &Span, inverse: &Span) -> Result<Applied> {
    assert!(inverse.len >= x.rows, "the inverse covers every row");
    let out = Tensor::transient(rec, "gather_rows", rows.len, x.cols);
    let params = Params { n_rows: out.rows as u32, cols: out.cols as u32 };
    rec.dispatch(&GATHER_ROWS, &[], params, &[x.span(), rows, out.span()], groups_for(out.len(), GROUP));
    Ok((vec![out], Box::new(GatherRows { inverse: inverse.clone(), tokens: x.rows })))
}

fn case(name: &str, tokens: usize, cols: usize, rows: &[u32]) -> Case {
    let mut inverse = vec![NOT_CHOSEN; tokens];
    rows.iter().enumerate().for_each(|(j, &r)| inverse[r as usize] = j as u32);
    let inputs = vec![real(1, tokens, cols, 1.0), Input::Words(rows.to_vec()), Input::Words(inverse)];
    Case::new(format!("gather/gather_rows: {name}"), inputs, Tolerance::EXACT, |rec, b| {
        gather_rows(rec, &b.tensors[0], &b.words[0], &b.words[1]).map(|(outs, op)| (outs, Some(op)))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let every_third: Vec<u32> = (0..2048).step_by(3).collect();
    vec![
        case("odd, out of order", 11, 37, &[7, 2, 10, 0]),
        case("one of one", 1, 1, &[0]),
        case("the last row", 600, 130, &[599]),
        case("rows beyond 16 bits", 66_000, 2, &[65_999, 3, 65_537]),
        case("more chosen than 16 bits number", 70_000, 1, &(0..66_001).rev().collect::<Vec<_>>()),
        case("whole workgroups", 8, 64, &[7, 2, 1, 0, 3, 5]),
        case("bench", 2048, 1024, &every_third).bench(),
    ]
}
