//! The language-model head fused with the loss of preference pairs: DPO (arXiv 2305.18290) and ORPO
//! (arXiv 2403.07691).
//!
//! The loss of a pair depends on the sums of log p over its two answers, so the slope of each row is
//! known only after all rows. The head therefore passes over the rows twice: first for their losses,
//! as in [`super::loss`], then for their gradients with the slopes that a kernel made of the losses.

use rayon::prelude::*;

use super::case::{Case, Input, Tolerance, blocks, frozen, random, real, spiked};
use super::head::Head;
use super::loss::{Chunked, IGNORED, Need, chunked_losses, exp_below, exp_sum};
use super::op::Applied;
use super::parts::TREE;
use super::reduce::column_sum;
use super::rows::row_max;
use crate::simd::vectorised;
use crate::error::Result;
use crate::gpu::{Binding, DispatchView, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, Work};
use crate::tensor::{Format, Tensor, copy_tensor};
use crate::{params, wgsl};

/// The mean of log p over an answer is at most this, so that its odds stay finite.
const HIGHEST: f32 = -1e-6;

/// Columns of the statistics of a pair.
const N_STATS: usize = 4;

params! {
    /// The pairs of a batch.
    pub struct DpoParams {
        /// Pairs of the batch.
        pairs: u32,
        /// Pairs of the whole step.
        total: u32,
        /// Strength of the preference.
        beta: f32,
    }
}

params! {
    /// The pairs of a batch.
    pub struct OrpoParams {
        /// Pairs of the batch.
        pairs: u32,
        /// Pairs of the whole step.
        total: u32,
        /// Rows of the chosen sequences of the whole step.
        tokens: u32,
        /// Strength of the preference.
        beta: f32,
    }
}

params! {
    /// One chunk of rows.
    pub struct RowsParams {
        /// Rows of the chunk.
        rows: u32,
        /// Vocabulary.
        cols: u32,
        /// Index of the chunk's first row in labels and slopes.
        first_row: u32,
        /// The cap of the logits, by whose slope the gradient is multiplied; 0 for none.
        softcap: f32,
    }
}

static DPO: KernelDef = KernelDef {
    label: "preference/dpo",
    suffix: "",
    parts: &[TREE, wgsl!("preference/dpo")],
    bindings: &[
        Binding::read("losses", Kind::Real, "[n]"),
        Binding::read("reference", Kind::Real, "[n]"),
        Binding::read("bounds", Kind::U32, "[pairs, 3]"),
        Binding::write("stats", Kind::Real, "[pairs, 4]"),
        Binding::write("slopes", Kind::Real, "[n]"),
    ],
    params: DpoParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.len("losses"))),
    reference_f32: dpo_reference,
    reference_f64: dpo_reference,
};

static ORPO: KernelDef = KernelDef {
    label: "preference/orpo",
    suffix: "",
    parts: &[TREE, wgsl!("preference/orpo")],
    bindings: &[
        Binding::read("losses", Kind::Real, "[n]"),
        Binding::read("answers", Kind::U32, "[n]"),
        Binding::read("bounds", Kind::U32, "[pairs, 3]"),
        Binding::write("stats", Kind::Real, "[pairs, 4]"),
        Binding::write("slopes", Kind::Real, "[n]"),
    ],
    params: OrpoParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.len("losses"))),
    reference_f32: orpo_reference,
    reference_f64: orpo_reference,
};

/// The maximum needs comparisons only, so it counts no operations.
fn row_gradients_work(d: &mut DispatchView<'_>) -> Result<Work> {
    let [rows, cols] = ["rows", "cols"].map(|name| d.param(name));
    Ok(Work { flops: 6 * rows * cols, bytes: 4 * rows * (2 + 2 * cols) })
}

