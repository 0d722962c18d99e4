//! Longreach: fine-tune and run language models with Lag-Relative Sparse Attention on any WebGPU
//! GPU.
//!
//! Start with [`gpu`], which describes and runs work, then read `ARCHITECTURE.md` for the modules
//! above it.

#[cfg(feature = "app")]
pub mod app;
pub mod atomic_file;
pub mod attention;
pub mod autograd;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod conformance;
pub mod data;
pub mod error;
pub mod eval;
pub mod export;
pub mod formats;
pub mod generate;
pub mod gpu;
#[cfg(any(feature = "app", feature = "chat"))]
mod grouped;
pub mod kernels;
pub mod model;
pub mod nn;
pub mod optim;
mod plain_json;
pub mod plot;
pub mod real;
#[cfg(feature = "serve")]
pub mod serve;
pub mod simd;
mod small_file;
pub mod study;
pub mod tensor;
pub mod text;
pub mod train;
pub mod verify;

pub use error::{Context, Error, ErrorKind, Result};

/// Includes the README, so that doc tests run its example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
