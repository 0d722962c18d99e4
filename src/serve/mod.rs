//! Floor 10: an HTTP server with OpenAI's interface, in front of one engine thread.
//!
//! `job.rs` is the border: the server's side turns a request into a `Job` and its events into an
//! answer, and the engine's side turns a job into events. Nothing else crosses between them.

mod door;
mod engine;
mod engine_door;
mod job;
mod logprobs;
mod metrics;
mod prefix;
mod reading;

pub use door::{Door, Refused};
pub use engine::{Engine, EngineLimits};
pub use engine_door::{EngineDoor, Shared};
pub use job::{Draw, Event, Failure, Finish, Job, TokenLogprob};
pub use metrics::Metrics;