static ROW_GRADIENTS: KernelDef = KernelDef {
    label: "preference/row_gradients",
    suffix: "",
    parts: &[TREE, wgsl!("preference/row_gradients")],
    bindings: &[
        Binding::read("labels", Kind::U32, "[n]"),
        Binding::read("slopes", Kind::Real, "[n]"),
        Binding::read_write("x", Kind::Real, "[rows, cols]"),
    ],
    params: RowsParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: row_gradients_work,
    reference_f32: row_gradients_reference,
    reference_f64: row_gradients_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [&DPO, &ORPO, &ROW_GRADIENTS].map(|k| (k, vec![])).to_vec()
}

/// −log sigmoid(x), and sigmoid(−x).
fn log_loss<T: Real>(x: T) -> [T; 2] {
    let small = exp_below(-x.max(-x), T::ZERO);
    let loss = (-x).max(T::ZERO) + (T::ONE + small).ln();
    let top = if x < T::ZERO { T::ONE } else { small };
    [loss, top / (T::ONE + small)]
}

/// The sum of some values, in f64 for any T.
fn total<T: Real>(values: impl Iterator<Item = T>) -> T {
    T::from_f64(values.map(T::to_f64).sum())
}

fn is_higher<T: Real>(a: T, b: T) -> T {
    if a > b { T::ONE } else { T::ZERO }
}

fn dpo_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: DpoParams = args.params();
    let [losses, reference, bounds, stats, slopes] = args.buffers();
    let (losses, reference, bounds) = (losses.real(), reference.real(), bounds.u32());
    let (stats, slopes) = (stats.real_mut(), slopes.real_mut());
    let (beta, n) = (T::of(p.beta), T::from_f64(f64::from(p.total)));
    for (pair, stats) in stats.chunks_exact_mut(N_STATS).take(p.pairs as usize).enumerate() {
        let [first, middle, end] = [0, 1, 2].map(|i| bounds[3 * pair + i] as usize);
        let reward = |from: usize, to: usize| beta * total((from..to).map(|i| reference[i] - losses[i]));
        let (chosen, rejected) = (reward(first, middle), reward(middle, end));
        let [loss, wrong] = log_loss(chosen - rejected);
        stats.copy_from_slice(&[loss / n, chosen, rejected, is_higher(chosen, rejected)]);
        let slope = beta * wrong / n;
        slopes[first..middle].fill(slope);
        slopes[middle..end].fill(-slope);
    }
}

/// 1 - e^x for x < 0. Near 0, where the difference cancels, by its series.
fn one_minus_exp<T: Real>(x: T) -> T {
    if x > T::of(-0.02) {
        let over = |n: f32| x / T::of(n);
        return -x * (T::ONE + over(2.0) * (T::ONE + over(3.0) * (T::ONE + over(4.0) * (T::ONE + over(5.0)))));
    }
    T::ONE - exp_below(x, T::ZERO)
}

fn orpo_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: OrpoParams = args.params();
    let [losses, answers, bounds, stats, slopes] = args.buffers();
    let (losses, answers, bounds) = (losses.real(), answers.u32(), bounds.u32());
    let (stats, slopes) = (stats.real_mut(), slopes.real_mut());
    let number = |n: u32| T::from_f64(f64::from(n));
    let (beta, n, tokens) = (T::of(p.beta), number(p.total), number(p.tokens));
    for (pair, stats) in stats.chunks_exact_mut(N_STATS).take(p.pairs as usize).enumerate() {
        let [first, middle, end] = [0, 1, 2].map(|i| bounds[3 * pair + i] as usize);
        let count = |from: usize, to: usize| number(answers[from..to].iter().sum::<u32>().max(1));
        let mean = |from: usize, to: usize| {
            let sum = total((from..to).filter(|&i| answers[i] == 1).map(|i| losses[i]));
            (-sum / count(from, to)).min(T::of(HIGHEST))
        };
        let (chosen, rejected) = (mean(first, middle), mean(middle, end));
        let (not_chosen, not_rejected) = (one_minus_exp(chosen), one_minus_exp(rejected));
        let [ratio, wrong] = log_loss(chosen - rejected - (not_chosen.ln() - not_rejected.ln()));
        let nll = total((first..middle).map(|i| losses[i])) / tokens;
        stats.copy_from_slice(&[beta * ratio / n + nll, beta * chosen, beta * rejected, is_higher(chosen, rejected)]);
        let slope = beta * wrong / n;
        let of_chosen = slope / (not_chosen * count(first, middle));
        let of_rejected = -slope / (not_rejected * count(middle, end));
        for i in first..end {
            let (of_answer, of_all) = if i < middle { (of_chosen, T::ONE / tokens) } else { (of_rejected, T::ZERO) };
            slopes[i] = number(answers[i]) * of_answer + of_all;
        }
    }
}

