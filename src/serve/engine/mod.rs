//! The engine's side of the server: one thread that owns device and models.
//!
//! `queue.rs` takes jobs, `reading.rs` reads a prompt with what `prefix.rs` stores of its beginning
//! at the places of `places.rs`, and `steps.rs` runs prompts and answers side by side, in the passes
//! of `round.rs`. `room.rs` says what fits into the memory for caches, and `logprobs.rs` reports
//! probabilities.

mod logprobs;
mod places;
mod prefix;
mod queue;
mod reading;
mod room;
mod round;
mod steps;

pub use queue::{EngineDoor, Shared};
pub use room::{EngineLimits, Room};
pub use steps::Engine;
