//! Floor 2: shapes, element types, host tensors and the files they are read from.

mod arena;
pub mod blocks;
pub mod dequant;
pub mod dtype;
mod format;
pub mod gguf;
pub mod gguf_metadata;
mod gguf_parse;
pub mod host;
pub mod mapped_file;
pub mod safetensors_file;
#[allow(clippy::module_inception)] // the file is named after the type that it holds
mod tensor;
pub mod write;

pub use arena::{Arena, ArenaSlice, Spec, Trainable};
pub use format::Format;
pub use tensor::{Piece, Tensor, copy_tensor, cut_rows};