fn row_gradients_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: RowsParams = args.params();
    let [labels, slopes, x] = args.buffers();
    let (rows, cols, first) = (p.rows as usize, p.cols as usize, p.first_row as usize);
    let (labels, slopes) = (&labels.u32()[first..first + rows], &slopes.real()[first..first + rows]);
    let chunk = x.real_mut()[..rows * cols].par_chunks_mut(cols);
    chunk.zip(labels).zip(slopes).for_each(|((row, &label), &slope)| {
        row_gradient(row, label as usize, [slope, T::of(p.softcap)]);
    });
}

vectorised! {
    /// Replaces a row of logits by the gradient of its loss times a factor. `factors` are the factor
    /// and the softcap.
    fn row_gradient<T: Real>(row: &mut [T], label: usize, factors: [T; 2]) {
        let [factor, cap] = factors;
        let highest = row_max(row);
        let sum = exp_sum(row, highest);
        let hit = row.get(label).copied();
        let factor = if hit.is_some() { factor } else { T::ZERO };
        let steepness = if cap > T::ZERO { T::ONE / cap } else { T::ZERO };
        let slope = |y: T| T::ONE - (y * steepness) * (y * steepness);
        for i in 0..row.len() {
            row[i] = factor * slope(row[i]) * (exp_below(row[i], highest) / sum);
        }
        if let Some(x) = hit {
            row[label] = factor * slope(x) * (exp_below(x, highest) / sum - T::ONE);
        }
    }
}

/// The rows of some pairs on the device. Those of a pair lie together, the chosen sequence first.
#[derive(Clone, Copy, Debug)]
pub struct PairRows<'a> {
    /// U32 `[n]`: the label of each row.
    pub labels: &'a Span,
    /// U32 [pairs, 3]: the first row of each chosen sequence, that of the rejected one, and the end
    /// of both.
    pub bounds: &'a Span,
    /// U32 `[n]`: 1 in the rows of an answer, 0 in those of a chosen sequence's prompt.
    pub answers: &'a Span,
}

/// The loss of a pair.
#[derive(Clone, Copy, Debug)]
pub enum PairLoss<'a> {
    /// Direct preference optimisation. All rows belong to answers.
    Dpo {
        /// Real `[n]`: −log p(label) of the reference model.
        reference: &'a Span,
    },
    /// Odds-ratio preference optimisation.
    Orpo {
        /// Rows of the chosen sequences of the whole step.
        tokens: usize,
    },
}

/// The factors of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairFactors {
    /// Strength of the preference.
    pub beta: f32,
    /// Pairs of the whole step, by which the sum over the pairs is divided.
    pub total: usize,
}

