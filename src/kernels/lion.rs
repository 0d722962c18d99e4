//! The Lion update of whole arena slices.
//!
//! The host computes learning rates: see `optim`.

use super::arena_update;
use super::case::{Case, Tolerance, random};
use crate::gpu::{Binding, Buffer, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span};
use crate::tensor::ArenaSlice;
use crate::{params, wgsl};

params! {
    /// One Lion step over one slice; every constant is computed in f64 and rounded once.
    pub struct UpdateParams {
        /// Elements of the slice.
        n: u32,
        /// Learning rate.
        lr: f32,
        /// lr · weight decay, or 0.
        decay: f32,
        /// The value to which weight decay pulls.
        origin: f32,
        /// 1 − β₁.
        one_minus_beta1: f32,
        /// 1 − β₂.
        one_minus_beta2: f32,
    }
}

static UPDATE: KernelDef = KernelDef {
    label: "lion/update",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("lion/update")],
    bindings: &[
        Binding::read("clipping", Kind::Real, "[norm, factor]"),
        Binding::read("grads", Kind::Real, "[n]"),
        Binding::read_write("values", Kind::Real, "[n]"),
        Binding::read_write("exp_avg", Kind::Real, "[n]"),
    ],
    params: UpdateParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(12 * d.param("n"))),
    reference_f32: update_reference,
    reference_f64: update_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&UPDATE, vec![])]
}

fn update_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: UpdateParams = args.params();
    arena_update::one_slot_reference(args, p.n, |x, g, m| {
        let direction = sign(*m + T::of(p.one_minus_beta1) * (g - *m));
        *m += T::of(p.one_minus_beta2) * (g - *m);
        let kept = *x - T::of(p.decay) * (*x - T::of(p.origin));
        *x = kept - T::of(p.lr) * direction;
    });
}

/// 1, 0 or -1, like WGSL's `sign`.
fn sign<T: Real>(x: T) -> T {
    if x > T::ZERO {
        T::ONE
    } else if x < T::ZERO {
        -T::ONE
    } else {
        T::ZERO
    }
}

/// Appends one Lion step over one slice with the slot `exp_avg`; `clipping[1]` multiplies the
/// gradients on the device. Sets `constants.n`.
pub fn update(rec: &mut Recording, slice: &ArenaSlice, slots: &[Buffer], clipping: &Span, constants: UpdateParams) {
    let params = UpdateParams { n: slice.values.len() as u32, ..constants };
    arena_update::update(rec, &UPDATE, params, (slice, slots), clipping);
}

/// Running means and gradients on a grid of 1/64. With binary constants the argument of the sign is
/// exact in f32 and sometimes zero, so every device finds the same direction.
fn on_a_grid(n: usize) -> [Vec<f32>; 2] {
    let grid = |seed| random(seed, n, 0.1).into_iter().map(|x| (x * 64.0).round() / 64.0).collect();
    [grid(1), grid(2)]
}

/// Running means and gradients with varying signs; in turn, one of the two clearly determines the
/// direction.
fn one_decides(n: usize, spread: f32) -> [Vec<f32>; 2] {
    let means = random(3, n, spread);
    let signs = random(4, n, 1.0);
    let gradient = |(i, (m, s)): (usize, (&f32, &f32))| m.abs().copysign(*s) * if i % 2 == 0 { 40.0 } else { 0.5 };
    let gradients = means.iter().zip(&signs).enumerate().map(gradient).collect();
    [means, gradients]
}

fn case(name: &str, [means, gradients]: [Vec<f32>; 2], factor: f32, constants: UpdateParams) -> Case {
    let inputs = [random(5, means.len(), 1.0), gradients];
    let slots = vec![("exp_avg", means)];
    let name = format!("lion/update: {name}");
    arena_update::case(name, Tolerance::ROUNDING, inputs, slots, factor, move |rec, slice, slots, clipping| {
        update(rec, slice, slots, clipping, constants);
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let binary = UpdateParams { n: 0, lr: 0.01, decay: 0.002, origin: 0.0, one_minus_beta1: 0.125, one_minus_beta2: 0.03 };
    let published = UpdateParams { n: 0, lr: 3e-4, decay: 0.2, origin: 0.7, one_minus_beta1: 0.1, one_minus_beta2: 0.01 };
    vec![
        case("odd size, clipped, zeros", on_a_grid(1234), 0.5, binary),
        case("one element, not clipped", on_a_grid(1), 1.0, binary),
        case("skipped", on_a_grid(300), 0.0, binary),
        case("whole workgroups, published constants", one_decides(1536, 1.0), 1.0, published),
        case("large values, clipped hard", one_decides(777, 1e6), 0.25, UpdateParams { lr: 0.5, ..published }),
        case("bench", on_a_grid(1 << 22), 0.5, binary).bench(),
    ]
}
