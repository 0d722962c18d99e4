//! Floor 1: file formats: safetensors, GGUF, element types, and host-side dequantisation and quantisation.
//! No GPU.

pub mod blocks;
pub mod codes;
pub mod dequant;
pub mod dtype;
pub mod file_bytes;
mod format;
pub mod formulas;
pub mod gguf;
pub mod gguf_metadata;
mod gguf_parse;
mod gguf_split;
pub mod gguf_write;
pub mod host_tensor;
pub mod mapped_file;
pub mod quantise;
mod quantise_blocks;
mod quantise_k;
pub mod safetensors_file;
pub mod safetensors_write;
pub mod weight_formats;

pub use format::Format;
