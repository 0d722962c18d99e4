//! The language-model head fused with the loss of distillation: a student's cross-entropy and its
//! divergence from a teacher.
//!
//! As in [`super::loss`], the vocabulary never meets all tokens: student and teacher come as hidden
//! states, and each chunk of rows makes the logits of both.

use rayon::prelude::*;

use super::case::{Case, Input, Tolerance, blocks, frozen, random, real, spiked};
use super::elementwise::add_into;
use super::head::{Head, logits_into};
use super::loss::{Chunked, IGNORED, LOWEST_EXPONENT, Need, SUM_RUN, exp_below, exp_sum, sum};
use super::matmul::Rows;
use super::op::Applied;
use super::parts::TREE;
use super::rows::{SUM_LANES, row_max};
use crate::simd::vectorised;
use crate::error::Result;
use crate::gpu::{Binding, DispatchView, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, Work};
use crate::tensor::{Format, Tensor, copy_tensor};
use crate::{params, wgsl};

params! {
    /// One chunk of rows.
    pub struct RowsParams {
        /// Rows of the chunk.
        rows: u32,
        /// Vocabulary.
        cols: u32,
        /// Index of the chunk's first row in labels and losses.
        first_row: u32,
        /// 1 to overwrite the student's logits with their gradient.
        gradient: u32,
        /// Factor of the cross-entropy's gradient.
        ce_scale: f32,
        /// Factor of the divergence's gradient.
        kl_scale: f32,
        /// The cap of the logits, by whose slope the gradient is multiplied; 0 for none.
        softcap: f32,
    }
}

/// The maxima need comparisons only, so they count no operations. If the gradient is requested, it
/// overwrites the student's logits.
fn distill_rows_work(d: &mut DispatchView<'_>) -> Result<Work> {
    let [rows, cols, gradient] = ["rows", "cols", "gradient"].map(|name| d.param(name));
    Ok(Work { flops: (11 + 6 * gradient) * rows * cols, bytes: 4 * rows * (3 + cols * (2 + gradient)) })
}

static DISTILL_ROWS: KernelDef = KernelDef {
    label: "distill/distill_rows",
    suffix: "",
    parts: &[TREE, wgsl!("distill/distill_rows")],
    bindings: &[
        Binding::read("labels", Kind::U32, "[n]"),
        Binding::read("teacher", Kind::Real, "[rows, cols]"),
        Binding::read_write("x", Kind::Real, "[rows, cols]"),
        Binding::read_write("ce", Kind::Real, "[n]"),
        Binding::read_write("kl", Kind::Real, "[n]"),
    ],
    params: RowsParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: distill_rows_work,
    reference_f32: distill_rows_reference,
    reference_f64: distill_rows_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&DISTILL_ROWS, vec![])]
}

fn distill_rows_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: RowsParams = args.params();
    let [labels, teacher, x, ce, kl] = args.buffers();
    let (rows, cols, first) = (p.rows as usize, p.cols as usize, p.first_row as usize);
    let labels = &labels.u32()[first..first + rows];
    let (ce, kl) = (&mut ce.real_mut()[first..first + rows], &mut kl.real_mut()[first..first + rows]);
    let chunk = x.real_mut()[..rows * cols].par_chunks_mut(cols).zip(teacher.real()[..rows * cols].par_chunks(cols));
    let factors = [p.ce_scale, p.kl_scale, p.softcap].map(T::of);
    chunk.zip(labels).zip(ce).zip(kl).for_each(|((((row, teacher), &label), ce), kl)| {
        [*ce, *kl] = distill_row(row, teacher, label as usize, p.gradient == 1, factors);
    });
}

