//! Common parts of the optimisers' kernels: dispatch over an arena slice, reference loop, cases.

use rayon::prelude::*;

use super::case::{Case, Input, Tolerance};
use crate::gpu::{Buffer, KernelArgs, KernelDef, Kind, Params, Real, Recording, Span, groups_for};
use crate::tensor::{ArenaSlice, Format, Group, Tensor, copy_tensor};

/// Workgroup size.
const GROUP: usize = 256;

/// Elements that the references process at a time.
pub(super) const BLOCK: usize = 4096;

/// Appends the update `kernel` over one slice. Its bindings are [norm, factor] of the clipping,
/// gradients, values, and the slots in order.
pub(super) fn update(
    rec: &mut Recording,
    kernel: &'static KernelDef,
    params: impl Params,
    (slice, slots): (&ArenaSlice, &[Buffer]),
    clipping: &Span,
) {
    let buffers: Vec<Span> = [&slice.grads, &slice.values].into_iter().chain(slots).map(Buffer::span).collect();
    let spans: Vec<&Span> = std::iter::once(clipping).chain(&buffers).collect();
    rec.dispatch(kernel, &[], params, &spans, groups_for(slice.values.len(), GROUP));
}

/// The reference of an update with one slot: calls `step(value, clipped gradient, slot)` for each
/// of `n` elements.
pub(super) fn one_slot_reference<T: Real>(
    args: KernelArgs<'_, T>,
    n: u32,
    step: impl Fn(&mut T, T, &mut T) + Sync + Send,
) {
    let [clipping, grads, values, slot] = args.buffers();
    let (factor, grads, values, slot) = (clipping.real()[1], grads.real(), values.real_mut(), slot.real_mut());
    if factor == T::ZERO {
        return; // the gradient is not finite
    }
    let n = n as usize;
    let blocks = values[..n].par_chunks_mut(BLOCK).zip(grads[..n].par_chunks(BLOCK));
    blocks.zip(slot[..n].par_chunks_mut(BLOCK)).for_each(|((values, grads), slot)| {
        for ((x, &g), m) in values.iter_mut().zip(grads).zip(slot) {
            step(x, factor * g, m);
        }
    });
}

/// A case that copies values, gradients and named slots into a slice and takes one step, with the
/// clipping [1.5, factor].
pub(super) fn case(
    name: String,
    tolerance: Tolerance,
    [values, grads]: [Vec<f32>; 2],
    slots: Vec<(&'static str, Vec<f32>)>,
    factor: f32,
    step: impl Fn(&mut Recording, &ArenaSlice, &[Buffer], &Span) + 'static,
) -> Case {
    let n = values.len();
    let row = |values: Vec<f32>| {
        let cols = values.len();
        Input::Real { rows: 1, cols, format: Format::F32, values, differentiable: false }
    };
    let (names, slots): (Vec<_>, Vec<_>) = slots.into_iter().unzip();
    let inputs = [values, grads].into_iter().chain(slots).chain([vec![1.5, factor]]).map(row).collect();
    Case::new(name, inputs, tolerance, move |rec, b| {
        let buffer = |label: &str| Buffer::persistent(label, Kind::Real, n);
        let slice =
            ArenaSlice { values: buffer("values"), grads: buffer("gradients"), decay: Some(0.0), group: Group::Main };
        let slots: Vec<Buffer> = names.iter().map(|name| buffer(name)).collect();
        let tensor = |b: &Buffer| Tensor::from_span(b.span(), 1, n);
        let (values, slot_tensors) = (tensor(&slice.values), slots.iter().map(tensor));
        let outputs: Vec<Tensor> = std::iter::once(values.clone()).chain(slot_tensors.clone()).collect();
        let targets = [values, tensor(&slice.grads)].into_iter().chain(slot_tensors);
        for (from, to) in b.tensors.iter().zip(targets) {
            copy_tensor(rec, from, &to);
        }
        let clipping = b.tensors.last().expect("the clipping is the last input");
        step(rec, &slice, &slots, clipping.span());
        Ok((outputs, None))
    })
}
