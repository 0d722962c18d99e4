//! Adds a bias row to every row of an activation.

use super::case::{Case, Tolerance, real};
use super::op::{Applied, Op, when};
use super::reduce::column_sum;
use super::rows::for_rows;
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, groups_for};
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

params! {
    /// The shape.
    pub struct Params {
        /// Elements of the output.
        n: u32,
        /// Columns.
        cols: u32,
    }
}

static ADD_BIAS: KernelDef = KernelDef {
    label: "bias/add_bias",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("bias/add_bias")],
    bindings: &[
        Binding::read("x", Kind::Real, "[rows, cols]"),
        Binding::read("bias", Kind::Real, "[cols]"),
        Binding::write("out", Kind::Real, "[rows, cols]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.param("n"))),
    reference_f32: add_bias_reference,
    reference_f64: add_bias_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&ADD_BIAS, vec![])]
}

fn add_bias_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, bias, out] = args.buffers();
    let (x, bias, out) = (x.real(), bias.real(), out.real_mut());
    let (n, cols) = (p.n as usize, p.cols as usize);
    for_rows(n, &mut out[..n], cols, |r, out| {
        for ((out, &x), &b) in out.iter_mut().zip(&x[r * cols..]).zip(bias) {
            *out = x + b;
        }
    });
}

struct AddBias;

impl Op for AddBias {
    fn label(&self) -> &'static str {
        ADD_BIAS.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let dbias = when(need[1], || Ok(column_sum(rec, &grads[0])))?;
        Ok(vec![need[0].then(|| grads[0].clone()), dbias])
    }

    fn passes_on(&self) -> bool {
        true
    }
}

/// Adds bias to every row: x [rows, cols], bias [1, cols] in f32. Inputs: x, bias.
pub fn add_bias(rec: &mut Recording, x: &Tensor, bias: &Tensor) -> Result<Applied> {
    assert_eq!((bias.rows, bias.cols, bias.format), (1, x.cols, Format::F32), "a bias is one row of f32");
    let out = Tensor::transient(rec, "add_bias", x.rows, x.cols);
    let params = Params { n: x.len() as u32, cols: x.cols as u32 };
    rec.dispatch(&ADD_BIAS, &[], params, &[x.span(), bias.span(), out.span()], groups_for(x.len(), 64));
    Ok((vec![out], Box::new(AddBias)))
}

fn case(name: &str, rows: usize, cols: usize, spread: f32) -> Case {
    let inputs = vec![real(1, rows, cols, spread), real(2, 1, cols, spread)];
    Case::new(format!("bias/add_bias: {name} {rows}x{cols}"), inputs, Tolerance::SUMS, |rec, b| {
        add_bias(rec, &b.tensors[0], &b.tensors[1]).map(|(outs, op)| (outs, Some(op)))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd", 37, 19, 1.0),
        case("one row", 1, 65, 1.0),
        case("beyond 16 bits", 1101, 61, 1.0),
        case("whole workgroups", 6, 64, 1.0),
        case("large values", 5, 64, 1e6),
        case("bench", 2048, 1024, 1.0).bench(),
    ]
}