/// Σ exp(t - t_top) ((t - t_top) - (x - top) + shift), without tokens that the teacher rules out.
/// Sums short runs in T and the runs in f64, as [`exp_sum`] does.
#[allow(clippy::needless_range_loop)] // see simd/vectorised.rs
#[inline(always)]
fn divergence_sum<T: Real>(row: &[T], teacher: &[T], [top, teacher_top, shift]: [T; 3]) -> T {
    let (xs, x_rest) = row.as_chunks::<SUM_LANES>();
    let (ts, t_rest) = teacher.as_chunks::<SUM_LANES>();
    let n = if xs.len() < ts.len() { xs.len() } else { ts.len() };
    let mut sum = 0.0;
    let mut i = 0;
    while i < n {
        let end = n.min(i + SUM_RUN);
        let mut lanes = [T::ZERO; SUM_LANES];
        while i < end {
            for l in 0..SUM_LANES {
                lanes[l] += divergence_term(xs[i][l] - top, ts[i][l] - teacher_top, shift);
            }
            i += 1;
        }
        for l in 0..SUM_LANES {
            sum += lanes[l].to_f64();
        }
    }
    for i in 0..x_rest.len() {
        sum += divergence_term(x_rest[i] - top, t_rest[i] - teacher_top, shift).to_f64();
    }
    T::from_f64(sum)
}

#[inline(always)]
fn divergence_term<T: Real>(x: T, teacher: T, shift: T) -> T {
    let term = exp_below(teacher, T::ZERO) * (teacher - x + shift);
    if teacher < T::of(LOWEST_EXPONENT) { T::ZERO } else { term }
}

vectorised! {
    /// Cross-entropy and divergence of one row of the student's logits; replaces them by their
    /// gradient if `gradient` is set. `factors` are the scales of the two gradients, and the
    /// softcap.
    fn distill_row<T: Real>(row: &mut [T], teacher: &[T], label: usize, gradient: bool, factors: [T; 3]) -> [T; 2] {
        let [ce_scale, kl_scale, cap] = factors;
        let (top, teacher_top) = (row_max(row), row_max(teacher));
        let (sum, teacher_sum) = (exp_sum(row, top), exp_sum(teacher, teacher_top));
        let shift = (sum / teacher_sum).ln();
        let kl = divergence_sum(row, teacher, [top, teacher_top, shift]) / teacher_sum;
        let hit = row.get(label).copied();
        if gradient {
            let ce_scale = if hit.is_some() { ce_scale } else { T::ZERO };
            let steepness = if cap > T::ZERO { T::ONE / cap } else { T::ZERO };
            let slope = |y: T| T::ONE - (y * steepness) * (y * steepness);
            for i in 0..row.len() {
                let (p, q) = (exp_below(row[i], top) / sum, exp_below(teacher[i], teacher_top) / teacher_sum);
                row[i] = slope(row[i]) * (ce_scale * p + kl_scale * (p - q));
            }
            if let Some(x) = hit {
                let (p, q) = (exp_below(x, top) / sum, exp_below(teacher[label], teacher_top) / teacher_sum);
                row[label] = slope(x) * (ce_scale * (p - T::ONE) + kl_scale * (p - q));
            }
        }
        let ce = match hit {
            Some(x) => sum.ln() + (top - x),
            None => T::ZERO,
        };
        [ce, kl]
    }
}

/// Factors of the two parts of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Of each row's cross-entropy.
    pub ce: f32,
    /// Of each row's divergence.
    pub kl: f32,
}

/// The two parts of a loss [1, 1], summed over the rows without their scales.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Σ of the rows' cross-entropy.
    pub ce: Tensor,
    /// Σ of the rows' divergence.
    pub kl: Tensor,
}

