//! The language-model head fused with cross-entropy, which never stores all logits at once.
//!
//! It processes the rows in chunks. For each chunk it computes the losses *and* the gradients from
//! the logits, so the rule only scales them by the gradient of the loss. [`super::head`] computes
//! the logits.

use std::cell::Cell;

use rayon::prelude::*;

use super::case::{Case, Input, Tolerance, blocks, frozen, random, real, spiked};
use super::parts::TREE;
use super::head::{Head, logits_into};
use super::matmul::{Rows, matmul_nn, matmul_tn};
use super::op::{Applied, Op};
use super::rows::{SUM_LANES, for_rows, row_max};
use crate::simd::vectorised;
use crate::error::Result;
use crate::gpu::{
    Binding, KernelArgs, DispatchView, KernelDef, Kind, Params as _, Real, Recording, Span, Work, groups_for,
};
use crate::tensor::{Format, Tensor, copy_tensor};
use crate::{ensure, params, wgsl};

/// The label of an ignored row. Any label outside the vocabulary has the same effect.
pub const IGNORED: u32 = u32::MAX;

/// Elements of one chunk of logits: 32 MiB, small beside any model and large enough to fill a GPU.
const CHUNK_ELEMENTS: usize = 8 << 20;

/// Maximum rows of a chunk: the grid has one workgroup per row.
const CHUNK_ROWS: usize = 32_768;

/// Workgroup size of `scale_by`.
const GROUP: usize = 256;

/// Elements that the reference of `scale_by` processes at a time.
const BLOCK: usize = 1024;

/// Terms that a lane of a reference sums in the row's precision.
pub(super) const SUM_RUN: usize = 32;

/// Below this exponent, exp adds nothing in f32.
pub(super) const LOWEST_EXPONENT: f32 = -80.0;

params! {
    /// One chunk of rows.
    pub struct RowsParams {
        /// Rows of the chunk.
        rows: u32,
        /// Vocabulary.
        cols: u32,
        /// Index of the chunk's first row in labels and losses.
        first_row: u32,
        /// 1 to overwrite the logits with their gradient.
        gradient: u32,
        /// Factor of the gradient.
        scale: f32,
        /// The cap of the logits, by whose slope the gradient is multiplied; 0 for none.
        softcap: f32,
    }
}

params! {
    /// A scaled sum.
    pub struct SumParams {
        /// Number of terms.
        n: u32,
        /// Factor of the sum.
        scale: f32,
    }
}

params! {
    /// The number of elements.
    pub struct ScaleParams {
        /// Elements of x.
        n: u32,
    }
}

/// The maximum needs comparisons only, so it counts no operations. If the gradient is requested, it
/// overwrites the logits.
fn softmax_rows_work(d: &mut DispatchView<'_>) -> Result<Work> {
    let [rows, cols] = ["rows", "cols"].map(|name| d.param(name));
    Ok(Work { flops: 6 * rows * cols, bytes: 4 * rows * (2 + cols * (1 + d.param("gradient"))) })
}

static SOFTMAX_ROWS: KernelDef = KernelDef {
    label: "loss/softmax_rows",
    suffix: "",
    parts: &[TREE, wgsl!("loss/softmax_rows")],
    bindings: &[
        Binding::read("labels", Kind::U32, "[n]"),
        Binding::read_write("x", Kind::Real, "[rows, cols]"),
        Binding::read_write("losses", Kind::Real, "[n]"),
    ],
    params: RowsParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: softmax_rows_work,
    reference_f32: softmax_rows_reference,
    reference_f64: softmax_rows_reference,
};

static SUM: KernelDef = KernelDef {
    label: "loss/sum",
    suffix: "",
    parts: &[TREE, wgsl!("loss/sum")],
    bindings: &[Binding::read("x", Kind::Real, "[n]"), Binding::write("out", Kind::Real, "[1]")],
    params: SumParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.param("n"))),
    reference_f32: sum_reference,
    reference_f64: sum_reference,
};

static SCALE_BY: KernelDef = KernelDef {
    label: "loss/scale_by",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("loss/scale_by")],
    bindings: &[Binding::read("factor", Kind::Real, "[1]"), Binding::read_write("x", Kind::Real, "[n]")],
    params: ScaleParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.param("n"))),
    reference_f32: scale_by_reference,
    reference_f64: scale_by_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [&SOFTMAX_ROWS, &SUM, &SCALE_BY].map(|k| (k, vec![])).to_vec()
}

