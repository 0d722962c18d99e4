//! Floor 8: generation. `session.rs` feeds a cache and draws tokens, `generator.rs` is the loop from a prompt to a text.

mod generator;
mod session;

pub use generator::{DEFAULT_CHUNK, GenerateRequest, Generated, NewToken, StoppedBy, generate};
pub use session::Session;
