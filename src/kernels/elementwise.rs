//! Elementwise kernels: sums of two tensors, accumulation, scaling, bias.

use super::case::{Case, Tolerance, real};
use super::op::{Applied, Op};
use crate::error::Result;
use crate::gpu::{Binding, Call, KernelDef, Kind, Params as _, Real, Recording, groups_for};
use crate::tensor::Tensor;
use crate::{params, wgsl};

/// Invocations of a workgroup in the elementwise shaders.
const GROUP: usize = 64;

params! {
    /// Number of elements.
    pub struct Params {
        /// Elements of the output.
        n: u32,
    }
}

static ADD: KernelDef = KernelDef {
    label: "elementwise/add",
    variant: "",
    parts: &[wgsl!("common/grid"), wgsl!("elementwise/add")],
    bindings: &[
        Binding::read("a", Kind::Real, "[n]"),
        Binding::read("b", Kind::Real, "[n]"),
        Binding::write("out", Kind::Real, "[n]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    twin_f32: add_twin,
    twin_f64: add_twin,
};

static ADD_INTO: KernelDef = KernelDef {
    label: "elementwise/add_into",
    variant: "",
    parts: &[wgsl!("common/grid"), wgsl!("elementwise/add_into")],
    bindings: &[Binding::read("a", Kind::Real, "[n]"), Binding::read_write("out", Kind::Real, "[n]")],
    params: Params::FIELDS,
    constants: &[],
    twin_f32: add_into_twin,
    twin_f64: add_into_twin,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&ADD, vec![]), (&ADD_INTO, vec![])]
}

fn add_twin<T: Real>(call: Call<'_, T>) {
    let n = call.params::<Params>().n as usize;
    let [a, b, out] = call.args();
    let (a, b, out) = (a.real(), b.real(), out.real_mut());
    for i in 0..n {
        out[i] = a[i] + b[i];
    }
}

fn add_into_twin<T: Real>(call: Call<'_, T>) {
    let n = call.params::<Params>().n as usize;
    let [a, out] = call.args();
    let (a, out) = (a.real(), out.real_mut());
    for i in 0..n {
        out[i] += a[i];
    }
}

struct Add;

impl Op for Add {
    fn label(&self) -> &'static str {
        ADD.label
    }

    fn backward(&self, _: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(need.iter().map(|n| n.then(|| grads[0].clone())).collect())
    }
}

/// a + b, two activations of one shape.
pub fn add(rec: &mut Recording, a: &Tensor, b: &Tensor) -> Result<Applied> {
    assert_eq!((a.rows, a.cols), (b.rows, b.cols), "shapes of a sum");
    let out = Tensor::transient(rec, "add", a.rows, a.cols);
    let params = Params { n: a.len() as u32 };
    rec.dispatch(&ADD, &[], params, &[a.span(), b.span(), out.span()], groups_for(a.len(), GROUP));
    Ok((vec![out], Box::new(Add)))
}

/// Appends target += x, piece by piece: how the tape accumulates gradients.
pub fn add_into(rec: &mut Recording, x: &Tensor, target: &Tensor) {
    assert_eq!(
        (x.rows, x.cols, x.pieces().len()),
        (target.rows, target.cols, target.pieces().len()),
        "shapes of a sum"
    );
    for (a, b) in x.pieces().iter().zip(target.pieces()) {
        let n = a.rows * x.cols;
        rec.dispatch(&ADD_INTO, &[], Params { n: n as u32 }, &[&a.span, &b.span], groups_for(n, GROUP));
    }
}

fn add_case(name: &str, rows: usize, cols: usize, spread: f32) -> Case {
    let inputs = vec![real(1, rows, cols, spread), real(2, rows, cols, spread)];
    Case::new(format!("elementwise/add: {name}"), inputs, Tolerance::ROUNDING, |rec, b| {
        add(rec, &b.tensors[0], &b.tensors[1]).map(|(outs, op)| (outs, Some(op)))
    })
}

fn add_into_case() -> Case {
    let inputs = vec![real(1, 3, 37, 1.0), real(2, 3, 37, 1.0)];
    let inputs = inputs.into_iter().map(super::case::Input::frozen).collect();
    Case::new("elementwise/add_into: odd", inputs, Tolerance::ROUNDING, |rec, b| {
        let out = Tensor::transient(rec, "sum", 3, 37);
        super::case::copy_tensor(rec, &b.tensors[0], &out);
        add_into(rec, &b.tensors[1], &out);
        Ok((vec![out], None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        add_case("odd", 3, 37, 1.0),
        add_case("one", 1, 1, 1.0),
        add_case("large values", 5, 64, 1e6),
        add_into_case(),
        add_case("bench", 512, 2048, 1.0).bench(),
    ]
}
