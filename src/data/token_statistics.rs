//! Token statistics of training data: lengths, labels, what LRSA compresses, and how batches fill.

use serde::Serialize;

use super::sampler::{Batching, Sampler};
use super::survey::Statistics;
use crate::attention::Attention;
use crate::error::Result;

/// What a run will see of its training data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TokenStatistics {
    pub examples: usize,
    /// Sequences of the examples: a preference pair has two.
    pub sequences: usize,
    pub tokens: usize,
    /// Tokens whose labels count in the loss.
    pub labelled: usize,
    /// Tokens of the median sequence.
    pub median: f64,
    pub longest: usize,
    /// S + 2L: LRSA compresses longer sequences only. `None` for dense attention.
    pub compressed_above: Option<usize>,
    /// Sequences that are longer.
    pub compressed: usize,
    /// Batches of the first epoch.
    pub batches: usize,
    /// Optimiser steps of the first epoch.
    pub steps: u64,
}

impl TokenStatistics {
    /// The statistics of examples of these lengths, given the lengths of their sequences and the number
    /// of labels in all. Fails if there are none.
    pub fn of(
        lengths: Vec<usize>,
        (sequences, labelled): (&[usize], usize),
        batching: Batching,
        attention: Attention,
    ) -> Result<Self> {
        let Statistics { median, max, total, .. } = Statistics::of(sequences);
        let compressed_above = match attention {
            Attention::Dense => None,
            Attention::Lrsa(lrsa) => Some(lrsa.longest_whole()),
        };
        let compressed = compressed_above.map_or(0, |most| sequences.iter().filter(|&&n| n > most).count());
        let examples = lengths.len();
        let sampler = Sampler::new(lengths, batching)?;
        Ok(Self {
            examples,
            sequences: sequences.len(),
            tokens: total,
            labelled,
            median,
            longest: max,
            compressed_above,
            compressed,
            batches: sampler.n_batches(),
            steps: sampler.steps_of(1),
        })
    }

    /// Mean tokens of a batch.
    pub fn tokens_per_batch(&self) -> f64 {
        self.tokens as f64 / self.batches as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampler::{BatchLimit, Order};
    use super::*;
    use crate::attention::Lrsa;

    #[test]
    fn statistics_count_what_is_compressed_and_how_batches_fill() {
        let batching = Batching { limit: BatchLimit::Tokens(30), accumulate: 2, order: Order::Random, seed: 0 };
        let lrsa = Attention::Lrsa(Lrsa::new(4, 8, 0.25).unwrap());
        let lengths = vec![20, 10, 10, 20, 40, 21];
        let of = |attention| TokenStatistics::of(lengths.clone(), (&lengths, 90), batching, attention).unwrap();
        let found = of(lrsa);
        assert_eq!((found.examples, found.tokens, found.labelled), (6, 121, 90));
        assert_eq!((found.median, found.longest), (20.0, 40));
        assert_eq!((found.compressed_above, found.compressed), (Some(20), 2));
        // The longest example is alone, and no batch holds more than 30 of the other 81 tokens.
        assert!((4..=6).contains(&found.batches) && found.steps == found.batches.div_ceil(2) as u64);
        assert_eq!(found.tokens_per_batch(), 121.0 / found.batches as f64);
        let dense = of(Attention::Dense);
        assert_eq!((dense.compressed_above, dense.compressed), (None, 0));
        assert!(TokenStatistics::of(vec![], (&[], 0), batching, lrsa).is_err());
    }

    #[test]
    fn both_sequences_of_a_pair_count() {
        let batching = Batching { limit: BatchLimit::Tokens(50), accumulate: 1, order: Order::Random, seed: 0 };
        let lrsa = Attention::Lrsa(Lrsa::new(4, 8, 0.25).unwrap());
        let found = TokenStatistics::of(vec![40, 45], (&[19, 21, 15, 30], 20), batching, lrsa).unwrap();
        assert_eq!((found.examples, found.sequences, found.tokens, found.batches), (2, 4, 85, 2));
        assert_eq!((found.median, found.longest, found.compressed), (20.0, 30, 2));
    }
}
