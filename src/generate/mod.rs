//! Floor 8: generation. `session.rs` feeds a cache and draws tokens.

mod session;

pub use session::Session;
