//! The AdamW update of whole arena slices.
//!
//! The host counts steps and computes learning rates and bias corrections: see `optim`.

use rayon::prelude::*;

use super::arena_update::{self, BLOCK};
use super::case::{Case, Tolerance, random};
use crate::gpu::{Binding, Buffer, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span};
use crate::tensor::ArenaSlice;
use crate::{params, wgsl};

params! {
    /// One AdamW step over one slice. Every constant is computed in f64 and rounded once. The
    /// kernel gets 1 − β rather than β, because 1 − β computed in f32 loses most of its digits.
    pub struct UpdateParams {
        /// Elements of the slice.
        n: u32,
        /// lr · weight decay, or 0.
        decay: f32,
        /// The value to which weight decay pulls.
        origin: f32,
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
        Binding::read("clipping", Kind::Real, "[norm, factor]"),
        Binding::read("grads", Kind::Real, "[n]"),
        Binding::read_write("values", Kind::Real, "[n]"),
        Binding::read_write("exp_avg", Kind::Real, "[n]"),
        Binding::read_write("exp_avg_sq", Kind::Real, "[n]"),
    ],
    params: UpdateParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(15 * d.param("n"))),
    reference_f32: update_reference,
    reference_f64: update_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&UPDATE, vec![])]
}

fn update_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: UpdateParams = args.params();
    let [clipping, grads, values, first, second] = args.buffers();
    let (factor, grads, values) = (clipping.real()[1], grads.real(), values.real_mut());
    let (first, second) = (first.real_mut(), second.real_mut());
    if factor == T::ZERO {
        return; // the gradient is not finite
    }
    let n = p.n as usize;
    let moments = first[..n].par_chunks_mut(BLOCK).zip(second[..n].par_chunks_mut(BLOCK));
    let blocks = values[..n].par_chunks_mut(BLOCK).zip(grads[..n].par_chunks(BLOCK)).zip(moments);
    blocks.for_each(|((values, grads), (first, second))| {
        for (((x, &g), m), v) in values.iter_mut().zip(grads).zip(first).zip(second) {
            let g = factor * g;
            *m += T::of(p.one_minus_beta1) * (g - *m);
            *v += T::of(p.one_minus_beta2) * (g * g - *v);
            let denominator = v.sqrt() * T::of(p.inv_sqrt_correction) + T::of(p.eps);
            let kept = *x - T::of(p.decay) * (*x - T::of(p.origin));
            *x = kept - T::of(p.step_size) * (*m / denominator);
        }
    });
}

/// Appends one AdamW step over one slice with the slots `exp_avg` and `exp_avg_sq`; `clipping[1]`
/// multiplies the gradients on the device. Sets `constants.n`.
pub fn update(rec: &mut Recording, slice: &ArenaSlice, slots: &[Buffer], clipping: &Span, constants: UpdateParams) {
    let params = UpdateParams { n: slice.values.len() as u32, ..constants };
    arena_update::update(rec, &UPDATE, params, (slice, slots), clipping);
}

/// A case of step 3 over `n` elements.
fn case(name: &str, n: usize, spread: f32, factor: f32) -> Case {
    let squares = random(4, n, 0.1).iter().map(|x| x * x * spread * spread).collect();
    let inputs = [random(1, n, 1.0), random(2, n, spread)];
    let slots = vec![("exp_avg", random(3, n, 0.1 * spread)), ("exp_avg_sq", squares)];
    let other = factor == 1.0;
    let constants = UpdateParams {
        n: 0,
        decay: if other { 0.2 } else { 0.001 },
        origin: if other { 0.7 } else { 0.0 },
        one_minus_beta1: 0.1,
        one_minus_beta2: if other { 0.02 } else { 0.001 },
        step_size: if other { 0.3 } else { 0.01 },
        inv_sqrt_correction: 18.3,
        eps: if other { 1e-3 } else { 1e-8 },
    };
    let name = format!("adamw/update: {name}");
    arena_update::case(name, Tolerance::SUMS, inputs, slots, factor, move |rec, slice, slots, clipping| {
        update(rec, slice, slots, clipping, constants);
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd size, clipped", 1234, 1.0, 0.01),
        case("one element, not clipped", 1, 1.0, 1.0),
        case("many workgroups", 3 * 256 * 256 + 300, 1e-3, 0.8),
        case("whole workgroups", 1536, 1.0, 0.012),
        case("other constants", 301, 1e-2, 1.0),
        case("skipped", 300, 1.0, 0.0),
        case("large values", 777, 1e6, 4e-8),
        case("small values, clipped", 40, 2e-7, 0.4),
        case("bench", 1 << 22, 1.0, 5e-4).bench(),
    ]
}
