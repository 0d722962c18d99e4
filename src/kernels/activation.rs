//! Gated activations of the feed-forward layer: f(gate) · up for the functions f that models use.
//!
//! An activation is a WGSL part with f and its derivative, and the same formulas here as a
//! `Function`. All activations share the kernels `activation/gated.wgsl` and
//! `activation/gated_backward.wgsl`.

use super::case::{Case, Input, Tolerance, random, real};
use super::op::{Applied, Op};
use super::rows::{for_row_pairs, for_rows};
use crate::simd::vectorised;
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Source, groups_for};
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

/// Workgroup size of the shaders.
const GROUP: usize = 64;
/// Elements that the references process at a time.
const BLOCK: usize = 1024;

/// The gated activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// silu(gate) · up with silu(x) = x / (1 + e^-x): Llama, Qwen, Mistral. Shazeer, arXiv
    /// 2002.05202.
    #[default]
    SwiGlu,
    /// gelu_tanh(gate) · up with gelu_tanh(x) = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), PyTorch's
    /// `gelu(approximate="tanh")`: Gemma. Hendrycks and Gimpel, arXiv 1606.08415.
    GeGluTanh,
}

impl Activation {
    /// All gated activations.
    pub const ALL: [Self; 2] = [Self::SwiGlu, Self::GeGluTanh];

    /// The forward and backward kernels.
    fn kernels(self) -> &'static [KernelDef; 2] {
        static SWIGLU: [KernelDef; 2] = kernels_of::<Silu>();
        static GEGLU_TANH: [KernelDef; 2] = kernels_of::<GeluTanh>();
        match self {
            Self::SwiGlu => &SWIGLU,
            Self::GeGluTanh => &GEGLU_TANH,
        }
    }
}

/// The function f of a gated activation, in Rust and in WGSL.
trait Function: 'static {
    /// Name of the gated activation; the suffix of its kernels.
    const NAME: &'static str;
    /// The WGSL part: `activation(g)` is f, `activation_and_slope(g)` is f and f'.
    const PART: Source;
    /// Operations per element of f(gate) · up, and of both gradients.
    const FLOPS: [u64; 2];
    /// f(g).
    fn value<T: Real>(g: T) -> T;
    /// f(g) and f'(g).
    fn value_and_slope<T: Real>(g: T) -> [T; 2];
}

/// x / (1 + e^-x).
struct Silu;

impl Silu {
    /// 1 / (1 + e^-g), with the exponent clamped where silu no longer changes and exp is finite in
    /// f32.
    #[inline(always)]
    fn sigmoid<T: Real>(g: T) -> T {
        let limit = T::of(80.0);
        T::ONE / (T::ONE + (-g.max(-limit).min(limit)).exp())
    }
}

impl Function for Silu {
    const NAME: &'static str = "swiglu";
    const PART: Source = wgsl!("activation/silu");
    const FLOPS: [u64; 2] = [5, 11];

    #[inline(always)]
    fn value<T: Real>(g: T) -> T {
        g * Self::sigmoid(g)
    }

    #[inline(always)]
    fn value_and_slope<T: Real>(g: T) -> [T; 2] {
        let s = Self::sigmoid(g);
        [g * s, s * (T::ONE + g * (T::ONE - s))]
    }
}

/// x/2 (1 + tanh(v)) = x / (1 + e^-2v) with v = √(2/π) (x + 0.044715 x³).
struct GeluTanh;

impl GeluTanh {
    /// 2v = x (A + B x²) with A = 2 √(2/π).
    const A: f64 = 1.595_769_121_605_730_8;
    /// 0.044715 A.
    const B: f64 = 0.044_715 * Self::A;
    /// Beyond ± this value, gelu_tanh no longer changes in f32 relative to its largest value there;
    /// within it, x³ and exp are finite.
    const LIMIT: f32 = 9.5;

