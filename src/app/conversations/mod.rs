//! Conversations that are saved by themselves: their list, their files, and the one that is open.
//!
//! `conversation.rs` is what is saved of one, `file.rs` its form in a file, `store.rs` the thread that
//! reads and writes files, `list.rs` the list and the open one, `actions.rs` what the user does with
//! them.

mod actions;
mod conversation;
mod file;
mod list;
mod store;

#[cfg(test)]
mod conversations_tests;

pub use conversation::export_path;
#[cfg(test)]
pub use conversation::{Entry, markdown};
pub use list::Conversations;
pub use store::{Order, Store, Stored, folder};
