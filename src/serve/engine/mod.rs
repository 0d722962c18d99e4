//! The engine's side of the server: one thread that owns device and models.
//!
//! `queue.rs` takes jobs, `reading.rs` reads a prompt with what `prefix.rs` stores of its beginning,
//! and `steps.rs` runs prompts and answers side by side, in the passes of `round.rs`. `logprobs.rs`
//! reports probabilities.

mod logprobs;
mod prefix;
mod queue;
mod reading;
mod round;
mod steps;

pub use queue::{EngineDoor, Shared};
pub use steps::{Engine, EngineLimits};