fn softmax_rows_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: RowsParams = args.params();
    let [labels, x, losses] = args.buffers();
    let (rows, cols, first) = (p.rows as usize, p.cols as usize, p.first_row as usize);
    let labels = &labels.u32()[first..first + rows];
    let losses = &mut losses.real_mut()[first..first + rows];
    let chunk = x.real_mut()[..rows * cols].par_chunks_mut(cols);
    chunk.zip(labels).zip(losses).for_each(|((row, &label), loss)| {
        *loss = softmax_row(row, label as usize, p.gradient == 1, [p.scale, p.softcap].map(T::of));
    });
}

/// e^(x - highest), with the exponent clamped so that the result is never 0.
#[inline(always)]
pub(super) fn exp_below<T: Real>(x: T, highest: T) -> T {
    (x - highest).max(T::of(LOWEST_EXPONENT)).exp()
}

/// Sum of the exponentials of a row. Short runs are summed in T and the runs in f64 for any T,
/// because summing a vocabulary term by term in f32 would cost the loss two digits.
#[allow(clippy::needless_range_loop)] // see simd/vectorised.rs
#[inline(always)]
pub(super) fn exp_sum<T: Real>(row: &[T], highest: T) -> T {
    let (chunks, rest) = row.as_chunks::<SUM_LANES>();
    let mut sum = 0.0;
    let mut i = 0;
    while i < chunks.len() {
        let end = chunks.len().min(i + SUM_RUN);
        let mut lanes = [T::ZERO; SUM_LANES];
        while i < end {
            for l in 0..SUM_LANES {
                lanes[l] += exp_below(chunks[i][l], highest);
            }
            i += 1;
        }
        for l in 0..SUM_LANES {
            sum += lanes[l].to_f64();
        }
    }
    for i in 0..rest.len() {
        sum += exp_below(rest[i], highest).to_f64();
    }
    T::from_f64(sum)
}

vectorised! {
    /// The loss of one row of logits; replaces the logits by their gradient if `gradient` is set.
    /// `factors` are the scale of the gradient and the softcap. A softcap c > 0 multiplies the
    /// gradient of a logit y by 1 - (y/c)², the slope of c tanh(z/c).
        pub(super) fn softmax_row<T: Real>(row: &mut [T], label: usize, gradient: bool, factors: [T; 2]) -> T {
        let [scale, cap] = factors;
        let highest = row_max(row);
        let sum = exp_sum(row, highest);
        let hit = row.get(label).copied();
        if gradient {
            let factor = if hit.is_some() { scale } else { T::ZERO };
            let steepness = if cap > T::ZERO { T::ONE / cap } else { T::ZERO };
            let slope = |y: T| T::ONE - (y * steepness) * (y * steepness);
            for i in 0..row.len() {
                row[i] = factor * slope(row[i]) * (exp_below(row[i], highest) / sum);
            }
            if let Some(x) = hit {
                row[label] = factor * slope(x) * (exp_below(x, highest) / sum - T::ONE);
            }
        }
        match hit {
            Some(x) => sum.ln() + (highest - x),
            None => T::ZERO,
        }
    }
}

fn sum_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: SumParams = args.params();
    let [x, out] = args.buffers();
    let sum: f64 = x.real()[..p.n as usize].iter().map(|x| x.to_f64()).sum();
    out.real_mut()[0] = T::of(p.scale) * T::from_f64(sum);
}

fn scale_by_reference<T: Real>(args: KernelArgs<'_, T>) {
    let n = args.params::<ScaleParams>().n as usize;
    let [factor, x] = args.buffers();
    let factor = factor.real()[0];
    for_rows(n, &mut x.real_mut()[..n], BLOCK, |_, x| x.iter_mut().for_each(|x| *x *= factor));
}

/// The gradients to compute during the forward, for later use by the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The gradient of the hidden states.
    pub hidden: bool,
    /// The gradient of the head, which must be f32.
    pub head: bool,
}

/// The gradients that the forward of a loss computed. The rule scales them by that of the loss.
struct HeadLoss {
    label: &'static str,
    dhidden: Option<Tensor>,
    dhead: Option<Tensor>,
    applied: Cell<bool>,
}

