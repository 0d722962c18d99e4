//! Documents of the chat: the texts that the user asks about, and how files become such texts.
//!
//! `document.rs` is a document and what a question says of several, `actions.rs` updates the app's
//! state, `count.rs` counts tokens, and `read.rs` reads files, with `pdf.rs` and `docx.rs`.

mod actions;
mod count;
mod document;
mod docx;
mod found;
mod pdf;
mod pdf_streams;
mod read;

#[cfg(test)]
mod documents_tests;
#[cfg(test)]
mod read_tests;

pub use count::Counter;
pub use document::{Document, joined};
pub use read::read_document;
