//! Floor 8: generation of text with a KV cache.
//!
//! `request.rs` says what to generate. `session.rs` feeds a cache, `draw.rs` draws tokens (within the
//! limits of a `constraint.rs`), `completion.rs` turns them into a text and ends it, and
//! `generator.rs` is the loop from a prompt to a text. `batch.rs` generates several texts at once,
//! each step in one pass (`pass.rs`), and `queue.rs` keeps a batch filled.
//!
//! `conversation.rs` continues over several turns, as `reply.rs` asks: `open_text.rs` has the text with
//! its tokens and session, and `mark.rs` takes that back to an earlier place. `snapshot.rs` takes the
//! state of a session to the host and back.

mod batch;
mod completion;
mod constraint;
mod conversation;
mod draw;
mod generator;
mod lengthwise;
mod mark;
mod open_text;
mod pass;
mod queue;
mod reply;
mod request;
mod session;
mod snapshot;

pub use batch::Batch;
pub use constraint::Constraint;
pub use conversation::Conversation;
pub use generator::{generate, generate_watched};
pub use mark::Mark;
pub use open_text::{SavedConversation, TextEnd};
pub(crate) use queue::Queue;
pub use queue::{DEFAULT_BATCH, generate_all};
pub use reply::{Answer, Progress, Reply};
pub use request::{DEFAULT_CHUNK, GenerateRequest, Generated, NewToken, StoppedBy};
pub use session::Session;
pub use snapshot::Snapshot;
