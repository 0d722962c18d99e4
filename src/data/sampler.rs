//! The order in which a run visits its examples, and the batches that they fill.
//!
//! Both are determined by the lengths of the examples, the settings and the epoch alone, so a run
//! resumes from an epoch and a number of examples ([`Sampler::seek`]).

use clap::ValueEnum;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::rng::seeded;
use crate::error::Result;

/// How many examples go into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchLimit {
    /// So many examples.
    Examples(usize),
    /// As many whole examples, one after the other, as have up to so many tokens together. A longer
    /// example is a batch of its own.
    Tokens(usize),
}

impl BatchLimit {
    /// Cuts examples of these lengths, in this order, into batches. Returns how many examples there
    /// are up to the end of each batch.
    pub fn ends(self, lengths: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let (mut ends, mut first, mut tokens, mut n) = (Vec::new(), 0, 0_usize, 0);
        for length in lengths {
            let is_full = match self {
                Self::Examples(most) => n - first >= most,
                Self::Tokens(most) => tokens.saturating_add(length) > most,
            };
            if is_full && n > first {
                ends.push(n);
                (first, tokens) = (n, 0);
            }
            tokens = tokens.saturating_add(length);
            n += 1;
        }
        if n > first {
            ends.push(n);
        }
        ends
    }
}

/// The order of the examples in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Shuffled
    #[default]
    Random,
    /// Shuffled, then sorted by length, longest first, within groups of 50 steps: the examples of a
    /// batch have similar lengths, and the longest example comes first
    Length,
}

/// Steps whose examples are sorted by length together, as in the LengthGroupedSampler of
/// transformers.
const SORTED_STEPS: usize = 50;

/// How a run visits its examples.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    pub limit: BatchLimit,
    /// Batches per step.
    pub accumulate: usize,
    pub order: Order,
    pub seed: u64,
}

impl Batching {
    /// The order of examples of these lengths in one epoch.
    fn order_of(&self, lengths: &[usize], epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.shuffle(&mut seeded(self.seed, epoch));
        if self.order == Order::Random {
            return order;
        }
        let mut groups: Vec<&mut [usize]> = order.chunks_mut(self.sorted_together(lengths)).collect();
        groups.iter_mut().for_each(|group| group.sort_by_key(|&i| std::cmp::Reverse(lengths[i])));
        let longest = |group: &[usize]| lengths[group[0]];
        if let Some(first) = (0..groups.len()).rev().max_by_key(|&i| longest(groups[i])) {
            groups.swap(0, first);
        }
        groups.into_iter().flat_map(|group| group.iter().copied()).collect()
    }

    /// Examples that are sorted by length together: those of 50 steps, or of fewer so that there are
    /// at least four groups.
    fn sorted_together(&self, lengths: &[usize]) -> usize {
        let n = lengths.len();
        let per_batch = match self.limit {
            BatchLimit::Examples(most) => most,
            BatchLimit::Tokens(most) => (most.saturating_mul(n) / lengths.iter().sum::<usize>().max(1)).max(1),
        };
        let per_step = per_batch.saturating_mul(self.accumulate);
        let n_steps = (n / per_step.saturating_mul(4)).clamp(1, SORTED_STEPS);
        per_step.saturating_mul(n_steps)
    }
}

/// Visits the examples step by step.
///
/// A step takes up to `accumulate` batches. The last step of an epoch takes the rest, so an epoch
/// visits every example once.
#[derive(Clone, Debug)]
pub struct Sampler {
    lengths: Vec<usize>,
    batching: Batching,
    epoch: u64,
    /// The examples in the order of the epoch.
    order: Vec<usize>,
    /// Where each batch ends in it.
    ends: Vec<usize>,
    position: usize,
}

impl Sampler {
    /// A sampler of examples of these lengths at the start of epoch 0. Fails if there are no
    /// examples or a size is 0.
    pub fn new(lengths: Vec<usize>, batching: Batching) -> Result<Self> {
        crate::ensure!(!lengths.is_empty(), "there are no examples to train on");
        let (BatchLimit::Examples(size) | BatchLimit::Tokens(size)) = batching.limit;
        crate::ensure!(size > 0 && batching.accumulate > 0, "the batch size and the accumulation must be at least 1");
        let mut sampler = Self { lengths, batching, epoch: 0, order: Vec::new(), ends: Vec::new(), position: 0 };
        sampler.begin(0);
        Ok(sampler)
    }