/// `loss = Σ_i ce_i · (−log p_i[label_i]) + kl · Σ_v q_i[v] (log q_i[v] − log p_i[v])`, output [1,
/// 1], with the softmax p of the student's logits and q of the teacher's; inputs of the rule: the
/// student's hidden states, and the weight of its head. The teacher gets no gradient.
///
/// Student and teacher are hidden states [n, channels] with the [`Head`] that makes their logits.
/// labels is U32 `[n]`. A row with [`IGNORED`] (or any value outside the vocabulary) has no
/// cross-entropy and counts in the divergence. `max_elements` and the errors are those of
/// [`super::loss::cross_entropy`].
pub fn distillation<'a>(
    rec: &mut Recording,
    (hidden, head): (&'a Tensor, Head<'a>),
    (teacher, teacher_head): (&Tensor, Head<'_>),
    labels: &Span,
    scales: Scales,
    need: Need,
    max_elements: usize,
) -> Result<(Applied, Parts)> {
    let chunks = Chunked::new(hidden, head, need, max_elements)?;
    let (n, vocabulary) = (hidden.rows, head.weight.rows);
    assert_eq!((labels.len, teacher.rows), (n, n), "a label and a row of the teacher for each row");
    assert_eq!(teacher_head.weight.rows, vocabulary, "student and teacher share the vocabulary");
    let [ce, kl] = ["row cross-entropies", "row divergences"].map(|label| rec.transient(label, Kind::Real, n));
    let teacher_chunk = Tensor::transient(rec, "teacher's logits chunk", chunks.step, vocabulary);
    let op = chunks.run(rec, DISTILL_ROWS.label, |rec, first, rows, chunk| {
        logits_into(rec, Rows::new(teacher, first, rows), teacher_head, &teacher_chunk);
        let params = RowsParams {
            rows: rows as u32,
            cols: vocabulary as u32,
            first_row: first as u32,
            gradient: u32::from(chunks.needs_gradient()),
            ce_scale: scales.ce,
            kl_scale: scales.kl,
            softcap: head.softcap.unwrap_or(0.0),
        };
        let spans = [labels, teacher_chunk.span(), chunk.span(), &ce, &kl];
        rec.dispatch(&DISTILL_ROWS, &[], params, &spans, [rows as u32, 1, 1]);
    });
    let loss = sum(rec, "loss", &ce, scales.ce);
    let weighted = sum(rec, "scaled divergence", &kl, scales.kl);
    add_into(rec, &weighted, &loss);
    let parts = Parts { ce: sum(rec, "cross-entropy", &ce, 1.0), kl: sum(rec, "divergence", &kl, 1.0) };
    Ok(((vec![loss], op), parts))
}

/// The sizes of a case: rows, channels, vocabulary, and the most rows of a chunk.
type Sizes = [usize; 4];

/// A case with about a tenth of the rows ignored. The teacher has a head of its own if the
/// student's is trained, because its logits must not depend on what is differentiated.
fn case(name: &str, sizes: Sizes, head: Input) -> Case {
    case_of(name, sizes, head, (1.0, None))
}

/// [`case`] with a factor and a softcap of the logits.
fn case_of(
    name: &str,
    [n, channels, vocabulary, chunk]: Sizes,
    head: Input,
    (factor, softcap): (f32, Option<f32>),
) -> Case {
    let label = |(i, r): (usize, f32)| if i % 10 == 3 { IGNORED } else { (r.abs() * 1e4) as u32 % vocabulary as u32 };
    let labels = random(3, n, 1.0).into_iter().enumerate().map(label).collect();
    let need = Need { hidden: true, head: matches!(head, Input::Real { differentiable: true, .. }) };
    let teacher = frozen(4, n, channels, 0.9, Format::F32);
    let teacher_head = frozen(5, vocabulary, channels, 0.5, Format::F32);
    let inputs = vec![real(1, n, channels, 1.0), head, teacher, teacher_head, Input::Words(labels)];
    Case::new(format!("distill/distillation: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let [hidden, weight, teacher, teacher_weight] = [0, 1, 2, 3].map(|i| &b.tensors[i]);
        let head = Head { weight, scale: factor, softcap };
        let teacher_weight = if need.head { teacher_weight } else { weight };
        let teacher = (teacher, Head { weight: teacher_weight, ..head });
        let scales = Scales { ce: 0.4 / n as f32, kl: 0.6 / n as f32 };
        distillation(rec, (hidden, head), teacher, &b.words[0], scales, need, chunk * vocabulary)
            .map(|((outs, op), _)| (outs, Some(op)))
    })
}

