//! The model: its configuration, transformer block, Llama forward and RoPE tables.

pub mod block;
pub mod config;
pub mod llama;
pub mod rope;
pub mod rope_config;
pub(crate) mod rotation;
