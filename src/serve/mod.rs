//! Floor 10: an HTTP server with OpenAI's interface, in front of one engine thread.
//!
//! `job.rs` is the border: the server's side turns a request into a `Job` and its events into an
//! answer, and the engine's side turns a job into events. Nothing else crosses between them.
//! `http/` listens and guards, `openai/` reads requests and writes answers in OpenAI's form, and
//! `engine/` generates.

mod catalogue;
mod door;
mod engine;
mod http;
mod job;
mod metrics;
mod openai;

pub use catalogue::{Catalogue, Served};
pub use door::{Door, Refused};
pub use engine::{Engine, EngineDoor, EngineLimits, Room, Shared};
pub use http::{Options, State, serve};
pub use job::{Draw, Event, Failure, Finish, Job, TokenLogprob};
pub use metrics::Metrics;
