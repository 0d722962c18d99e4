//! Shapes, element types, host tensors and the files they are read from.

pub mod dequant;
pub mod dtype;
pub mod gguf;
pub mod gguf_metadata;
mod gguf_parse;
pub mod host;
pub mod mapped_file;
pub mod safetensors_file;
pub mod write;