impl Op for HeadLoss {
    fn label(&self) -> &'static str {
        self.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        assert!(!self.applied.replace(true), "the rule scales its gradients in place, so it is used once");
        let mut out = Vec::new();
        for (gradient, &needed) in [&self.dhidden, &self.dhead].into_iter().zip(need) {
            ensure!(gradient.is_some() || !needed, "the loss was recorded without a gradient that is needed now");
            let gradient = gradient.as_ref().filter(|_| needed);
            for piece in gradient.iter().flat_map(|g| g.pieces()) {
                let n = piece.span.len;
                let params = ScaleParams { n: n as u32 };
                rec.dispatch(&SCALE_BY, &[], params, &[grads[0].span(), &piece.span], groups_for(n, GROUP));
            }
            out.push(gradient.cloned());
        }
        Ok(out)
    }
}

/// The head, and the rows of hidden states that it meets, chunk by chunk.
pub(super) struct Chunked<'a> {
    pub(super) hidden: &'a Tensor,
    pub(super) head: Head<'a>,
    pub(super) need: Need,
    /// Rows of one chunk of logits.
    pub(super) step: usize,
}

impl<'a> Chunked<'a> {
    /// Fails if one row of logits exceeds `max_elements`, or if the gradient of a 16-bit head is
    /// requested.
    pub(super) fn new(hidden: &'a Tensor, head: Head<'a>, need: Need, max_elements: usize) -> Result<Self> {
        let (n, vocabulary) = (hidden.rows, head.weight.rows);
        assert_eq!(hidden.cols, head.weight.cols, "channels of the head");
        ensure!(
            vocabulary <= max_elements,
            "one row of logits over {vocabulary} tokens exceeds the {max_elements} elements that this device binds: use \
             `device` cpu or another GPU"
        );
        let is_f32 = head.weight.format == Format::F32;
        ensure!(!need.head || is_f32, "a head stored in 16 bits has no gradient: train it in f32");
        let step = (CHUNK_ELEMENTS.min(max_elements) / vocabulary).clamp(1, CHUNK_ROWS).min(n);
        Ok(Self { hidden, head, need, step })
    }

    /// Whether the logits must become their gradient.
    pub(super) fn needs_gradient(&self) -> bool {
        self.need.hidden || self.need.head
    }

        /// [`Chunked::gradients`], as the rule of an op with this label.
    pub(super) fn run(
        &self,
        rec: &mut Recording,
        label: &'static str,
        to_gradient: impl FnMut(&mut Recording, usize, usize, &Tensor),
    ) -> Box<dyn Op> {
        let [dhidden, dhead] = self.gradients(rec, to_gradient);
        Box::new(HeadLoss { label, dhidden, dhead, applied: Cell::new(false) })
    }

    /// Computes the logits of each chunk and the gradients that follow from theirs: those of the hidden
    /// states and of the head, as far as they are needed. In between, `to_gradient` turns the first rows
    /// of the chunk from logits into their gradient; it gets the index of the chunk's first row and the
    /// number of its rows.
    pub(super) fn gradients(
        &self,
        rec: &mut Recording,
        mut to_gradient: impl FnMut(&mut Recording, usize, usize, &Tensor),
    ) -> [Option<Tensor>; 2] {
        let Self { hidden, head, need, step } = *self;
        let (n, weight) = (hidden.rows, head.weight);
        let chunk = Tensor::transient(rec, "logits chunk", step, weight.rows);
        let dhidden = need.hidden.then(|| Tensor::transient(rec, "loss dhidden", n, hidden.cols));
        let dhead = need.head.then(|| Tensor::transient_like(rec, "loss dhead", weight));
        for first in (0..n).step_by(step) {
            let rows = step.min(n - first);
            let (logits, hidden) = (Rows::new(&chunk, 0, rows), Rows::new(hidden, first, rows));
            logits_into(rec, hidden, head, &chunk);
            to_gradient(rec, first, rows, &chunk);
            if let Some(dhidden) = &dhidden {
                matmul_nn(rec, logits, weight, Rows::new(dhidden, first, rows), head.scale, 0.0);
            }
            if let Some(dhead) = &dhead {
                matmul_tn(rec, logits, hidden, dhead, head.scale, if first == 0 { 0.0 } else { 1.0 });
            }
        }
                [dhidden, dhead]
    }
}

/// scale · Σ x [1, 1] of x `[n]`, in a fixed order.
pub(super) fn sum(rec: &mut Recording, label: &'static str, x: &Span, scale: f32) -> Tensor {
    let out = Tensor::transient(rec, label, 1, 1);
    rec.dispatch(&SUM, &[], SumParams { n: x.len as u32, scale }, &[x, out.span()], [1, 1, 1]);
    out
}

