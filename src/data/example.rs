//! One training example: token ids with a label for each, or a pair of two such sequences.

/// Label of a token that does not count in the loss.
pub const IGNORED: i32 = -100;

/// One token sequence with its labels, or a preference pair: a chosen and a rejected answer, each
/// with the same prompt before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    pub ids: Vec<u32>,
    /// For each token its own id, or [`IGNORED`]. As long as `ids`.
    pub labels: Vec<i32>,
    /// The sequence with the rejected answer of a pair; `ids` then end with the chosen one.
    pub rejected: Option<Box<Example>>,
}

impl Example {
    /// The sequences: one, or the chosen and then the rejected one of a pair.
    pub fn sequences(&self) -> impl Iterator<Item = &Example> {
        std::iter::once(self).chain(self.rejected.as_deref())
    }

    /// Tokens of all its sequences.
    pub fn n_tokens(&self) -> usize {
        self.tokens_within(usize::MAX)
    }

    /// Tokens of all its sequences if each is truncated to `max_length` tokens.
    pub fn tokens_within(&self, max_length: usize) -> usize {
        self.sequences().map(|s| s.ids.len().min(max_length)).sum()
    }

    /// Tokens of its longest sequence.
    pub fn longest(&self) -> usize {
        self.sequences().map(|s| s.ids.len()).max().unwrap_or(0)
    }

    /// Number of labels of `ids` that count in the loss. The first label never does, because no
    /// token precedes it.
    pub fn n_targets(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&label| label != IGNORED).count()
    }

    /// Whether every sequence has a label that counts.
    pub fn trains(&self) -> bool {
        self.trains_within(usize::MAX)
    }

    /// [`Example::trains`] if each sequence is truncated to `max_length` tokens.
    pub fn trains_within(&self, max_length: usize) -> bool {
        self.sequences().all(|s| s.labels.iter().take(max_length).skip(1).any(|&label| label != IGNORED))
    }

    /// Its beginning: up to `max_length` tokens of each sequence, and `most` of both together. A
    /// sequence that loses all its labels gets one for its last token. `None` if nothing is left, or
    /// less than two tokens of a sequence of a pair: one as input and one to learn.
    pub(super) fn beginning(&self, max_length: usize, most: usize) -> Option<Self> {
        let n = self.ids.len().min(max_length);
        let Some(rejected) = &self.rejected else {
            let n = n.min(most);
            return (n > 0).then(|| self.first(n));
        };
        let n = n.min(most.saturating_sub(2));
        let n_rejected = rejected.ids.len().min(max_length).min(most - n);
        (n >= 2).then(|| Self { rejected: Some(Box::new(rejected.first(n_rejected))), ..self.first(n) })
    }

    /// The first `n` tokens of `ids`.
    fn first(&self, n: usize) -> Self {
        let mut first = Self { ids: self.ids[..n].to_vec(), labels: self.labels[..n].to_vec(), rejected: None };
        if first.n_targets() == 0 && self.n_targets() > 0 {
            first.labels[n - 1] = first.ids[n - 1] as i32;
        }
        first
    }

    /// Adds tokens with labels to the end of the last sequence, to plan the memory of a batch.
    pub(super) fn lengthen(&mut self, n: usize) {
        let last = match &mut self.rejected {
            Some(rejected) => rejected,
            None => self,
        };
        if let Some(&id) = last.ids.last() {
            last.ids.extend(std::iter::repeat_n(id, n));
            last.labels.extend(std::iter::repeat_n(id as i32, n));
        }
    }

    /// Truncates each sequence to `max` tokens.
    pub(super) fn truncate(&mut self, max: usize) {
        self.ids.truncate(max);
        self.labels.truncate(max);
        if let Some(rejected) = &mut self.rejected {
            rejected.truncate(max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(n: usize, n_prompt: usize) -> Example {
        let label = |i: usize| if i < n_prompt { IGNORED } else { i as i32 };
        Example { ids: (0..n as u32).collect(), labels: (0..n).map(label).collect(), rejected: None }
    }

    #[test]
    fn the_beginning_of_a_pair_keeps_something_to_learn_in_both_sequences() {
        let pair = Example { rejected: Some(Box::new(sequence(6, 4))), ..sequence(8, 5) };
        assert_eq!((pair.n_tokens(), pair.longest(), pair.tokens_within(7)), (14, 8, 13));
        assert!(pair.trains() && pair.trains_within(6) && !pair.trains_within(5));
        for (max_length, most, lengths) in [
            (usize::MAX, usize::MAX, [8, 6]),
            (7, usize::MAX, [7, 6]),
            (7, 10, [7, 3]),
            (5, 100, [5, 5]),
            (usize::MAX, 5, [3, 2]),
            (usize::MAX, 4, [2, 2]),
        ] {
            let beginning = pair.beginning(max_length, most).unwrap();
            assert_eq!(beginning.sequences().map(|s| s.ids.len()).collect::<Vec<_>>(), lengths);
            assert!(beginning.trains(), "{beginning:?}");
        }
        assert_eq!(pair.beginning(usize::MAX, 3), None);
        assert_eq!(pair.beginning(usize::MAX, usize::MAX), Some(pair));
        let one = sequence(8, 5);
        assert_eq!((one.beginning(9, 0), one.beginning(9, 1).map(|e| e.ids)), (None, Some(vec![0])));
        assert_eq!(one.beginning(4, 100).unwrap().labels, [IGNORED, IGNORED, IGNORED, 3]);
        let silent = sequence(8, 8);
        assert_eq!(silent.beginning(4, 100).unwrap().labels, [IGNORED; 4]);
    }
}
