//! Text in: tokenizers, datasets, packing.

pub mod batch;
pub mod dataset;
mod example;
pub mod rng;
