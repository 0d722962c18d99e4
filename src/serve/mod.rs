//! Floor 10: an HTTP server with OpenAI's interface, in front of one engine thread.
//!
//! `job.rs` is the border: the server's side turns a request into a `Job` and its events into an
//! answer, and the engine's side turns a job into events. Nothing else crosses between them.

mod answer;
mod asked;
mod catalogue;
mod chat;
mod chat_shape;
mod completions;
mod door;
mod engine;
mod engine_door;
mod failure;
mod fields;
mod guard;
mod job;
mod logprobs;
mod messages;
mod metrics;
mod options;
mod prefix;
mod reading;
mod routes;
mod schema;
mod server;
mod settings;
mod shape;
mod state;
mod stream;
mod text_shape;
mod token_table;
mod tool_forms;
mod tools;

pub use catalogue::{Catalogue, Served};
pub use door::{Door, Refused};
pub use engine::{Engine, EngineLimits};
pub use engine_door::{EngineDoor, Shared};
pub use job::{Draw, Event, Failure, Finish, Job, TokenLogprob};
pub use metrics::Metrics;
pub use options::Options;
pub use server::serve;
pub use state::State;
