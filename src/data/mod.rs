//! Floor 7: training data: datasets, examples, batches and seeded random numbers.

pub mod batch;
pub mod dataset;
mod example;
mod fields;
pub mod hold_out;
mod line;
pub mod long;
mod raw;
pub mod rng;
pub mod sampler;
pub mod sources;
pub mod survey;
pub mod token_count;
mod token_line;
pub mod token_statistics;
mod tokens;
mod turns;
