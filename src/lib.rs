//! Longreach: fine-tune and run language models with Lag-Relative Sparse Attention on any GPU that WebGPU reaches.
//!
//! Read [`gpu`] for how work is described and run, then `ARCHITECTURE.md` for the floors above it.

pub mod data;
pub mod error;
pub mod gpu;
pub mod kernels;
pub mod model;
pub mod optim;
pub mod tensor;

pub use error::{Context, Error, ErrorKind, Result};