/// The kernel alone on a chunk of logits in the middle of the losses, with an oversized grid. One
/// logit of each row is far above the others, in other columns for the teacher than for the
/// student; a kernel that misses one overflows. Labels are at and around the vocabulary's end.
fn rows_case(name: &str, rows: usize, cols: usize, gradient: bool, logits: [Vec<f32>; 2], softcap: f32) -> Case {
    const FIRST: usize = 3;
    let input = |values| Input::Real { rows, cols, format: Format::F32, values, differentiable: false };
    let label = |r: usize| [cols, cols - 1, 0, cols + 1, r * 7 % cols][r % 5] as u32;
    let labels = (0..FIRST).map(|_| 1).chain((0..rows).map(label)).chain([2, 2]).collect();
    let [student, teacher] = logits.map(input);
    let inputs = vec![student, teacher, Input::Words(labels)];
    Case::new(format!("distill/distill_rows: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let x = Tensor::transient(rec, "logits", rows, cols);
        copy_tensor(rec, &b.tensors[0], &x);
        let [ce, kl] = ["row cross-entropies", "row divergences"]
            .map(|label| rec.transient(label, Kind::Real, b.words[0].len));
        let (rows, gradient) = (rows as u32, u32::from(gradient));
        let (ce_scale, kl_scale, cols, first_row) = (0.3, 0.7, cols as u32, FIRST as u32);
        let params = RowsParams { rows, cols, first_row, gradient, ce_scale, kl_scale, softcap };
        let spans = [&b.words[0], b.tensors[1].span(), x.span(), &ce, &kl];
        rec.dispatch(&DISTILL_ROWS, &[], params, &spans, [rows + 2, 1, 1]);
        Ok((vec![x], None))
    })
}

/// Spiked logits of a student, and of a teacher whose spikes are in the columns of other rows.
fn spikes(rows: usize, cols: usize, base: f32) -> [Vec<f32>; 2] {
    let student: Vec<f32> = spiked(1, rows, cols).into_iter().map(|x| base + x).collect();
    let mut teacher: Vec<f32> = spiked(2, rows, cols).into_iter().map(|x| base + x).collect();
    teacher.rotate_right(cols);
    [student, teacher]
}

/// Logits near the lowest number, of which one in each row is far above the others.
fn lone(rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| if i % cols == i / cols * 7 % cols { -2.0e38 } else { -2.5e38 }).collect()
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let near = |n: usize| [random(1, n, 3.0), random(2, n, 3.0)];
    let same = spikes(7, 301, 0.0)[0].clone();
    vec![
        case("odd sizes", [37, 19, 71, 37], real(2, 71, 19, 0.5)),
        case("in chunks", [37, 19, 301, 10], real(2, 301, 19, 0.5)),
        case("one row", [1, 24, 600, 1], real(2, 600, 24, 0.5)),
        case("one of all", [1, 1, 1, 1], real(2, 1, 1, 1.0)),
        case("more rows than lanes", [1300, 61, 5, 1024], real(2, 5, 61, 0.5)),
        case("large values", [5, 16, 40, 5], real(2, 40, 16, 30.0)),
        case("a frozen head", [37, 19, 301, 10], frozen(2, 301, 19, 0.5, Format::F32)),
        case_of("a factor of the logits", [37, 19, 301, 10], real(2, 301, 19, 0.5), (0.125, None)),
        case_of("a factor and a softcap", [13, 32, 64, 16], real(2, 64, 32, 0.5), (1.5, Some(2.0))),
        case("bf16 head", [9, 21, 67, 4], frozen(2, 67, 21, 0.5, Format::Bf16)),
        case("quantised head", [9, 64, 67, 4], blocks(2, 67, 64, Format::Q8_0)),
        rows_case("near", 13, 600, true, near(13 * 600), 0.0),
        rows_case("spikes", 16, 301, true, spikes(16, 301, 0.0), 0.0),
        rows_case("spikes and a softcap", 16, 301, true, spikes(16, 301, 0.0), 700.0),
        rows_case("a softcap below 1", 13, 100, true, [random(1, 1300, 0.4), random(2, 1300, 0.4)], 0.5),
        rows_case("only losses", 7, 71, false, near(7 * 71), 0.0),
        rows_case("equal rows", 7, 301, true, [same.clone(), same], 0.0),
        rows_case("a vocabulary beyond 16 bits", 5, 70_001, true, near(5 * 70_001), 0.0),
        rows_case("far below zero", 5, 40, true, spikes(5, 40, -2.5e38), 0.0),
        rows_case("a teacher far below zero", 5, 40, true, [random(1, 200, 3.0), lone(5, 40)], 0.0),
        case("bench", [512, 256, 8192, 1024], frozen(2, 8192, 256, 0.1, Format::F32)).bench(),
    ]
}
