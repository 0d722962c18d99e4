//! The egui views of the app.
//!
//! `shell.rs` is the frame around the pages `chat.rs`, `kept.rs`, `tune.rs` (with `tune_settings.rs`) and `devices.rs`.
//! `style.rs` holds colours and sizes. Views read the state, write to its input fields, and return
//! the user's actions.

mod chat;
mod devices;
mod kept;
mod shell;
mod style;
mod tune;
mod tune_settings;

#[cfg(test)]
mod question_tests;
#[cfg(test)]
mod tune_view_tests;
#[cfg(test)]
mod view_tests;

pub use shell::show;
pub use style::{apply, ground, set_up};
