//! Floor 2: shapes, element types, host tensors and the files they are read from.

mod arena;
#[allow(clippy::module_inception)] // the file is named after the type that it holds
mod tensor;

pub use crate::formats::Format;
pub use arena::{Arena, ArenaSlice, Spec, Trainable};
pub use tensor::{Piece, Tensor, copy_tensor, cut_rows, kind_of};
