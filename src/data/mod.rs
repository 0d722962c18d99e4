//! Text in: tokenizers, datasets, packing.

pub mod batch;
pub mod dataset;
mod example;
mod line;
pub mod rng;
