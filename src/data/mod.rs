//! Floor 7: training data: datasets, examples, batches and seeded random numbers.

pub mod batch;
pub mod dataset;
mod example;
mod line;
mod raw;
pub mod rng;
pub mod sources;
pub mod survey;
mod tokens;
mod turns;