/// The loss [1, 1] of some pairs, their part of the mean over the step; inputs of the rule: hidden,
/// the head's weight. Also returns the sums [1, 4] over the pairs: the loss, the rewards of the
/// chosen and of the rejected answers, and the number of pairs whose chosen answer has the higher
/// reward.
///
/// hidden [n, channels] holds the rows of the pairs. With log p(y) the sum over the rows of an
/// answer:
///
/// - DPO: loss = −log σ(reward(chosen) − reward(rejected)) with reward(y) = beta · (log p(y) − log
///   p_reference(y)).
/// - ORPO: loss = −log p(chosen sequence) / tokens − beta · log σ(log odds(chosen) − log
///   odds(rejected)) with odds(y) = q / (1 − q), q = exp(mean log p of a row of y), and reward(y) =
///   beta · log q. The mean is at most −10⁻⁶.
///
/// The errors are those of [`super::loss::cross_entropy`].
pub fn preference<'a>(
    rec: &mut Recording,
    (hidden, head): (&'a Tensor, Head<'a>),
    rows: PairRows<'_>,
    loss: PairLoss<'_>,
    factors: PairFactors,
    need: Need,
    max_elements: usize,
) -> Result<(Applied, Tensor)> {
    let PairRows { labels, bounds, answers } = rows;
    let (n, n_pairs) = (hidden.rows, bounds.len / 3);
    assert_eq!((answers.len, bounds.len), (n, 3 * n_pairs), "a mark for each row and three bounds for each pair");
    let nothing = Need { hidden: false, head: false };
    let forward = Chunked::new(hidden, head, nothing, max_elements)?;
    let (losses, no_gradients) = chunked_losses(rec, &forward, labels, 0.0);
    let stats = Tensor::transient(rec, "statistics of pairs", n_pairs, N_STATS);
    let slopes = rec.transient("slopes of rows", Kind::Real, n);
    let (pairs, total, beta) = (n_pairs as u32, factors.total as u32, factors.beta);
    let grid = [pairs, 1, 1];
    match loss {
        PairLoss::Dpo { reference } => {
            let spans = [&losses, reference, bounds, stats.span(), &slopes];
            rec.dispatch(&DPO, &[], DpoParams { pairs, total, beta }, &spans, grid);
        }
        PairLoss::Orpo { tokens } => {
            let spans = [&losses, answers, bounds, stats.span(), &slopes];
            rec.dispatch(&ORPO, &[], OrpoParams { pairs, total, tokens: tokens as u32, beta }, &spans, grid);
        }
    }
    let sums = column_sum(rec, &stats);
    let out = Tensor::from_span(sums.span().prefix(1), 1, 1);
    let chunks = Chunked::new(hidden, head, need, max_elements)?;
    if !chunks.needs_gradient() {
        return Ok(((vec![out], no_gradients), sums));
    }
    let op = chunks.run(rec, ROW_GRADIENTS.label, |rec, first, rows, chunk| {
        let (rows, cols, first_row) = (rows as u32, chunk.cols as u32, first as u32);
        let params = RowsParams { rows, cols, first_row, softcap: head.softcap.unwrap_or(0.0) };
        rec.dispatch(&ROW_GRADIENTS, &[], params, &[labels, &slopes, chunk.span()], [rows, 1, 1]);
    });
    Ok(((vec![out], op), sums))
}

/// Which loss a case computes.
#[derive(Clone, Copy)]
enum Kinds {
    Dpo,
    Orpo,
}

/// The bounds of pairs whose sequences have these numbers of rows.
fn bounds_of(lengths: &[[usize; 2]]) -> Vec<u32> {
    let mut first = 0;
    let bounds = lengths.iter().flat_map(|&[chosen, rejected]| {
        let start = first;
        first += chosen + rejected;
        [start, start + chosen, first].map(|row| row as u32)
    });
    bounds.collect()
}

/// Marks of answers: all rows, but with ORPO the first half of each chosen sequence.
fn answers_of(lengths: &[[usize; 2]], kind: Kinds) -> Vec<u32> {
    let marks = |&[chosen, rejected]: &[usize; 2]| {
        let n_prompt = if matches!(kind, Kinds::Orpo) { chosen / 2 } else { 0 };
        (0..chosen + rejected).map(move |i| u32::from(i >= n_prompt))
    };
    lengths.iter().flat_map(marks).collect()
}

