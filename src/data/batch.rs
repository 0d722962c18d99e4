//! Batches of concatenated examples.
//!
//! A batch has no padding; a table gives the start and length of each sequence. Labels are shifted
//! here, once: position t has the token that the model must predict after token t.
//! [`super::dataset`] reads examples, and [`super::sampler`] chooses those of a batch. The attention
//! splits the tokens into query tiles.

use std::ops::Range;

use super::dataset::{Example, IGNORED};
use super::sampler::BatchLimit;

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

    /// A batch that takes at least the memory of each that a limit lets a run make of these examples,
    /// each truncated to `max_length` tokens. It has the longest examples; if tokens fill it, it takes
    /// the beginning of the last one. So many of its tokens have a label that no batch has more, and
    /// those at the end of its sequences first, where a streamed pass over them takes the most.
    pub fn largest<'a>(examples: impl IntoIterator<Item = &'a Example>, limit: BatchLimit, max_length: usize) -> Self {
        let mut longest: Vec<&Example> = examples.into_iter().collect();
        longest.sort_by_key(|e| std::cmp::Reverse(e.tokens_within(max_length)));
        let mut left = usize::MAX;
        match limit {
            BatchLimit::Examples(_) => {}
            BatchLimit::Tokens(most) => left = most.max(longest.first().map_or(0, |e| e.tokens_within(max_length))),
        }
        let most_labels = match limit {
            BatchLimit::Examples(n) => {
                let mut counts: Vec<usize> =
                    longest.iter().map(|e| e.sequences().map(Example::n_targets).sum()).collect();
                counts.sort_by_key(|&n| std::cmp::Reverse(n));
                counts.into_iter().take(n).sum()
            }
            BatchLimit::Tokens(_) => usize::MAX,
        };
        if let BatchLimit::Examples(n) = limit {
            longest.truncate(n);
        }
        let mut parts: Vec<Example> = Vec::new();
        for example in &longest {
            let Some(part) = example.beginning(max_length, left) else { break };
            left -= part.n_tokens();
            parts.push(part);
        }
        // What is left is too short for one more example.
        if let (BatchLimit::Tokens(_), true, Some(last)) = (limit, parts.len() < longest.len(), parts.last_mut()) {
            last.lengthen(left);
        }
        let mut batch = Self::new(&parts);
        batch.label_up_to(most_labels);
        batch
    }

    /// Labels further tokens, the last ones of a sequence first, until so many have a label or all do.
    fn label_up_to(&mut self, most: usize) {
        for &(start, n) in &self.sequences {
            for row in (start..(start + n).saturating_sub(1)).rev() {
                if self.n_targets >= most {
                    return;
                }
                if self.labels_shifted[row] == IGNORED {
                    self.labels_shifted[row] = self.ids[row + 1] as i32;
                    self.n_targets += 1;
                }
            }
        }
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
    fn the_largest_batch_has_the_longest_examples_and_no_more_than_the_limit() {
        let sequence = |n: u32| example(&(0..n).collect::<Vec<_>>(), &(0..n as i32).collect::<Vec<_>>());
        let pair = |n: u32, m: u32| Example { rejected: Some(Box::new(sequence(m))), ..sequence(n) };
        let lengths = |examples: &[Example], limit, max_length| -> Vec<usize> {
            Batch::largest(examples, limit, max_length).sequences.iter().map(|s| s.1).collect()
        };
        let plain = [sequence(3), sequence(9), sequence(5), sequence(4)];
        for (limit, max_length, expected) in [
            (BatchLimit::Examples(2), usize::MAX, &[9, 5][..]),
            (BatchLimit::Examples(9), 4, &[4, 4, 4, 3]),
            (BatchLimit::Tokens(12), usize::MAX, &[9, 3]),
            (BatchLimit::Tokens(2), usize::MAX, &[9]),
            (BatchLimit::Tokens(2), 4, &[4]),
            (BatchLimit::Tokens(100), usize::MAX, &[9, 5, 4, 3]),
        ] {
            assert_eq!(lengths(&plain, limit, max_length), expected, "{limit:?}, {max_length}");
        }
        let pairs = [pair(4, 5), pair(9, 2), pair(3, 3)];
        for (limit, max_length, expected) in [
            (BatchLimit::Examples(1), usize::MAX, &[9, 2][..]),
            (BatchLimit::Examples(1), 5, &[4, 5]),
            (BatchLimit::Tokens(5), usize::MAX, &[9, 2]),
            (BatchLimit::Tokens(16), usize::MAX, &[9, 2, 3, 2]),
            (BatchLimit::Tokens(14), usize::MAX, &[9, 5]),
            (BatchLimit::Tokens(100), usize::MAX, &[9, 2, 4, 5, 3, 3]),
        ] {
            assert_eq!(lengths(&pairs, limit, max_length), expected, "{limit:?}, {max_length}");
        }
        assert_eq!(Batch::largest(&[], BatchLimit::Tokens(5), usize::MAX), Batch::default());
        // Long examples with few labels, and short ones with many.
        let mute = example(&(0..8).collect::<Vec<_>>(), &[IGNORED; 8]);
        let few = [mute.clone(), mute, sequence(5), sequence(4)];
        let labels = |limit| Batch::largest(&few, limit, usize::MAX).n_targets;
        assert_eq!(labels(BatchLimit::Examples(1)), 4, "as many as the example with most");
        assert_eq!(labels(BatchLimit::Examples(2)), 4 + 3);
        assert_eq!(labels(BatchLimit::Tokens(16)), 7 + 7, "all that have a next token");
    }
}