    /// The clamped g, and e^-2v of it.
    #[inline(always)]
    fn clamped<T: Real>(g: T) -> [T; 2] {
        let limit = T::of(Self::LIMIT);
        let c = g.max(-limit).min(limit);
        [c, (-c * (T::from_f64(Self::A) + T::from_f64(Self::B) * (c * c))).exp()]
    }
}

impl Function for GeluTanh {
    const NAME: &'static str = "geglu_tanh";
    const PART: Source = wgsl!("activation/gelu_tanh");
    const FLOPS: [u64; 2] = [8, 18];

    #[inline(always)]
    fn value<T: Real>(g: T) -> T {
        let [_, e] = Self::clamped(g);
        g.max(-T::of(Self::LIMIT)) / (T::ONE + e)
    }

    #[inline(always)]
    fn value_and_slope<T: Real>(g: T) -> [T; 2] {
        let [c, e] = Self::clamped(g);
        let s = T::ONE / (T::ONE + e);
        let slope_of_2v = T::from_f64(Self::A) + T::from_f64(3.0 * Self::B) * (c * c);
        [g.max(-T::of(Self::LIMIT)) * s, s * (T::ONE + c * (e * s) * slope_of_2v)] // e s is 1 - s, without cancellation
    }
}

params! {
    /// The number of elements.
    pub struct Params {
        /// Elements of the output.
        n: u32,
    }
}

const FORWARD_BINDINGS: &[Binding] = &[
    Binding::read("gate", Kind::Real, "[n]"),
    Binding::read("up", Kind::Real, "[n]"),
    Binding::write("out", Kind::Real, "[n]"),
];

const BACKWARD_BINDINGS: &[Binding] = &[
    Binding::read("dy", Kind::Real, "[n]"),
    Binding::read("gate", Kind::Real, "[n]"),
    Binding::read("up", Kind::Real, "[n]"),
    Binding::write("dgate", Kind::Real, "[n]"),
    Binding::write("dup", Kind::Real, "[n]"),
];

/// The forward and backward kernels with this f.
const fn kernels_of<F: Function>() -> [KernelDef; 2] {
    let forward = KernelDef {
        label: "activation/gated",
        suffix: F::NAME,
        parts: const { &[wgsl!("common/grid"), F::PART, wgsl!("activation/gated")] },
        bindings: FORWARD_BINDINGS,
        params: Params::FIELDS,
        constants: &[],
        alternatives: &[],
        work: |d| Ok(d.work(F::FLOPS[0] * d.param("n"))),
        reference_f32: gated_reference::<f32, F>,
        reference_f64: gated_reference::<f64, F>,
    };
    let backward = KernelDef {
        label: "activation/gated_backward",
        suffix: F::NAME,
        parts: const { &[wgsl!("common/grid"), F::PART, wgsl!("activation/gated_backward")] },
        bindings: BACKWARD_BINDINGS,
        params: Params::FIELDS,
        constants: &[],
        alternatives: &[],
        work: |d| Ok(d.work(F::FLOPS[1] * d.param("n"))),
        reference_f32: gated_backward_reference::<f32, F>,
        reference_f64: gated_backward_reference::<f64, F>,
    };
    [forward, backward]
}

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    Activation::ALL.into_iter().flat_map(Activation::kernels).map(|k| (k, vec![])).collect()
}

fn gated_reference<T: Real, F: Function>(args: KernelArgs<'_, T>) {
    let n = args.params::<Params>().n as usize;
    let [gate, up, out] = args.buffers();
    let (gate, up, out) = (gate.real(), up.real(), out.real_mut());
    for_rows(n, &mut out[..n], BLOCK, |b, out| gated_block::<T, BLOCK, F>(b, gate, up, out));
}

vectorised! {
    fn gated_block<T: Real, const BLOCK: usize, F: Function>(b: usize, gate: &[T], up: &[T], out: &mut [T]) {
        let (gate, up) = (&gate[b * BLOCK..][..out.len()], &up[b * BLOCK..][..out.len()]);
        for i in 0..out.len() {
            out[i] = F::value(gate[i]) * up[i];
        }
    }
}

