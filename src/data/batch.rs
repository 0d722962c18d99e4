//! Batches of concatenated examples, and the order in which a run visits the examples.
//!
//! A batch has no padding; a table gives the start and length of each sequence. Labels are shifted
//! here, once: position t has the token that the model must predict after token t.
//! [`super::dataset`] reads examples. The attention splits the tokens into query tiles.

use std::ops::Range;

use rand::seq::SliceRandom;

use super::dataset::{Example, IGNORED};
use super::rng::seeded;
use crate::error::Result;

/// Several token sequences, concatenated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Tokens of all sequences.
    pub ids: Vec<u32>,
    /// For each token, the label of the next token of its sequence; [`IGNORED`] at the end. As long
    /// as `ids`.
    pub labels_shifted: Vec<i32>,
    /// Start in `ids` and length of each sequence.
    pub sequences: Vec<(usize, usize)>,
    /// Number of labels that count in the loss.
    pub n_targets: usize,
    /// Length of the longest sequence. RoPE frequencies that depend on the length follow it; a part
    /// of a batch has that of the whole batch.
    pub longest: usize,
}

impl Batch {
    /// Concatenates the sequences of examples: of a preference pair, the chosen one and then the
    /// rejected one. Skips empty ones.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Self {
        let mut batch = Self::default();
        for example in examples.into_iter().flat_map(Example::sequences).filter(|e| !e.ids.is_empty()) {
            assert_eq!(example.ids.len(), example.labels.len(), "an example has one label per token");
            batch.sequences.push((batch.ids.len(), example.ids.len()));
            batch.ids.extend_from_slice(&example.ids);
            batch.labels_shifted.extend_from_slice(&example.labels[1..]);
            batch.labels_shifted.push(IGNORED);
        }
        batch.n_targets = n_labels(&batch.labels_shifted);
        batch.longest = batch.sequences.iter().map(|s| s.1).max().unwrap_or(0);
        batch
    }

    /// The batch of some consecutive sequences. They count from 0 again.
    pub fn part(&self, sequences: Range<usize>) -> Self {
        let sequences = &self.sequences[sequences];
        let (start, end) = match (sequences.first(), sequences.last()) {
            (Some(first), Some(last)) => (first.0, last.0 + last.1),
            _ => (0, 0),
        };
        let labels_shifted = self.labels_shifted[start..end].to_vec();
        Self {
            ids: self.ids[start..end].to_vec(),
            n_targets: n_labels(&labels_shifted),
            labels_shifted,
            sequences: sequences.iter().map(|&(first, n)| (first - start, n)).collect(),
            longest: self.longest,
        }
    }
}

/// Number of labels that count in the loss.
fn n_labels(labels: &[i32]) -> usize {
    labels.iter().filter(|&&label| label != IGNORED).count()
}

/// The order of the examples: shuffled in each epoch, and determined by the seed and the epoch
/// alone.
///
/// A step takes up to `batch_size * accumulate` examples. The last step of an epoch takes the rest,
/// so an epoch visits every example once. [`Sampler::seek`] resumes a run.
#[derive(Clone, Debug)]
pub struct Sampler {
    order: Vec<usize>,
    batch_size: usize,
    accumulate: usize,
    seed: u64,
    epoch: u64,
    position: usize,
}

impl Sampler {
    /// A sampler at the start of epoch 0. Fails if there are no examples or a size is 0.
    pub fn new(n_examples: usize, batch_size: usize, accumulate: usize, seed: u64) -> Result<Self> {
        crate::ensure!(n_examples > 0, "there are no examples to train on");
        crate::ensure!(batch_size > 0 && accumulate > 0, "the batch size and the accumulation must be at least 1");
        let order = order_of(n_examples, seed, 0);
        Ok(Self { order, batch_size, accumulate, seed, epoch: 0, position: 0 })
    }

