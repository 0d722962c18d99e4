//! What limits the tokens of an answer to a given form, such as a JSON schema.

use crate::error::Result;

/// Says which tokens may come next in an answer.
pub trait Constraint: Send {
    /// A bit for each token of the vocabulary, 32 to a word: 1 where the token may come next. Words
    /// that are missing at the end count as 0. Stop tokens are allowed where the form may end. Where it
    /// must end, nothing else is allowed, and nothing at all if the model has no stop token.
    fn allowed(&mut self) -> Result<Vec<u32>>;

    /// Takes the token that came.
    fn accept(&mut self, id: u32) -> Result<()>;

    /// A copy in the same state, for another answer to the same prompt.
    fn copy(&self) -> Box<dyn Constraint>;
}
