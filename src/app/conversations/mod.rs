//! Conversations that are saved by themselves: their list, their files, and the one that is open.
//!
//! `conversation.rs` is what is saved of one, `file.rs` its form in a file, `store.rs` the thread that
//! reads and writes files, `state.rs` the list and what the user does with it.

mod conversation;
mod file;
mod state;
mod store;

#[cfg(test)]
mod conversations_tests;

#[cfg(test)]
pub use conversation::markdown;
pub use state::{Conversations, Entry, export_path};
pub use store::{Order, Store, Stored, folder};
