//! SwiGLU, the gate of the feed-forward layer.

use super::case::{Case, Input, Tolerance, random, real};
use super::op::{Applied, Op};
use super::rows::{for_row_pairs, for_rows};
use super::simd::vectorised;
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, groups_for};
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

/// Invocations of a workgroup in the shaders.
const GROUP: usize = 64;
/// Gates beyond ± this are clamped in the exponent, where silu no longer changes and exp stays finite in f32.
const LARGEST_EXPONENT: f32 = 80.0;
/// Elements that the references handle at a time.
const BLOCK: usize = 1024;

params! {
    /// Number of elements.
    pub struct Params {
        /// Elements of the output.
        n: u32,
    }
}

static SWIGLU: KernelDef = KernelDef {
    label: "activation/swiglu",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("activation/swiglu")],
    bindings: &[
        Binding::read("gate", Kind::Real, "[n]"),
        Binding::read("up", Kind::Real, "[n]"),
        Binding::write("out", Kind::Real, "[n]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(5 * d.param("n"))),
    reference_f32: swiglu_reference,
    reference_f64: swiglu_reference,
};

static SWIGLU_BACKWARD: KernelDef = KernelDef {
    label: "activation/swiglu_backward",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("activation/swiglu_backward")],
    bindings: &[
        Binding::read("dy", Kind::Real, "[n]"),
        Binding::read("gate", Kind::Real, "[n]"),
        Binding::read("up", Kind::Real, "[n]"),
        Binding::write("dgate", Kind::Real, "[n]"),
        Binding::write("dup", Kind::Real, "[n]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(11 * d.param("n"))),
    reference_f32: swiglu_backward_reference,
    reference_f64: swiglu_backward_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&SWIGLU, vec![]), (&SWIGLU_BACKWARD, vec![])]
}

/// 1 / (1 + e^-g).
#[inline(always)]
fn sigmoid<T: Real>(g: T) -> T {
    let limit = T::of(LARGEST_EXPONENT);
    T::ONE / (T::ONE + (-g.max(-limit).min(limit)).exp())
}

fn swiglu_reference<T: Real>(args: KernelArgs<'_, T>) {
    let n = args.params::<Params>().n as usize;
    let [gate, up, out] = args.buffers();
    let (gate, up, out) = (gate.real(), up.real(), out.real_mut());
    for_rows(n, &mut out[..n], BLOCK, |b, out| swiglu_block(&gate[b * BLOCK..], &up[b * BLOCK..], out));
}

vectorised! {
    fn swiglu_block<T: Real>(gate: &[T], up: &[T], out: &mut [T]) {
        let (gate, up) = (&gate[..out.len()], &up[..out.len()]);
        for i in 0..out.len() {
            out[i] = gate[i] * sigmoid(gate[i]) * up[i];
        }
    }
}

fn swiglu_backward_reference<T: Real>(args: KernelArgs<'_, T>) {
    let n = args.params::<Params>().n as usize;
    let [dy, gate, up, dgate, dup] = args.buffers();
    let (dy, gate, up) = (dy.real(), gate.real(), up.real());
    let (dgate, dup) = (&mut dgate.real_mut()[..n], &mut dup.real_mut()[..n]);
    for_row_pairs((dgate, BLOCK), (dup, BLOCK), |b, dgate, dup| {
        let from = b * BLOCK;
        swiglu_backward_block(&dy[from..], &gate[from..], &up[from..], dgate, dup);
    });
}

vectorised! {
    fn swiglu_backward_block<T: Real>(dy: &[T], gate: &[T], up: &[T], dgate: &mut [T], dup: &mut [T]) {
        let n = dgate.len();
        let (dy, gate, up, dup) = (&dy[..n], &gate[..n], &up[..n], &mut dup[..n]);
        for i in 0..n {
            let (g, s) = (gate[i], sigmoid(gate[i]));
            dgate[i] = dy[i] * up[i] * (s * (T::ONE + g * (T::ONE - s)));
            dup[i] = dy[i] * (g * s);
        }
    }
}

struct SwiGlu {
    gate: Tensor,
    up: Tensor,
}

impl Op for SwiGlu {
    fn label(&self) -> &'static str {
        SWIGLU.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if !need.contains(&true) {
            return Ok(vec![None, None]);
        }
        let (gate, up) = (&self.gate, &self.up);
        let dgate = Tensor::transient(rec, "swiglu dgate", gate.rows, gate.cols);
        let dup = Tensor::transient(rec, "swiglu dup", gate.rows, gate.cols);
        let spans = [grads[0].span(), gate.span(), up.span(), dgate.span(), dup.span()];
        let params = Params { n: gate.len() as u32 };
        rec.dispatch(&SWIGLU_BACKWARD, &[], params, &spans, groups_for(gate.len(), GROUP));
        Ok(vec![need[0].then_some(dgate), need[1].then_some(dup)])
    }
}

/// silu(gate) · up, two activations of one shape. Inputs: gate, up.
pub fn swiglu(rec: &mut Recording, gate: &Tensor, up: &Tensor) -> Result<Applied> {
    assert_eq!((gate.rows, gate.cols), (up.rows, up.cols), "shapes of gate and up");
    let out = Tensor::transient(rec, "swiglu", gate.rows, gate.cols);
    let params = Params { n: gate.len() as u32 };
    rec.dispatch(&SWIGLU, &[], params, &[gate.span(), up.span(), out.span()], groups_for(gate.len(), GROUP));
    Ok((vec![out], Box::new(SwiGlu { gate: gate.clone(), up: up.clone() })))
}

fn case(name: &str, rows: usize, cols: usize, spread: f32) -> Case {
    let inputs = vec![real(1, rows, cols, spread), real(2, rows, cols, 1.0)];
    Case::new(format!("activation/swiglu: {name}"), inputs, Tolerance::SUMS, |rec, b| {
        swiglu(rec, &b.tensors[0], &b.tensors[1]).map(|(outs, op)| (outs, Some(op)))
    })
}

/// Gates between `low` and `low + 10` that are judged beside their own small results: nothing is allowed for cancellation.
fn one_sided(name: &str, low: f32) -> Case {
    let values = random(1, 192, 1.0).iter().map(|x| low + 5.0 + x.clamp(-1.0, 1.0) * 5.0).collect();
    let gate = Input::Real { rows: 3, cols: 64, format: Format::F32, values, differentiable: true };
    let tolerance = Tolerance { absolute: 0.0, ..Tolerance::SUMS };
    Case::new(format!("activation/swiglu: {name}"), vec![gate, real(2, 3, 64, 1.0)], tolerance, |rec, b| {
        swiglu(rec, &b.tensors[0], &b.tensors[1]).map(|(outs, op)| (outs, Some(op)))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd", 3, 37, 2.0),
        case("one", 1, 1, 1.0),
        case("beyond 16 bits", 47, 1501, 2.0),
        case("whole workgroups", 6, 64, 2.0),
        case("large values", 5, 64, 300.0),
        one_sided("very negative gates", -60.0),
        one_sided("positive gates", 5.0),
        case("bench", 512, 4096, 1.0).bench(),
    ]
}
