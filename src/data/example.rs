//! One example: token ids with a label each.

/// Label of a token that nothing is learnt from.
pub const IGNORED: i32 = -100;

/// One sequence of tokens with a label each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    pub ids: Vec<u32>,
    /// The token's own id, or [`IGNORED`]; as long as `ids`.
    pub labels: Vec<i32>,
}

impl Example {
    /// Labels that count: the first one has no token before it.
    pub fn n_targets(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&label| label != IGNORED).count()
    }
}
