//! The language-model head fused with the loss of preference pairs: DPO (arXiv 2305.18290) and ORPO
//! (arXiv 2403.07691).
//!
//! The loss of a pair depends on the sums of log p over its two answers, so the slope of each row is
//! known only after all rows. The head therefore passes over the rows twice: first for their losses,
//! as in [`super::loss`], then for their gradients with the slopes that a kernel made of the losses.
//! `preference_kernels.rs` defines the kernels.

use super::case::{Case, Input, Tolerance, blocks, frozen, random, real, spiked};
use super::head::Head;
use super::loss::{Chunked, IGNORED, Need, chunked_losses};
use super::op::Applied;
use super::preference_kernels::{DPO, DpoParams, N_STATS, ORPO, OrpoParams, ROW_GRADIENTS, RowsParams};
use super::reduce::column_sum;
use crate::error::Result;
use crate::gpu::{Kind, Recording, Span};
use crate::tensor::{Format, Tensor, copy_tensor};

pub use super::preference_kernels::kernels;

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
    let n = hidden.rows;
    let nothing = Need { hidden: false, head: false };
    let forward = Chunked::new(hidden, head, nothing, max_elements)?;
    let (losses, no_gradients) = chunked_losses(rec, &forward, rows.labels, 0.0);
    let slopes = rec.transient("slopes of rows", Kind::Real, n);
    let sums = pair_slopes(rec, &losses, rows, loss, factors, &slopes);
    let out = Tensor::from_span(sums.span().prefix(1), 1, 1);
    let chunks = Chunked::new(hidden, head, need, max_elements)?;
    if !chunks.needs_gradient() {
        return Ok(((vec![out], no_gradients), sums));
    }
    let op = chunks.run(rec, ROW_GRADIENTS.label, to_gradient((rows.labels, &slopes, 0), head));
    Ok(((vec![out], op), sums))
}

/// The sums [1, 4] of [`preference`] from the losses of all rows, Real `[n]`; fills `slopes`, Real
/// `[n]`, with the slope of the loss of the pairs in −log p(label) of each row.
pub fn pair_slopes(
    rec: &mut Recording,
    losses: &Span,
    rows: PairRows<'_>,
    loss: PairLoss<'_>,
    factors: PairFactors,
    slopes: &Span,
) -> Tensor {
    let PairRows { bounds, answers, .. } = rows;
    let (n, n_pairs) = (losses.len, bounds.len / 3);
    assert_eq!((answers.len, bounds.len), (n, 3 * n_pairs), "a mark for each row and three bounds for each pair");
    let stats = Tensor::transient(rec, "statistics of pairs", n_pairs, N_STATS);
    let (pairs, total, beta) = (n_pairs as u32, factors.total as u32, factors.beta);
    let grid = [pairs, 1, 1];
    match loss {
        PairLoss::Dpo { reference } => {
            let spans = [losses, reference, bounds, stats.span(), slopes];
            rec.dispatch(&DPO, &[], DpoParams { pairs, total, beta }, &spans, grid);
        }
        PairLoss::Orpo { tokens } => {
            let spans = [losses, answers, bounds, stats.span(), slopes];
            rec.dispatch(&ORPO, &[], OrpoParams { pairs, total, tokens: tokens as u32, beta }, &spans, grid);
        }
    }
    column_sum(rec, &stats)
}

/// The gradients of Σ slope · −log p(label) over some rows: those of the hidden states [n, channels]
/// and of the head, as far as they are needed. The labels and slopes of the rows begin at `first` among
/// those of more rows. The errors are those of [`super::loss::cross_entropy`].
pub fn row_gradients<'a>(
    rec: &mut Recording,
    (hidden, head): (&'a Tensor, Head<'a>),
        (labels, slopes, first): (&Span, &Span, usize),
    need: Need,
    max_elements: usize,
) -> Result<[Option<Tensor>; 2]> {
    let chunks = Chunked::new(hidden, head, need, max_elements)?;
    Ok(chunks.gradients(rec, to_gradient((labels, slopes, first), head)))
}

/// Turns rows of logits into the gradient of their losses times their slopes. The labels and slopes of
/// the rows begin at `from`.
fn to_gradient<'a>(
    (labels, slopes, from): (&'a Span, &'a Span, usize),
    head: Head<'a>,
) -> impl FnMut(&mut Recording, usize, usize, &Tensor) + 'a {
    move |rec, first, rows, chunk| {
        let (rows, cols, first_row) = (rows as u32, chunk.cols as u32, (from + first) as u32);
        let params = RowsParams { rows, cols, first_row, softcap: head.softcap.unwrap_or(0.0) };
        rec.dispatch(&ROW_GRADIENTS, &[], params, &[labels, slopes, chunk.span()], [rows, 1, 1]);
    }
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