/// `loss = scale · Σ_i −log softmax(logits_i)[label_i]` with the logits of the [`Head`], output [1,
/// 1]; inputs of the rule: hidden, the head's weight.
///
/// hidden [n, channels] holds the rows with a label; labels is U32 `[n]`, and [`IGNORED`] (or any
/// value outside the vocabulary) contributes nothing. `max_elements` is the device's
/// [`crate::gpu::DeviceLimits::max_elements`]. Fails if one row of logits exceeds it, or if the
/// gradient of a 16-bit head is requested.
pub fn cross_entropy<'a>(
    rec: &mut Recording,
    hidden: &'a Tensor,
    head: impl Into<Head<'a>>,
    labels: &Span,
    scale: f32,
    need: Need,
    max_elements: usize,
) -> Result<Applied> {
    let chunks = Chunked::new(hidden, head.into(), need, max_elements)?;
    let (losses, op) = chunked_losses(rec, &chunks, labels, scale);
    Ok((vec![sum(rec, "loss", &losses, scale)], op))
}

/// `-log softmax(logits_i)[label_i]` of each row `[n]`, without gradients. The arguments and errors
/// are those of [`cross_entropy`].
pub fn row_losses<'a>(
    rec: &mut Recording,
    hidden: &'a Tensor,
    head: impl Into<Head<'a>>,
    labels: &Span,
    max_elements: usize,
) -> Result<Span> {
    let need = Need { hidden: false, head: false };
    let chunks = Chunked::new(hidden, head.into(), need, max_elements)?;
    Ok(chunked_losses(rec, &chunks, labels, 0.0).0)
}

/// Writes `-log softmax(logits_i)[label_i]` of each row to `losses`, without gradients. The labels and
/// losses of the rows begin at `first` among those of more rows. The other arguments and errors are
/// those of [`cross_entropy`].
pub fn row_losses_into<'a>(
    rec: &mut Recording,
    hidden: &'a Tensor,
    head: impl Into<Head<'a>>,
    (labels, losses, first): (&Span, &Span, usize),
    max_elements: usize,
) -> Result<()> {
    let chunks = Chunked::new(hidden, head.into(), Need { hidden: false, head: false }, max_elements)?;
    chunks.gradients(rec, to_gradient(&chunks, (labels, losses, first), 0.0));
    Ok(())
}

/// The losses of the rows, and the rule with the gradients that `chunks` needs, each times `scale`.
pub(super) fn chunked_losses(
    rec: &mut Recording,
    chunks: &Chunked<'_>,
    labels: &Span,
    scale: f32,
) -> (Span, Box<dyn Op>) {
    assert_eq!(labels.len, chunks.hidden.rows, "one label a row");
    let losses = rec.transient("row losses", Kind::Real, labels.len);
    let op = chunks.run(rec, SOFTMAX_ROWS.label, to_gradient(chunks, (labels, &losses, 0), scale));
    (losses, op)
}

/// Turns rows of logits into their losses, and into the gradient of these times `scale` if `chunks`
/// needs it. The labels and losses of the rows begin at `from`.
fn to_gradient<'a>(
    chunks: &'a Chunked<'_>,
    (labels, losses, from): (&'a Span, &'a Span, usize),
    scale: f32,
) -> impl FnMut(&mut Recording, usize, usize, &Tensor) + 'a {
    move |rec, first, rows, chunk| {
        let params = RowsParams {
            rows: rows as u32,
            cols: chunk.cols as u32,
            first_row: (from + first) as u32,
            gradient: u32::from(chunks.needs_gradient()),
            scale,
            softcap: chunks.head.softcap.unwrap_or(0.0),
        };
        rec.dispatch(&SOFTMAX_ROWS, &[], params, &[labels, chunk.span(), losses], [rows as u32, 1, 1]);
    }
}

/// A case of `n` rows, about a tenth of them ignored, in chunks of at most `chunk` rows.
fn case(name: &str, n: usize, channels: usize, vocabulary: usize, chunk: usize, head: Input) -> Case {
    case_of(name, [n, channels, vocabulary, chunk], head, (1.0, None))
}

