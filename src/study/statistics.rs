//! Statistical comparison of two models on the same questions.
//!
//! The scores of one question are first averaged over the seeds of an arm. The unit of resampling
//! is the document, because answers about the same document are not independent. If each question
//! has its own document, the unit is the question.

use std::collections::BTreeMap;

use rand::{Rng, RngExt};

use super::cell::{Answer, Cell};
use crate::data::rng::seeded;

/// Number of draws in the permutation test and in the bootstrap.
const DRAWS: usize = 20_000;

/// Improvement of the second arm over the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Questions answered by both.
    pub n: usize,
    /// Documents of these questions; equal to `n` if each question has its own.
    pub n_documents: usize,
    /// Mean difference of the score.
    pub difference: f64,
    /// 95 % confidence interval from a bootstrap over documents.
    pub interval: (f64, f64),
    /// Two-sided p-value of a sign-flip permutation test over documents.
    pub p: f64,
}

/// Score of each question for one metric, averaged over the cells (seeds). Skips questions that a
/// cell lacks.
fn by_question(cells: &[Cell], metric: usize) -> Vec<(&Answer, f64)> {
    let Some(first) = cells.first() else { return vec![] };
    let mut all = Vec::new();
    for answer in &first.answers {
        let of = |cell: &Cell| cell.answers.iter().find(|a| a.id == answer.id)?.scores.get(metric).copied();
        let scores: Option<Vec<f64>> = cells.iter().map(of).collect();
        if let Some(scores) = scores {
            all.push((answer, scores.iter().sum::<f64>() / scores.len() as f64));
        }
    }
    all
}

/// Sum and number of the score differences of one document's questions.
#[derive(Clone, Copy, Default)]
struct Unit {
    sum: f64,
    n: usize,
}

/// Mean difference over the questions of some documents.
fn mean(units: impl Iterator<Item = Unit>) -> f64 {
    let all = units.fold(Unit::default(), |a, b| Unit { sum: a.sum + b.sum, n: a.n + b.n });
    all.sum / all.n as f64
}

/// Compares two arms under one attention. `None` if they share no question.
pub fn compare(before: &[Cell], after: &[Cell], metric: usize) -> Option<Comparison> {
    let old = by_question(before, metric);
    let mut by_document: BTreeMap<&str, Unit> = BTreeMap::new();
    for (answer, score) in by_question(after, metric) {
        if let Some((_, was)) = old.iter().find(|(o, _)| o.id == answer.id) {
            let unit = by_document.entry(answer.document.as_deref().unwrap_or(&answer.id)).or_default();
            unit.sum += score - was;
            unit.n += 1;
        }
    }
    let units: Vec<Unit> = by_document.into_values().collect();
    if units.is_empty() {
        return None;
    }
    let difference = mean(units.iter().copied());
    let mut rng = seeded(1, 0);
    let mut as_far = 0;
    let mut means = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let flip = |u: &Unit| if rng.next_u32() & 1 == 0 { *u } else { Unit { sum: -u.sum, n: u.n } };
        let flipped = mean(units.iter().map(flip));
        as_far += usize::from(flipped.abs() >= difference.abs() - 1e-12);
        means.push(mean((0..units.len()).map(|_| units[rng.random_range(0..units.len())])));
    }
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((DRAWS - 1) as f64 * share).round() as usize];
    let p = (as_far + 1) as f64 / (DRAWS + 1) as f64;
    let n = units.iter().map(|u| u.n).sum();
    Some(Comparison { n, n_documents: units.len(), difference, interval: (at(0.025), at(0.975)), p })
}

/// Mean and, for more than one value, sample standard deviation.
pub(super) fn mean_and_spread(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let spread =
        (values.len() > 1).then(|| (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0)).sqrt());
    (mean, spread)
}

#[cfg(test)]
mod tests {
    use super::super::cell::{CellName, ModelName};
    use super::*;

    fn cell(scores: &[f64]) -> Cell {
        let answer = |(i, s): (usize, &f64)| Answer {
            id: format!("q{i}"),
            document: None,
            answer: String::new(),
            expected: vec![],
            scores: vec![0.0, *s],
        };
        Cell {
            adapter: None,
            name: CellName { model: ModelName::base(), attention: "4x".into(), test: None },
            metrics: vec!["a".into(), "b".into()],
            means: vec![],
            kv_entries: 0.0,
            device: String::new(),
            layers: None,
            seconds: 0.0,
            answers: scores.iter().enumerate().map(answer).collect(),
        }
    }

    #[test]
    fn a_clear_difference_is_told_from_chance() {
        let (low, high) = (vec![cell(&[0.0; 20]), cell(&[0.0; 20])], vec![cell(&[1.0; 20]), cell(&[0.5; 20])]);
        let found = compare(&low, &high, 1).unwrap();
        assert_eq!((found.n, found.difference, found.interval), (20, 0.75, (0.75, 0.75)));
        assert!(found.p < 0.001, "{found:?}");
        assert_eq!(compare(&low, &high, 0).unwrap().p, 1.0);
        // Of the four sign patterns of two equal differences, exactly two are as far from 0.
        let two = compare(&[cell(&[0.0, 0.0])], &[cell(&[1.0, 1.0])], 1).unwrap();
        assert!((two.p - 0.5).abs() < 0.02, "{two:?}");
        assert_eq!(compare(&[], &high, 1), None);
    }

    #[test]
    fn questions_about_one_document_count_as_one_draw() {
        let about = |mut cell: Cell, per_document: usize| {
            for (i, answer) in cell.answers.iter_mut().enumerate() {
                answer.document = Some(format!("d{}", i / per_document));
            }
            cell
        };
        let scores: Vec<f64> = (0..24).map(|i| if i < 16 { 1.0 } else { 0.0 }).collect();
        let alone = compare(&[cell(&[0.0; 24])], &[cell(&scores)], 1).unwrap();
        let together = compare(&[about(cell(&[0.0; 24]), 8)], &[about(cell(&scores), 8)], 1).unwrap();
        assert_eq!((alone.n, alone.n_documents, together.n, together.n_documents), (24, 24, 24, 3));
        assert_eq!(alone.difference, together.difference);
        assert!(alone.p < 0.001 && together.p > 0.4, "{alone:?} {together:?}");
        assert!(together.interval.1 - together.interval.0 > 2.0 * (alone.interval.1 - alone.interval.0));
    }

    #[test]
    fn the_spread_is_that_of_a_sample() {
        assert_eq!(mean_and_spread(&[1.0, 3.0]), (2.0, Some(2f64.sqrt())));
        assert_eq!(mean_and_spread(&[4.0]), (4.0, None));
    }
}
