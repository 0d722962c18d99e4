//! Requests and answers in OpenAI's form.
//!
//! `chat.rs` and `completions.rs` read requests (`fields.rs`, `settings.rs`, `messages.rs`) as an
//! `asked.rs`. `answer.rs` turns the engine's events into pieces of answers, and the shapes write
//! them. `splitter.rs` finds thoughts (`thoughts.rs`) and tool calls (`tools.rs`) in an answer, and
//! `schema.rs` limits answers to a JSON schema.

pub(super) mod answer;
pub(super) mod asked;
pub(super) mod chat;
mod chat_shape;
pub(super) mod completions;
mod cursor;
mod fields;
mod messages;
mod python_calls;
pub(super) mod schema;
mod schema_walk;
mod settings;
pub(super) mod shape;
mod splitter;
mod text_shape;
mod thoughts;
pub(super) mod token_table;
pub(super) mod tool_forms;
mod tools;
