//! One training example: token ids with a label for each.

/// Label of a token that does not count in the loss.
pub const IGNORED: i32 = -100;

/// One token sequence with its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    pub ids: Vec<u32>,
    /// For each token its own id, or [`IGNORED`]. As long as `ids`.
    pub labels: Vec<i32>,
}

impl Example {
    /// Number of labels that count in the loss. The first label never does, because no token
    /// precedes it.
    pub fn n_targets(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&label| label != IGNORED).count()
    }
}