fn gated_backward_reference<T: Real, F: Function>(args: KernelArgs<'_, T>) {
    let n = args.params::<Params>().n as usize;
    let [dy, gate, up, dgate, dup] = args.buffers();
    let (dy, gate, up) = (dy.real(), gate.real(), up.real());
    let (dgate, dup) = (&mut dgate.real_mut()[..n], &mut dup.real_mut()[..n]);
    for_row_pairs((dgate, BLOCK), (dup, BLOCK), |b, dgate, dup| {
        gated_backward_block::<T, BLOCK, F>(b, dy, gate, up, dgate, dup);
    });
}

vectorised! {
    fn gated_backward_block<T: Real, const BLOCK: usize, F: Function>(
        b: usize, dy: &[T], gate: &[T], up: &[T], dgate: &mut [T], dup: &mut [T],
    ) {
        let n = dgate.len();
        let (dy, gate, up, dup) = (&dy[b * BLOCK..][..n], &gate[b * BLOCK..][..n], &up[b * BLOCK..][..n], &mut dup[..n]);
        for i in 0..n {
            let [value, slope] = F::value_and_slope(gate[i]);
            dgate[i] = dy[i] * up[i] * slope;
            dup[i] = dy[i] * value;
        }
    }
}

struct Gated {
    activation: Activation,
    gate: Tensor,
    up: Tensor,
}

impl Op for Gated {
    fn label(&self) -> &'static str {
        self.activation.kernels()[0].label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if !need.contains(&true) {
            return Ok(vec![None, None]);
        }
        let (gate, up) = (&self.gate, &self.up);
        let dgate = Tensor::transient(rec, "gated dgate", gate.rows, gate.cols);
        let dup = Tensor::transient(rec, "gated dup", gate.rows, gate.cols);
        let spans = [grads[0].span(), gate.span(), up.span(), dgate.span(), dup.span()];
        let [_, backward] = self.activation.kernels();
        let params = Params { n: gate.len() as u32 };
        rec.dispatch(backward, &[], params, &spans, groups_for(gate.len(), GROUP));
        Ok(vec![need[0].then_some(dgate), need[1].then_some(dup)])
    }
}