/// The op on pairs of these lengths; sizes are channels, vocabulary, and the most rows of a chunk.
fn case(
    name: &str,
    kind: Kinds,
    lengths: &[[usize; 2]],
    [channels, vocabulary, chunk]: [usize; 3],
    head: Input,
    softcap: Option<f32>,
) -> Case {
    let n: usize = lengths.iter().flatten().sum();
    let labels = random(3, n, 1.0).into_iter().map(|r| (r.abs() * 1e4) as u32 % vocabulary as u32).collect();
    let need = Need { hidden: true, head: matches!(head, Input::Real { differentiable: true, .. }) };
    let reference = random(4, n, 1.0).into_iter().map(|r| (vocabulary as f32).ln() + 0.3 * r).collect();
    let reference = Input::Real { rows: 1, cols: n, format: Format::F32, values: reference, differentiable: false };
    let words = [labels, bounds_of(lengths), answers_of(lengths, kind)].map(Input::Words);
    let inputs = [real(1, n, channels, 1.0), head, reference].into_iter().chain(words).collect();
    let (factors, tokens) = (PairFactors { beta: 0.3, total: lengths.len() + 1 }, n);
    let called = if matches!(kind, Kinds::Dpo) { "dpo" } else { "orpo" };
    Case::new(format!("preference/{called}: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let [hidden, weight, reference] = [0, 1, 2].map(|i| &b.tensors[i]);
        let [labels, bounds, answers] = [0, 1, 2].map(|i| &b.words[i]);
        let head = Head { weight, scale: 1.0, softcap };
        let loss = match kind {
            Kinds::Dpo => PairLoss::Dpo { reference: reference.span() },
            Kinds::Orpo => PairLoss::Orpo { tokens },
        };
        let rows = PairRows { labels, bounds, answers };
        preference(rec, (hidden, head), rows, loss, factors, need, chunk * vocabulary)
            .map(|((outs, op), _)| (outs, Some(op)))
    })
}

/// The kernel of a loss alone, with an oversized grid, on rows with these losses and those of a
/// reference.
fn pairs_case(name: &str, kind: Kinds, lengths: &[[usize; 2]], beta: f32, [losses, reference]: [Vec<f32>; 2]) -> Case {
    let input = |values: Vec<f32>| Input::Real {
        rows: 1,
        cols: values.len(),
        format: Format::F32,
        values,
        differentiable: false,
    };
    let words = [bounds_of(lengths), answers_of(lengths, kind)].map(Input::Words);
    let inputs = [losses, reference].map(input).into_iter().chain(words).collect();
    let n_pairs = lengths.len();
    Case::new(format!("preference/pairs: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let stats = Tensor::transient(rec, "statistics of pairs", n_pairs, N_STATS);
        let slopes = Tensor::transient(rec, "slopes of rows", 1, b.tensors[0].cols);
        let (pairs, total, grid) = (n_pairs as u32, 7, [n_pairs as u32 + 2, 1, 1]);
        let [losses, reference] = [0, 1].map(|i| b.tensors[i].span());
        match kind {
            Kinds::Dpo => {
                let spans = [losses, reference, &b.words[0], stats.span(), slopes.span()];
                rec.dispatch(&DPO, &[], DpoParams { pairs, total, beta }, &spans, grid);
            }
            Kinds::Orpo => {
                let spans = [losses, &b.words[1], &b.words[0], stats.span(), slopes.span()];
                rec.dispatch(&ORPO, &[], OrpoParams { pairs, total, tokens: 900, beta }, &spans, grid);
            }
        }
        Ok((vec![stats, slopes], None))
    })
}

