//! Floor 2: device tensors, and arenas for trainable tensors.

mod arena;
#[allow(clippy::module_inception)] // the file is named after its type
mod tensor;

pub use crate::formats::Format;
pub use arena::{Arena, ArenaSlice, Group, Parameters, Spec, TENSOR_ALIGNMENT, Trainable};
pub use tensor::{Piece, Tensor, copy_tensor, cut_rows, kind_of};