    fn begin(&mut self, epoch: u64) {
        self.order = self.batching.order_of(&self.lengths, epoch);
        self.ends = self.batching.limit.ends(self.order.iter().map(|&i| self.lengths[i]));
        (self.epoch, self.position) = (epoch, 0);
    }

    /// Moves to a place that [`Sampler::place`] returned.
    pub fn seek(&mut self, epoch: u64, position: usize) -> Result<()> {
        if epoch != self.epoch {
            self.begin(epoch);
        }
        crate::ensure!(
            position == 0 || self.ends.binary_search(&position).is_ok(),
            "the run is to resume at example {position} of the epoch, but no batch of its {} examples begins there",
            self.order.len()
        );
        self.position = position;
        Ok(())
    }

    /// The epoch, and the number of its examples visited so far.
    pub fn place(&self) -> (u64, usize) {
        (self.epoch, self.position)
    }

    /// Batches of the current epoch.
    pub fn n_batches(&self) -> usize {
        self.ends.len()
    }

    /// Optimiser steps of the first so many epochs.
    pub fn steps_of(&self, epochs: u64) -> u64 {
        let steps = |batches: usize| batches.div_ceil(self.batching.accumulate) as u64;
        match self.batching.limit {
            BatchLimit::Examples(_) => epochs.saturating_mul(steps(self.ends.len())),
            // How well the examples fill the batches depends on their order.
            BatchLimit::Tokens(_) => (0..epochs).fold(0_u64, |sum, epoch| {
                let order = self.batching.order_of(&self.lengths, epoch);
                let ends = self.batching.limit.ends(order.into_iter().map(|i| self.lengths[i]));
                sum.saturating_add(steps(ends.len()))
            }),
        }
    }

