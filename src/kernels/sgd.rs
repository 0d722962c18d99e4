//! The update of SGD with momentum for whole arena slices.
//!
//! The host computes learning rates: see `optim`.

use rayon::prelude::*;

use super::case::{Case, Input, Tolerance, random};
use crate::gpu::{Binding, Buffer, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, groups_for};
use crate::tensor::{ArenaSlice, Format, Tensor, copy_tensor};
use crate::{params, wgsl};

/// Workgroup size.
const GROUP: usize = 256;

/// Elements that the reference processes at a time.
const BLOCK: usize = 4096;

params! {
    /// One step over one slice. Every constant is computed in f64 and rounded once.
    pub struct UpdateParams {
        /// Elements of the slice.
        n: u32,
        /// Learning rate.
        lr: f32,
        /// Weight decay, or 0.
        weight_decay: f32,
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
    work: |d| Ok(d.work(7 * d.param("n"))),
    reference_f32: update_reference,
    reference_f64: update_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&UPDATE, vec![])]
}

fn update_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: UpdateParams = args.params();
    let [clipping, grads, values, momentum_buffer] = args.buffers();
    let (factor, grads, values) = (clipping.real()[1], grads.real(), values.real_mut());
    let n = p.n as usize;
    let blocks = values[..n].par_chunks_mut(BLOCK).zip(grads[..n].par_chunks(BLOCK));
    let momentum_buffer = momentum_buffer.real_mut()[..n].par_chunks_mut(BLOCK);
    blocks.zip(momentum_buffer).for_each(|((values, grads), momentum_buffer)| {
        for ((x, &g), b) in values.iter_mut().zip(grads).zip(momentum_buffer) {
            let g = factor * g + T::of(p.weight_decay) * *x;
            *b = T::of(p.momentum) * *b + g;
            *x -= T::of(p.lr) * *b;
        }
    });
}

/// Appends one step over one slice; `clipping[1]` multiplies the gradients on the device. Sets
/// `constants.n`.
pub fn update(
    rec: &mut Recording,
    slice: &ArenaSlice,
    momentum_buffer: &Buffer,
    clipping: &Span,
    constants: UpdateParams,
) {
    let n = slice.values.len();
    let [grads, values, momentum_buffer] = &[&slice.grads, &slice.values, momentum_buffer].map(|b| b.span());
    let params = UpdateParams { n: n as u32, ..constants };
    rec.dispatch(&UPDATE, &[], params, &[clipping, grads, values, momentum_buffer], groups_for(n, GROUP));
}

fn case(name: &str, n: usize, spread: f32, factor: f32, constants: UpdateParams) -> Case {
    let row = |values: Vec<f32>| Input::Real {
        rows: 1,
        cols: values.len(),
        format: Format::F32,
        values,
        differentiable: false,
    };
    let inputs =
        vec![row(random(1, n, 1.0)), row(random(2, n, spread)), row(random(3, n, spread)), row(vec![1.5, factor])];
    Case::new(format!("sgd/update: {name}"), inputs, Tolerance::ROUNDING, move |rec, b| {
        let [values, grads, momentum_buffer] =
            ["values", "gradients", "momentum_buffer"].map(|label| Buffer::persistent(label, Kind::Real, n));
        let tensors = [&values, &grads, &momentum_buffer].map(|b| Tensor::from_span(b.span(), 1, n));
        for (from, to) in b.tensors.iter().zip(&tensors) {
            copy_tensor(rec, from, to);
        }
        let slice = ArenaSlice { values, grads, decay: true };
        update(rec, &slice, &momentum_buffer, b.tensors[3].span(), constants);
        let [values, _, momentum_buffer] = tensors;
        Ok((vec![values, momentum_buffer], None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let usual = UpdateParams { n: 0, lr: 0.1, weight_decay: 0.01, momentum: 0.9 };
    vec![
        case("odd size, clipped", 1234, 1.0, 0.4, usual),
        case("one element, not clipped", 1, 1.0, 1.0, usual),
        case("whole workgroups, no momentum", 1536, 0.5, 1.0, UpdateParams { momentum: 0.0, ..usual }),
        case("other constants", 301, 2.0, 0.7, UpdateParams { n: 0, lr: 0.3, weight_decay: 0.5, momentum: 0.4 }),
        case("large values, no weight decay", 777, 1e6, 1e-3, UpdateParams { weight_decay: 0.0, ..usual }),
        case("bench", 1 << 22, 1.0, 0.5, usual).bench(),
    ]
}
