//! Floor 8: generation of text with a KV cache.
//!
//! `session.rs` feeds a cache and draws tokens, `generator.rs` is the loop from a prompt to a text,
//! `conversation.rs` continues over several turns.

mod conversation;
mod generator;
mod lengthwise;
mod session;

pub use conversation::{Answer, Conversation, Progress, Reply};
pub(crate) use generator::generate_from;
pub use generator::{DEFAULT_CHUNK, GenerateRequest, Generated, NewToken, StoppedBy, generate, generate_watched};
pub use session::Session;