    /// Indices of the next step's examples: up to `accumulate` batches, none empty.
    pub fn next_step(&mut self) -> Vec<Vec<usize>> {
        if self.position == self.order.len() {
            self.begin(self.epoch + 1);
        }
        let first = self.ends.partition_point(|&end| end <= self.position);
        let last = self.ends.len().min(first.saturating_add(self.batching.accumulate));
        let batch = |&end: &usize| self.order[std::mem::replace(&mut self.position, end)..end].to_vec();
        self.ends[first..last].iter().map(batch).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_examples(size: usize, accumulate: usize, seed: u64) -> Batching {
        Batching { limit: BatchLimit::Examples(size), accumulate, order: Order::Random, seed }
    }

    /// Lengths from 1 to 40 in no order.
    fn lengths(n: usize) -> Vec<usize> {
        (0..n).map(|i| 1 + (i * 17 + i * i) % 40).collect()
    }

    fn all() -> [Batching; 5] {
        let tokens = Batching { limit: BatchLimit::Tokens(60), ..of_examples(1, 2, 5) };
        let by_length = |batching| Batching { order: Order::Length, ..batching };
        let examples = of_examples(4, 2, 5);
        [examples, tokens, by_length(examples), by_length(tokens), Batching { accumulate: 1, ..by_length(tokens) }]
    }

    #[test]
    fn batches_hold_so_many_examples_or_tokens() {
        assert_eq!(BatchLimit::Examples(2).ends([1, 9, 9, 1, 1]), [2, 4, 5]);
        assert_eq!(BatchLimit::Examples(usize::MAX).ends([1, 9]), [2]);
        assert_eq!(BatchLimit::Tokens(10).ends([4, 6, 1, 11, 10, 3, 7, 1, 0]), [2, 3, 4, 5, 7, 9]);
        assert_eq!(BatchLimit::Tokens(3).ends([5, 5]), [1, 2]);
        assert!(BatchLimit::Tokens(3).ends([]).is_empty());
    }

    #[test]
    fn an_epoch_visits_each_example_once_in_its_own_order() {
        let lengths = lengths(103);
        for batching in all() {
            let mut sampler = Sampler::new(lengths.clone(), batching).unwrap();
            let (mut orders, mut n_steps) = (Vec::new(), 0);
            for epoch in 0..3 {
                let mut seen = Vec::new();
                while seen.len() < 103 {
                    let step = sampler.next_step();
                    n_steps += 1;
                    assert_eq!(sampler.place().0, epoch);
                    assert!(
                        (1..=batching.accumulate).contains(&step.len()) && step.iter().all(|batch| !batch.is_empty())
                    );
                    for batch in &step {
                        let n_tokens: usize = batch.iter().map(|&i| lengths[i]).sum();
                        match batching.limit {
                            BatchLimit::Examples(most) => assert!(batch.len() <= most),
                            BatchLimit::Tokens(most) => assert!(n_tokens <= most || batch.len() == 1),
                        }
                    }
                    seen.extend(step.into_iter().flatten());
                }
                assert_eq!((sampler.place(), sampler.steps_of(epoch + 1)), ((epoch, 103), n_steps));
                orders.push(seen.clone());
                seen.sort_unstable();
                assert_eq!(seen, (0..103).collect::<Vec<_>>());
            }
            assert!(orders[0] != orders[1] && orders[1] != orders[2]);
            let other = Batching { seed: 6, ..batching };
            assert_ne!(orders[0], other.order_of(&lengths, 0), "another seed, another order");
        }
    }

    #[test]
    fn the_length_order_puts_the_longest_first_and_like_lengths_together() {
        let lengths = lengths(400);
        let batching = Batching { order: Order::Length, ..of_examples(4, 1, 3) };
        // Four groups of 25 steps.
        assert_eq!(batching.sorted_together(&lengths), 100);
        let order = batching.order_of(&lengths, 0);
        let ordered: Vec<usize> = order.iter().map(|&i| lengths[i]).collect();
        assert_eq!(Some(&ordered[0]), lengths.iter().max());
        assert!(ordered.chunks(100).all(|group| group.is_sorted_by(|a, b| a >= b)));
        let spread = |lengths: &[usize]| -> usize {
            lengths.chunks(4).map(|batch| batch.iter().max().unwrap() - batch.iter().min().unwrap()).sum()
        };
        let random: Vec<usize> = Batching { order: Order::Random, ..batching }.order_of(&lengths, 0);
        let random: Vec<usize> = random.into_iter().map(|i| lengths[i]).collect();
        assert!(8 * spread(&ordered) < spread(&random), "{} and {}", spread(&ordered), spread(&random));
        let tokens = Batching { limit: BatchLimit::Tokens(80), ..batching };
        assert_eq!(tokens.sorted_together(&[20; 400]), 100);
        // Many examples: groups of 50 steps.
        assert_eq!(batching.sorted_together(&vec![1; 10_000]), 200);
    }

    #[test]
    fn a_resumed_run_sees_what_an_unbroken_one_sees() {
        let lengths = lengths(31);
        for batching in all() {
            let mut whole = Sampler::new(lengths.clone(), batching).unwrap();
            let places: Vec<_> = (0..12).map(|_| (whole.place(), whole.next_step())).collect();
            for (place, step) in places {
                let mut resumed = Sampler::new(lengths.clone(), batching).unwrap();
                resumed.seek(place.0, place.1).unwrap();
                assert_eq!(resumed.next_step(), step);
            }
            assert!(whole.seek(0, 32).is_err());
        }
        let mut sampler = Sampler::new(lengths, of_examples(4, 1, 0)).unwrap();
        assert!(sampler.seek(0, 3).unwrap_err().to_string().contains("no batch"));
    }

    #[test]
    fn nothing_to_sample_is_an_error() {
        for (n, size, accumulate) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            assert!(Sampler::new(vec![1; n], of_examples(size, accumulate, 0)).is_err());
        }
        let mut sampler = Sampler::new(vec![1; 2], of_examples(usize::MAX, 2, 0)).unwrap();
        assert_eq!((sampler.next_step().len(), sampler.steps_of(u64::MAX)), (1, u64::MAX));
        let long = Batching { limit: BatchLimit::Tokens(usize::MAX), order: Order::Length, ..of_examples(1, 9, 0) };
        assert_eq!(Sampler::new(vec![0, 3], long).unwrap().next_step().len(), 1);
    }
}
