//! The egui views of the app.
//!
//! `shell.rs` is the frame around the pages: the sidebar (`sidebar.rs`, with the names of `pages.rs`), notices (`toasts.rs`) and the
//! status bar. The chat page is `chat.rs` with `header.rs`, `documents.rs`, `conversation.rs`,
//! `chat_settings.rs` and `kept.rs` (with `kept_text.rs`). The page of `tune.rs` has its settings in
//! `tune_settings.rs`, the check of a run in `tune_check.rs`, the list of runs in `runs.rs` and their
//! export in `export.rs`. `models.rs` and `devices.rs` are the pages of models and devices. `focus.rs` is about
//! the keyboard's focus, `style.rs` holds colours and sizes, `fonts.rs` the fonts. Views read the state, write to its input fields, and return the user's
//! actions.

mod chat;
mod chat_settings;
mod conversation;
mod devices;
mod documents;
mod export;
mod focus;
mod fonts;
mod header;
mod kept;
mod kept_text;
mod model_download;
mod model_rows;
pub mod models;
mod pages;
mod run_texts;
mod runs;
mod shell;
mod sidebar;
mod style;
mod toasts;
mod tune;
mod tune_check;
mod tune_settings;

#[cfg(test)]
mod document_tests;
#[cfg(test)]
mod focus_tests;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod model_view_tests;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod painting_tests;
#[cfg(test)]
mod pictures;
#[cfg(test)]
mod question_tests;
#[cfg(test)]
mod tune_view_tests;
#[cfg(test)]
mod view_tests;

pub use fonts::add_system_fonts;
pub use shell::show;
pub use style::{apply, ground, set_up};
