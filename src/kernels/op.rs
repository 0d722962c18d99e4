//! The interface of an op: a forward function that appends commands, and a gradient rule.
//!
//! A forward function takes the recording and its input tensors and returns the outputs with a
//! boxed [`Op`]. The op holds the handles that its rule needs. The plan assigns memory over the
//! whole recording, so a handle costs nothing unless the rule uses it.

use crate::error::Result;
use crate::gpu::Recording;
use crate::tensor::Tensor;

/// The gradient rule of one application of an op.
pub trait Op {
    /// Name for messages: the forward kernel's label.
    fn label(&self) -> &'static str;

    /// Appends the backward commands.
    ///
    /// `grads` holds the gradient of each output. Returns one local gradient per input: `Some`
    /// wherever `need` is true. The op does not accumulate them; only the tape does.
    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>>;

    /// Whether [`Op::backward`] may return one of the gradients in `grads`. If so, the tape copies
    /// it before accumulating to it.
    fn passes_on(&self) -> bool {
        false
    }

    /// Whether the tape may call [`Op::backward_accumulate`] for an input.
    fn has_backward_accumulate(&self, _input: usize) -> bool {
        false
    }

    /// Accumulates the gradient of one input to a sum of the tape. A product does this in place,
    /// which saves memory and a pass over it.
    fn backward_accumulate(&self, _rec: &mut Recording, _grads: &[Tensor], _input: usize, _sum: &Tensor) {
        unreachable!("{} gives its gradients by `backward` alone", self.label())
    }
}

/// The result of a forward function: its outputs and its rule.
pub type Applied = (Vec<Tensor>, Box<dyn Op>);

/// `Some(make()?)` if `needed`, else `None`.
pub fn when<T>(needed: bool, make: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    if needed { make().map(Some) } else { Ok(None) }
}
