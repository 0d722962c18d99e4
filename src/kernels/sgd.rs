//! The update of SGD with momentum for whole arena slices.
//!
//! The host computes learning rates: see `optim`.

use super::arena_update;
use super::case::{Case, Tolerance, random};
use crate::gpu::{Binding, Buffer, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span};
use crate::tensor::ArenaSlice;
use crate::{params, wgsl};

params! {
    /// One step over one slice. Every constant is computed in f64 and rounded once.
    pub struct UpdateParams {
        /// Elements of the slice.
        n: u32,
        /// Learning rate.
        lr: f32,
        /// Weight decay, or 0.
        weight_decay: f32,
        /// The value to which weight decay pulls.
        origin: f32,
        /// Momentum factor.
        momentum: f32,
    }
}

static UPDATE: KernelDef = KernelDef {
    label: "sgd/update",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("sgd/update")],
    bindings: &[
        Binding::read("clipping", Kind::Real, "[norm, factor]"),
        Binding::read("grads", Kind::Real, "[n]"),
        Binding::read_write("values", Kind::Real, "[n]"),
        Binding::read_write("momentum_buffer", Kind::Real, "[n]"),
    ],
    params: UpdateParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(8 * d.param("n"))),
    reference_f32: update_reference,
    reference_f64: update_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&UPDATE, vec![])]
}

fn update_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: UpdateParams = args.params();
    arena_update::one_slot_reference(args, p.n, |x, g, b| {
        let g = g + T::of(p.weight_decay) * (*x - T::of(p.origin));
        *b = T::of(p.momentum) * *b + g;
        *x -= T::of(p.lr) * *b;
    });
}

/// Appends one step over one slice with the slot `momentum_buffer`; `clipping[1]` multiplies the
/// gradients on the device. Sets `constants.n`.
pub fn update(rec: &mut Recording, slice: &ArenaSlice, slots: &[Buffer], clipping: &Span, constants: UpdateParams) {
    let params = UpdateParams { n: slice.values.len() as u32, ..constants };
    arena_update::update(rec, &UPDATE, params, (slice, slots), clipping);
}

fn case(name: &str, n: usize, spread: f32, factor: f32, constants: UpdateParams) -> Case {
    let inputs = [random(1, n, 1.0), random(2, n, spread)];
    let slots = vec![("momentum_buffer", random(3, n, spread))];
    let name = format!("sgd/update: {name}");
    arena_update::case(name, Tolerance::ROUNDING, inputs, slots, factor, move |rec, slice, slots, clipping| {
        update(rec, slice, slots, clipping, constants);
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let other = UpdateParams { n: 0, lr: 0.3, weight_decay: 0.5, origin: 0.7, momentum: 0.4 };
    let usual = UpdateParams { n: 0, lr: 0.1, weight_decay: 0.01, origin: 0.0, momentum: 0.9 };
    vec![
        case("odd size, clipped", 1234, 1.0, 0.4, usual),
        case("one element, not clipped", 1, 1.0, 1.0, usual),
        case("whole workgroups, no momentum", 1536, 0.5, 1.0, UpdateParams { momentum: 0.0, ..usual }),
        case("other constants", 301, 2.0, 0.7, other),
        case("skipped", 300, 1.0, 0.0, other),
        case("large values, no weight decay", 777, 1e6, 1e-3, UpdateParams { weight_decay: 0.0, ..usual }),
        case("bench", 1 << 22, 1.0, 0.5, usual).bench(),
    ]
}