/// The kernel of the gradient alone on a chunk of spiked logits in the middle of the rows, with an
/// oversized grid and labels at and around the vocabulary's end.
fn rows_case(name: &str, rows: usize, cols: usize, softcap: f32) -> Case {
    const FIRST: usize = 3;
    let logits = Input::Real { rows, cols, format: Format::F32, values: spiked(1, rows, cols), differentiable: false };
    let label = |r: usize| [cols, cols - 1, 0, IGNORED as usize, r * 7 % cols][r % 5] as u32;
    let labels: Vec<u32> = (0..FIRST).map(|_| 1).chain((0..rows).map(label)).chain([2, 2]).collect();
    let slopes = real(5, 1, labels.len(), 1.0).frozen();
    let inputs = vec![logits, slopes, Input::Words(labels)];
    Case::new(format!("preference/row_gradients: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let x = Tensor::transient(rec, "logits", rows, cols);
        copy_tensor(rec, &b.tensors[0], &x);
        let params = RowsParams { rows: rows as u32, cols: cols as u32, first_row: FIRST as u32, softcap };
        rec.dispatch(
            &ROW_GRADIENTS,
            &[],
            params,
            &[&b.words[0], b.tensors[1].span(), x.span()],
            [rows as u32 + 2, 1, 1],
        );
        Ok((vec![x], None))
    })
}

/// Losses of rows as large as `size`, and those of a reference near to them.
fn near(n: usize, size: f32) -> [Vec<f32>; 2] {
    let losses: Vec<f32> = random(1, n, size).into_iter().map(f32::abs).collect();
    let reference = losses.iter().zip(random(2, n, 0.2)).map(|(l, d)| l + d).collect();
    [losses, reference]
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    use Kinds::{Dpo, Orpo};
    let (few, many) = ([[5, 9], [1, 1], [12, 3]], [[300, 40], [7, 600], [256, 256]]);
    let (n_few, n_many) = (31, 1459);
    let mut cases = Vec::new();
    for kind in [Dpo, Orpo] {
        cases.extend([
            case("odd sizes", kind, &few, [19, 71, 37], real(2, 71, 19, 0.5), None),
            case("in chunks", kind, &few, [19, 301, 10], real(2, 301, 19, 0.5), None),
            case("one pair of one row", kind, &[[1, 1]], [24, 60, 1], real(2, 60, 24, 0.5), None),
            case("a frozen head", kind, &few, [19, 301, 10], frozen(2, 301, 19, 0.5, Format::F32), None),
            case("a softcap", kind, &few, [19, 301, 10], real(2, 301, 19, 0.5), Some(3.0)),
            case("quantised head", kind, &few, [64, 67, 4], blocks(2, 67, 64, Format::Q8_0), None),
        ]);
    }
    let distant = |n: usize| [vec![0.4; n], vec![5.0; n]];
    cases.extend([
        pairs_case("dpo", Dpo, &few, 0.1, near(n_few, 3.0)),
        pairs_case("dpo, more rows than lanes", Dpo, &many, 0.1, near(n_many, 3.0)),
        pairs_case("dpo, large margins", Dpo, &[[9, 2], [2, 9], [4, 4]], 3.0, distant(30)),
        pairs_case("orpo", Orpo, &few, 0.1, near(n_few, 3.0)),
        pairs_case("orpo, more rows than lanes", Orpo, &many, 0.1, near(n_many, 3.0)),
        pairs_case("orpo, almost certain", Orpo, &few, 0.7, near(n_few, 0.01)),
        pairs_case("orpo, certain", Orpo, &few, 0.7, near(n_few, 0.0)),
        pairs_case("orpo, almost impossible", Orpo, &few, 0.7, near(n_few, 90.0)),
        rows_case("spikes", 16, 301, 0.0),
        rows_case("spikes over a long row", 13, 600, 0.0),
        rows_case("a softcap", 16, 301, 700.0),
        rows_case("a vocabulary beyond 16 bits", 5, 70_001, 0.0),
        case("bench", Dpo, &[[256, 256]], [256, 8192, 1024], frozen(2, 8192, 256, 0.1, Format::F32), None).bench(),
        case("bench", Orpo, &[[256, 256]], [256, 8192, 1024], frozen(2, 8192, 256, 0.1, Format::F32), None).bench(),
    ]);
    cases
}
