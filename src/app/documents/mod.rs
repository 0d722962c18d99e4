//! Documents of the chat: the texts that the user asks about, and how files become such texts.
//!
//! `document.rs` is a document and what a question says of several, `actions.rs` updates the app's
//! state, and `read.rs` reads files.

mod actions;
mod document;
mod read;

#[cfg(test)]
mod documents_tests;

pub use document::{Document, joined};
pub use read::read_document;