/// f(gate) · up for two tensors of one shape, with the activation's f. Inputs: gate, up.
pub fn gated(rec: &mut Recording, activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Applied> {
    assert_eq!((gate.rows, gate.cols), (up.rows, up.cols), "shapes of gate and up");
    let out = Tensor::transient(rec, "gated", gate.rows, gate.cols);
    let [forward, _] = activation.kernels();
    let params = Params { n: gate.len() as u32 };
    rec.dispatch(forward, &[], params, &[gate.span(), up.span(), out.span()], groups_for(gate.len(), GROUP));
    Ok((vec![out], Box::new(Gated { activation, gate: gate.clone(), up: up.clone() })))
}

/// [`gated`] with [`Activation::SwiGlu`].
pub fn swiglu(rec: &mut Recording, gate: &Tensor, up: &Tensor) -> Result<Applied> {
    gated(rec, Activation::SwiGlu, gate, up)
}

fn case_of(activation: Activation, name: &str, inputs: Vec<Input>, tolerance: Tolerance) -> Case {
    let name = format!("activation/{}: {name}", activation.kernels()[0].suffix);
    Case::new(name, inputs, tolerance, move |rec, b| {
        gated(rec, activation, &b.tensors[0], &b.tensors[1]).map(|(outs, op)| (outs, Some(op)))
    })
}

fn case(activation: Activation, name: &str, rows: usize, cols: usize, spread: f32) -> Case {
    let inputs = vec![real(1, rows, cols, spread), real(2, rows, cols, 1.0)];
    case_of(activation, name, inputs, Tolerance::SUMS)
}

/// Random gates between `low` and `high`.
fn gates_between(low: f32, high: f32) -> Input {
    let half = (high - low) / 2.0;
    let values = random(1, 192, 1.0).iter().map(|x| low + half + x.clamp(-1.0, 1.0) * half).collect();
    Input::Real { rows: 3, cols: 64, format: Format::F32, values, differentiable: true }
}

/// A case with gates in a range where results are small, judged without an allowance for
/// cancellation.
fn one_sided(activation: Activation, name: &str, gate: Input) -> Case {
    let tolerance = Tolerance { absolute: 0.0, ..Tolerance::SUMS };
    case_of(activation, name, vec![gate, real(2, 3, 64, 1.0)], tolerance)
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let of_each = |activation| {
        [
            case(activation, "odd", 3, 37, 2.0),
            case(activation, "one", 1, 1, 1.0),
            case(activation, "beyond 16 bits", 47, 1501, 2.0),
            case(activation, "whole workgroups", 6, 64, 2.0),
            case(activation, "large values", 5, 64, 300.0),
            case(activation, "bench", 512, 4096, 1.0).bench(),
        ]
    };
    let one_sided = [
        one_sided(Activation::SwiGlu, "very negative gates", gates_between(-60.0, -50.0)),
        one_sided(Activation::SwiGlu, "positive gates", gates_between(5.0, 15.0)),
        one_sided(Activation::GeGluTanh, "very negative gates", gates_between(-7.0, -4.0)),
        one_sided(Activation::GeGluTanh, "positive gates", gates_between(3.0, 13.0)),
        // Below the clamp, the computed slope is that of the unclamped function, so a difference
        // quotient does not match it.
        one_sided(Activation::GeGluTanh, "gates below the clamp", gates_between(-60.0, -50.0).frozen()),
        case(Activation::GeGluTanh, "gates whose squares overflow", 2, 64, 1e25),
    ];
    Activation::ALL.into_iter().flat_map(of_each).chain(one_sided).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PyTorch's formula and its derivative.
    fn gelu_tanh(x: f64) -> [f64; 2] {
        let root = (2.0 / std::f64::consts::PI).sqrt();
        let t = (root * (x + 0.044715 * x.powi(3))).tanh();
        let slope_of_v = root * (1.0 + 3.0 * 0.044715 * x * x);
        [0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope_of_v]
    }

    #[test]
    fn gelu_tanh_is_pytorchs() {
        for i in -3000..=3000 {
            let x = f64::from(i) / 100.0;
            let [value, slope] = gelu_tanh(x);
            let [same, its_slope] = GeluTanh::value_and_slope(x);
            for (got, want) in [(GeluTanh::value(x), value), (same, value), (its_slope, slope)] {
                assert!((got - want).abs() <= 4e-15 * x.abs().max(1.0), "x = {x}: {got:e}, not {want:e}");
            }
        }
    }

    /// Where PyTorch's formula cancels, the expected values come from x e^2v / (1 + e^2v) in
    /// 40-digit arithmetic.
    #[test]
    fn small_results_keep_their_digits() {
        for (x, value) in [(-1.0, -0.1588080093917233), (-2.5, -0.015084266089998582), (-4.0, -7.024594819237268e-05), (-5.5, -5.9276402638802624e-09), (-7.0, -2.315442262072549e-15), (-8.0, -3.1077829375011112e-21), (-9.25, -1.069637326414865e-30)] {
            let double: f64 = GeluTanh::value(x);
            assert!((double / value - 1.0).abs() < 1e-13, "x = {x}");
            let single = f64::from(GeluTanh::value(x as f32));
            assert!((single / value - 1.0).abs() < 3e-5, "x = {x} in f32: {single:e}, not {value:e}");
        }
    }

    #[test]
    fn no_gate_gives_an_infinity() {
        for g in [f32::MAX, 1e30, 1e15, 100.0, 9.5] {
            assert_eq!((GeluTanh::value_and_slope(g), GeluTanh::value(g)), ([g, 1.0], g));
            let ([same, slope], value) = (GeluTanh::value_and_slope(-g), GeluTanh::value(-g));
            assert!([value, same, slope].iter().all(|x| x.abs() < 1e-30), "-{g:e}: {value:e} {same:e} {slope:e}");
        }
    }
}
