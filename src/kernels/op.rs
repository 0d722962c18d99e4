//! What an op is: a forward function that appends commands, and a rule for its gradient.
//!
//! A forward function takes the recording and its input tensors and returns the outputs with a
//! boxed [`Op`]. The op keeps the handles that its rule needs; since memory is planned over the
//! whole recording, keeping a handle costs nothing unless the rule really uses it.

use crate::error::Result;
use crate::gpu::Recording;
use crate::tensor::Tensor;

/// The gradient rule of one application of an op.
pub trait Op {
    /// Name for messages, the forward kernel's label.
    fn label(&self) -> &'static str;

    /// Appends the backward commands.
    ///
    /// `grads` holds the gradient of each output. Returns one local gradient for each input: `Some`
    /// wherever `need` is true. What is returned is not added to anything yet: only the tape adds.
    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>>;

    /// Whether a gradient that [`Op::backward`] returns may be one that it was given: then the tape
    /// copies it before it adds to it.
    fn passes_on(&self) -> bool {
        false
    }

    /// Whether the tape may ask for the gradient of an input by [`Op::backward_accumulate`].
    fn has_backward_accumulate(&self, _input: usize) -> bool {
        false
    }

    /// Appends what adds the gradient of one input to a sum that the tape has: a product can do so
    /// in place, which saves memory and a pass over it.
    fn backward_accumulate(&self, _rec: &mut Recording, _grads: &[Tensor], _input: usize, _sum: &Tensor) {
        unreachable!("{} gives its gradients by `backward` alone", self.label())
    }
}

/// What a forward function returns: its outputs and its rule.
pub type Applied = (Vec<Tensor>, Box<dyn Op>);

/// `Some(make()?)` where the gradient is needed.
pub fn when<T>(needed: bool, make: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    if needed { make().map(Some) } else { Ok(None) }
}
