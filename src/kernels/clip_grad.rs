//! The global gradient norm over all arena slices, and the clipping factor.
//!
//! The factor stays on the device, so a step needs no read-back.

use rayon::prelude::*;

use super::case::{Case, Input, Tolerance, random, real};
use super::parts::TREE;
use crate::gpu::{Binding, Buffer, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span};
use crate::tensor::{Arena, ArenaSlice, Format, Group, Tensor, copy_tensor};
use crate::{params, wgsl};

/// Workgroup size.
const GROUP: usize = 256;

/// Maximum partial sums per slice: enough workgroups to fill a GPU, few enough for one workgroup to
/// sum.
const MAX_PARTIALS: usize = 256;

params! {
    /// The sum of squares of one slice.
    pub struct SquareParams {
        /// Elements of the slice.
        n: u32,
        /// Workgroups, and partial sums of this slice.
        n_groups: u32,
        /// Index of its first partial sum.
        first: u32,
    }
}

params! {
    /// The norm and the factor.
    pub struct ClipParams {
        /// Number of partial sums.
        n: u32,
        /// Maximum norm, 0 for no clipping.
        clip: f32,
    }
}

static SQUARE_SUM: KernelDef = KernelDef {
    label: "clip_grad/square_sum",
    suffix: "",
    parts: &[TREE, wgsl!("clip_grad/square_sum")],
    bindings: &[
        Binding::read("x", Kind::Real, "[n]"),
        Binding::read_write("partials", Kind::Real, "[all slices' partial sums]"),
    ],
    params: SquareParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.param("n"))),
    reference_f32: square_sum_reference,
    reference_f64: square_sum_reference,
};

static CLIP_FACTOR: KernelDef = KernelDef {
    label: "clip_grad/clip_factor",
    suffix: "",
    parts: &[TREE, wgsl!("clip_grad/clip_factor")],
    bindings: &[Binding::read("partials", Kind::Real, "[n]"), Binding::write("state", Kind::Real, "[norm, factor]")],
    params: ClipParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.param("n"))),
    reference_f32: clip_factor_reference,
    reference_f64: clip_factor_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [&SQUARE_SUM, &CLIP_FACTOR].map(|k| (k, vec![])).to_vec()
}

fn square_sum_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: SquareParams = args.params();
    let [x, partials] = args.buffers();
    let partials = &mut partials.real_mut()[p.first as usize..][..p.n_groups as usize];
    let (x, step) = (&x.real()[..p.n as usize], partials.len());
    let square_sum = |block: &[T]| block.iter().map(|&v| (v * v).to_f64()).sum::<f64>();
    partials.par_iter_mut().with_min_len(64).enumerate().for_each(|(first, partial)| {
        let sums = x.chunks(GROUP).skip(first).step_by(step).map(square_sum);
        *partial = T::from_f64(sums.sum());
    });
}

fn clip_factor_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: ClipParams = args.params();
    let [partials, state] = args.buffers();
    let sum: f64 = partials.real()[..p.n as usize].iter().map(|x| x.to_f64()).sum();
    let norm = T::from_f64(sum).sqrt();
    let factor = match p.clip {
        _ if !norm.to_f64().is_finite() => T::ZERO,
        clip if clip > 0.0 => (T::of(clip) / (norm + T::from_f64(1e-6))).min(T::ONE),
        _ => T::ONE,
    };
    state.real_mut()[..2].copy_from_slice(&[norm, factor]);
}

/// Appends state = [‖g‖, factor] over the gradients of all slices; `state` has two elements. `clip`
/// is the maximum norm, 0 for none. The factor is min(1, clip / (norm + 1e-6)), as in
/// torch.nn.utils.clip_grad_norm_, or 0 if the norm is not finite: optimisers then skip the step.
pub fn norm_and_factor(rec: &mut Recording, arena: &Arena, clip: f32, state: &Span) {
    let counts: Vec<usize> = arena.slices.iter().map(|s| s.grads.len().div_ceil(GROUP).min(MAX_PARTIALS)).collect();
    let n = counts.iter().sum::<usize>();
    let partials = rec.transient("square sums", Kind::Real, n);
    let mut first = 0;
    for (slice, &n_groups) in arena.slices.iter().zip(&counts) {
        let n = slice.grads.len() as u32;
        let params = SquareParams { n, n_groups: n_groups as u32, first: first as u32 };
        rec.dispatch(&SQUARE_SUM, &[], params, &[&slice.grads.span(), &partials], [n_groups as u32, 1, 1]);
        first += n_groups;
    }
    rec.dispatch(&CLIP_FACTOR, &[], ClipParams { n: n as u32, clip }, &[&partials, state], [1, 1, 1]);
}

/// A case over an arena of two slices of different lengths.
fn case(name: &str, n: usize, spread: f32, clip: f32) -> Case {
    case_of(name, [real(2, 1, n, spread), real(3, 1, n.div_ceil(3), spread)], clip)
}

/// A case over an arena of two slices with these gradients.
fn case_of(name: &str, gradients: [Input; 2], clip: f32) -> Case {
    let inputs = gradients.map(Input::frozen).to_vec();
    Case::new(format!("clip_grad/clip_factor: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let mut slices = Vec::new();
        for from in &b.tensors {
            let [values, grads] =
                ["values", "gradients"].map(|label| Buffer::persistent(label, Kind::Real, from.len()));
            copy_tensor(rec, from, &Tensor::from_span(grads.span(), 1, from.len()));
            slices.push(ArenaSlice { values, grads, decay: Some(0.0), group: Group::Main });
        }
        let state = Tensor::transient(rec, "state", 1, 2);
        norm_and_factor(rec, &Arena { slices }, clip, state.span());
        Ok((vec![state], None))
    })
}

/// Random values, one of which is infinite.
fn infinite(n: usize) -> Input {
    let mut values = random(2, n, 1.0);
    values[n / 2] = f32::INFINITY;
    Input::Real { rows: 1, cols: n, format: Format::F32, values, differentiable: false }
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd size, clipped", 1234, 1.0, 0.5),
        case("one element, not clipped", 1, 1.0, 0.0),
        case("more blocks than partial sums", 3 * 256 * 256 + 300, 1e-3, 1.0),
        case("whole workgroups", 1536, 1.0, 0.5),
        case("short of the largest norm", 301, 1e-2, 1.0),
        case("large values", 777, 1e6, 1.0),
        case_of("an infinite gradient", [infinite(300), real(3, 1, 100, 1.0)], 1.0),
        case_of("an infinite gradient, not clipped", [real(2, 1, 300, 1.0), infinite(100)], 0.0),
        case("a norm near the divisor's guard", 40, 2e-7, 1e-6),
        case("bench", 1 << 22, 1.0, 1.0).bench(),
    ]
}
