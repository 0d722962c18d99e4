//! Floor 1: files and the formats of their tensors: safetensors, GGUF, element types, dequantising on the host. No GPU.

pub mod blocks;
pub mod dequant;
pub mod dtype;
mod format;
pub mod formulas;
pub mod gguf;
pub mod gguf_metadata;
mod gguf_parse;
pub mod host_tensor;
pub mod mapped_file;
pub mod safetensors_file;
pub mod safetensors_write;
pub mod weight_formats;

pub use format::Format;
