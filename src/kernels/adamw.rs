//! AdamW over whole arena slices. Step counts, learning rates and bias corrections are the host's: see `optim`.

use rayon::prelude::*;

use super::case::{Case, Input, Tolerance, random, real};
use super::grad_norm::norm_and_factor;
use crate::tensor::copy_tensor;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, groups_for};
use crate::tensor::{Arena, ArenaSlice, Format, Tensor};
use crate::{params, wgsl};

/// Invocations of a workgroup.
const GROUP: usize = 256;

/// Elements that the reference of `update` handles at a time.
const BLOCK: usize = 4096;

params! {
    /// One AdamW step over one slice; every constant is computed in f64 and rounded once, and the small ones are
    /// not passed as their difference from 1, which f32 would round to a fraction of their digits.
    pub struct UpdateParams {
        /// Elements of the slice.
        n: u32,
        /// lr · weight decay, or 0.
        decay: f32,
        /// 1 − β₁.
        one_minus_beta1: f32,
        /// 1 − β₂.
        one_minus_beta2: f32,
        /// lr / (1 − β₁ᵗ).
        step_size: f32,
        /// 1 / √(1 − β₂ᵗ).
        inv_sqrt_correction: f32,
        /// Added to the denominator.
        eps: f32,
    }
}

static UPDATE: KernelDef = KernelDef {
    label: "adamw/update",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("adamw/update")],
    bindings: &[
        Binding::read("state", Kind::Real, "[norm, factor]"),
        Binding::read("grads", Kind::Real, "[n]"),
        Binding::read_write("values", Kind::Real, "[n]"),
        Binding::read_write("first_moments", Kind::Real, "[n]"),
        Binding::read_write("second_moments", Kind::Real, "[n]"),
    ],
    params: UpdateParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(14 * d.param("n"))),
    reference_f32: update_reference,
    reference_f64: update_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&UPDATE, vec![])]
}

fn update_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: UpdateParams = args.params();
    let [state, grads, values, first, second] = args.buffers();
    let (factor, grads, values) = (state.real()[1], grads.real(), values.real_mut());
    let (first, second) = (first.real_mut(), second.real_mut());
    let n = p.n as usize;
    let moments = first[..n].par_chunks_mut(BLOCK).zip(second[..n].par_chunks_mut(BLOCK));
    let blocks = values[..n].par_chunks_mut(BLOCK).zip(grads[..n].par_chunks(BLOCK)).zip(moments);
    blocks.for_each(|((values, grads), (first, second))| {
        for (((x, &g), m), v) in values.iter_mut().zip(grads).zip(first).zip(second) {
            let g = factor * g;
            *m += T::of(p.one_minus_beta1) * (g - *m);
            *v += T::of(p.one_minus_beta2) * (g * g - *v);
            let denominator = v.sqrt() * T::of(p.inv_sqrt_correction) + T::of(p.eps);
            let kept = *x - T::of(p.decay) * *x;
            *x = kept - T::of(p.step_size) * (*m / denominator);
        }
    });
}

/// Appends one AdamW step over one slice; the gradients are multiplied by `state[1]` on the device. `constants.n` is set
/// here.
pub fn update(rec: &mut Recording, slice: &ArenaSlice, state: &Span, constants: UpdateParams) {
    let n = slice.values.len();
    let buffers = [&slice.grads, &slice.values, &slice.first_moments, &slice.second_moments].map(|b| b.span());
    let [grads, values, first, second] = &buffers;
    let params = UpdateParams { n: n as u32, ..constants };
    rec.dispatch(&UPDATE, &[], params, &[state, grads, values, first, second], groups_for(n, GROUP));
}

/// A case that copies values, gradients and moments into an arena of `n` elements and takes step 3.
fn case(name: &str, n: usize, spread: f32, clip: f32) -> Case {
    let squares = random(4, n, 0.1).iter().map(|x| x * x * spread * spread).collect();
    let second = Input::Real { rows: 1, cols: n, format: Format::F32, values: squares, differentiable: false };
    let inputs = vec![real(1, 1, n, 1.0), real(2, 1, n, spread), real(3, 1, n, 0.1 * spread), second];
    let inputs = inputs.into_iter().map(Input::frozen).collect();
    let other = clip == 0.0;
    Case::new(format!("adamw/update: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let buffer = |t: &Tensor, label: &str| crate::gpu::Buffer::persistent(label, Kind::Real, t.len());
        let [values, grads, first_moments, second_moments] =
            ["values", "grads", "first moments", "second moments"].map(|l| buffer(&b.tensors[0], l));
        let tensors = [&values, &grads, &first_moments, &second_moments].map(|b| Tensor::from_span(b.span(), 1, n));
        for (from, to) in b.tensors.iter().zip(&tensors) {
            copy_tensor(rec, from, to);
        }
        let slice = ArenaSlice { values, grads, first_moments, second_moments, decay: true };
        let arena = Arena { slices: vec![slice.clone(), slice] };
        let state = Tensor::transient(rec, "state", 1, 2);
        norm_and_factor(rec, &arena, clip, state.span());
        let constants = UpdateParams {
            n: 0,
            decay: if other { 0.2 } else { 0.001 },
            one_minus_beta1: 0.1,
            one_minus_beta2: if other { 0.02 } else { 0.001 },
            step_size: if other { 0.3 } else { 0.01 },
            inv_sqrt_correction: 18.3,
            eps: if other { 1e-3 } else { 1e-8 },
        };
        update(rec, &arena.slices[0], state.span(), constants);
        let [values, _, first, second] = tensors;
        Ok((vec![state, values, first, second], None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd size, clipped", 1234, 1.0, 0.5),
        case("one element, not clipped", 1, 1.0, 0.0),
        case("more blocks than partial sums", 3 * 256 * 256 + 300, 1e-3, 1.0),
        case("whole workgroups", 1536, 1.0, 0.5),
        case("other constants", 301, 1e-2, 0.0),
        case("large values", 777, 1e6, 1.0),
        case("a norm near the divisor's guard", 40, 2e-7, 1e-6),
        case("bench", 1 << 22, 1.0, 1.0).bench(),
    ]
}
