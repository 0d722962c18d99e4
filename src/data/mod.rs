//! Floor 7: training data: datasets, examples, batches and seeded random numbers.

pub mod batch;
pub mod dataset;
mod example;
mod line;
pub mod rng;
