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
        self.sequences().map(|s| s.ids.len()).sum()
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
        self.sequences().all(|s| s.n_targets() > 0)
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
