//! What a person sees: `shell.rs` is the frame around the pages `chat.rs`, `kept.rs`, `tune.rs` and `devices.rs`; `style.rs` the colours and
//! sizes. Views read the state, write to its drafts, and return what a person did.

mod chat;
mod devices;
mod kept;
mod shell;
mod style;
mod tune;

#[cfg(test)]
mod view_tests;

pub use shell::show;
pub use style::{apply, ground, set_up};
