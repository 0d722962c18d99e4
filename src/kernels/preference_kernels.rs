//! The kernels of preference pairs: definitions, parameters, and references.

use rayon::prelude::*;

use super::loss::{exp_below, softmax_row};
use super::parts::TREE;
use crate::error::Result;
use crate::gpu::{Binding, DispatchView, KernelArgs, KernelDef, Kind, Params as _, Real, Work};
use crate::{params, wgsl};

/// The mean of log p over an answer is at most this, so that its odds stay finite.
const HIGHEST: f32 = -1e-6;

/// Columns of the statistics of a pair.
pub(super) const N_STATS: usize = 4;

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

pub(super) static DPO: KernelDef = KernelDef {
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

pub(super) static ORPO: KernelDef = KernelDef {
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

pub(super) static ROW_GRADIENTS: KernelDef = KernelDef {
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
        softmax_row(row, label as usize, true, [slope, T::of(p.softcap)]);
    });
}