    /// Moves to a place that [`Sampler::place`] returned.
    pub fn seek(&mut self, epoch: u64, position: usize) -> Result<()> {
        let n = self.order.len();
        crate::ensure!(
            position <= n,
            "the run is to resume at example {position} of the epoch, but there are only {n} examples"
        );
        if epoch != self.epoch {
            self.order = order_of(n, self.seed, epoch);
        }
        (self.epoch, self.position) = (epoch, position);
        Ok(())
    }

    /// The epoch, and the number of its examples visited so far.
    pub fn place(&self) -> (u64, usize) {
        (self.epoch, self.position)
    }

    /// Optimiser steps per epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.order.len().div_ceil(self.batch_size.saturating_mul(self.accumulate))
    }

    /// Indices of the next step's examples: up to `accumulate` micro-batches of up to `batch_size`
    /// examples, none empty.
    pub fn next_step(&mut self) -> Vec<Vec<usize>> {
        if self.position == self.order.len() {
            self.epoch += 1;
            self.position = 0;
            self.order = order_of(self.order.len(), self.seed, self.epoch);
        }
        let end = self.order.len().min(self.position.saturating_add(self.batch_size.saturating_mul(self.accumulate)));
        let step = self.order[self.position..end].chunks(self.batch_size).map(<[usize]>::to_vec).collect();
        self.position = end;
        step
    }
}

/// Order of the examples in one epoch.
fn order_of(n_examples: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n_examples).collect();
    order.shuffle(&mut seeded(seed, epoch));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(ids: &[u32], labels: &[i32]) -> Example {
        Example { ids: ids.to_vec(), labels: labels.to_vec(), rejected: None }
    }

    #[test]
    fn labels_are_the_next_tokens_within_a_sequence() {
        let examples =
            [example(&[1, 2, 3], &[1, -100, 3]), example(&[7], &[7]), example(&[], &[]), example(&[4, 5], &[4, 5])];
        let batch = Batch::new(&examples);
        assert_eq!(batch.ids, [1, 2, 3, 7, 4, 5]);
        assert_eq!(batch.labels_shifted, [-100, 3, -100, -100, 5, -100]);
        assert_eq!(batch.sequences, [(0, 3), (3, 1), (4, 2)]);
        assert_eq!(batch.n_targets, 2);
        assert_eq!(Batch::new(&[]), Batch::default());
    }

    #[test]
    fn an_epoch_visits_each_example_once_in_its_own_order() {
        let mut sampler = Sampler::new(103, 4, 2, 5).unwrap();
        let mut orders = Vec::new();
        for epoch in 0..3 {
            let mut seen = Vec::new();
            for _ in 0..sampler.steps_per_epoch() {
                let step = sampler.next_step();
                assert_eq!(sampler.place().0, epoch);
                assert!(step.len() <= 2 && step.iter().all(|micro| (1..=4).contains(&micro.len())));
                seen.extend(step.into_iter().flatten());
            }
            assert_eq!(sampler.place(), (epoch, 103));
            orders.push(seen.clone());
            seen.sort_unstable();
            assert_eq!(seen, (0..103).collect::<Vec<_>>());
        }
        assert!(orders[0] != orders[1] && orders[1] != orders[2]);
        assert_ne!(orders[0], order_of(103, 6, 0), "another seed, another order");
    }

    #[test]
    fn a_resumed_run_sees_what_an_unbroken_one_sees() {
        let mut whole = Sampler::new(10, 3, 1, 1).unwrap();
        let places: Vec<_> = (0..12).map(|_| (whole.place(), whole.next_step())).collect();
        for (place, step) in places {
            let mut resumed = Sampler::new(10, 3, 1, 1).unwrap();
            resumed.seek(place.0, place.1).unwrap();
            assert_eq!(resumed.next_step(), step);
        }
        assert!(whole.seek(0, 11).is_err());
    }

    #[test]
    fn nothing_to_sample_is_an_error() {
        for (n, batch_size, accumulate) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            assert!(Sampler::new(n, batch_size, accumulate, 0).is_err());
        }
        assert_eq!(Sampler::new(2, usize::MAX, 2, 0).unwrap().next_step().len(), 1);
    }
}