/// [`case`] with a factor and a softcap of the logits.
fn case_of(
    name: &str,
    [n, channels, vocabulary, chunk]: [usize; 4],
    head: Input,
    (factor, softcap): (f32, Option<f32>),
) -> Case {
    let label = |(i, r): (usize, f32)| if i % 10 == 3 { IGNORED } else { (r.abs() * 1e4) as u32 % vocabulary as u32 };
    let labels = random(3, n, 1.0).into_iter().enumerate().map(label).collect();
    let need = Need { hidden: true, head: matches!(head, Input::Real { differentiable: true, .. }) };
    let inputs = vec![real(1, n, channels, 1.0), head, Input::Words(labels)];
    Case::new(format!("loss/cross_entropy: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let (hidden, head) = (&b.tensors[0], Head { weight: &b.tensors[1], scale: factor, softcap });
        let scale = 1.0 / n as f32;
        cross_entropy(rec, hidden, head, &b.words[0], scale, need, chunk * vocabulary)
            .map(|(outs, op)| (outs, Some(op)))
    })
}

/// The kernel alone on a chunk of logits in the middle of the losses, with an oversized grid. One
/// logit of each row is far above the others, each time in another column; a kernel that misses it
/// overflows. Labels are at and around the vocabulary's end.
fn rows_case(name: &str, rows: usize, cols: usize, gradient: bool, base: f32, softcap: f32) -> Case {
    const FIRST: usize = 3;
    let values = spiked(1, rows, cols).into_iter().map(|x| base + x).collect();
    let logits = Input::Real { rows, cols, format: Format::F32, values, differentiable: false };
    let label = |r: usize| [cols, cols - 1, 0, cols + 1, r * 7 % cols][r % 5] as u32;
    let labels = (0..FIRST).map(|_| 1).chain((0..rows).map(label)).chain([2, 2]).collect();
    Case::new(
        format!("loss/softmax_rows: {name}"),
        vec![logits, Input::Words(labels)],
        Tolerance::SUMS,
        move |rec, b| {
            let x = Tensor::transient(rec, "logits", rows, cols);
            copy_tensor(rec, &b.tensors[0], &x);
            let losses = rec.transient("row losses", Kind::Real, b.words[0].len);
            let (rows, gradient) = (rows as u32, u32::from(gradient));
            let params = RowsParams { rows, cols: cols as u32, first_row: FIRST as u32, gradient, scale: 0.3, softcap };
            rec.dispatch(&SOFTMAX_ROWS, &[], params, &[&b.words[0], x.span(), &losses], [rows + 2, 1, 1]);
            Ok((vec![x], None))
        },
    )
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd sizes", 37, 19, 71, 37, real(2, 71, 19, 0.5)),
        case("in chunks", 37, 19, 301, 10, real(2, 301, 19, 0.5)),
        case("one row", 1, 24, 600, 1, real(2, 600, 24, 0.5)),
        case("one of all", 1, 1, 1, 1, real(2, 1, 1, 1.0)),
        case("more rows than lanes", 1300, 61, 5, 1024, real(2, 5, 61, 0.5)),
        case("whole workgroups", 16, 32, 64, 16, real(2, 64, 32, 0.5)),
        case("large values", 5, 16, 40, 5, real(2, 40, 16, 30.0)),
        case_of("a factor of the logits", [37, 19, 301, 10], real(2, 301, 19, 0.5), (0.125, None)),
        case_of("a softcap", [37, 19, 301, 10], real(2, 301, 19, 0.5), (1.0, Some(3.0))),
        case_of("a factor and a softcap", [13, 32, 64, 16], real(2, 64, 32, 0.5), (1.5, Some(2.0))),
        rows_case("spikes", 16, 301, true, 0.0, 0.0),
        rows_case("spikes over a long row", 13, 600, true, 0.0, 0.0),
        rows_case("a softcap", 16, 301, true, 0.0, 700.0),
        rows_case("only losses", 7, 71, false, 0.0, 0.0),
        rows_case("a vocabulary beyond 16 bits", 5, 70_001, true, 0.0, 0.0),
        rows_case("far below zero", 5, 40, true, -2.5e38, 0.0),
        case("bf16 head", 9, 21, 67, 4, frozen(2, 67, 21, 0.5, Format::Bf16)),
        case("quantised head", 9, 64, 67, 4, blocks(2, 67, 64, Format::Q8_0)),
        case("bench", 512, 256, 8192, 1024, real(2, 8192, 256, 0.1)).bench(),
    ]
}
