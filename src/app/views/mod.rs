//! The egui views of the app.
//!
//! `shell.rs` is the frame around the pages `chat.rs` (with `documents.rs`), `kept.rs`, `tune.rs`
//! and `devices.rs`. `style.rs` holds colours and sizes, `fonts.rs` the fonts. Views read the state,
//! write to its input fields, and return
//! the user's actions.

mod chat;
mod devices;
mod fonts;
mod documents;
mod kept;
mod shell;
mod style;
mod tune;

#[cfg(test)]
mod question_tests;
#[cfg(test)]
mod view_tests;

pub use fonts::add_system_fonts;
pub use shell::show;
pub use style::{apply, ground, set_up};
