//! The egui views of the app.
//!
//! `shell.rs` is the frame around the pages `chat.rs`, `kept.rs`, `tune.rs` and `devices.rs`. The page
//! of `tune.rs` has its settings in `tune_settings.rs`, the check of a run in `tune_check.rs`, the list
//! of runs in `runs.rs` and their export in `export.rs`. `style.rs` holds colours and sizes. Views read
//! the state, write to its input fields, and return the user's actions.

mod chat;
mod devices;
mod export;
mod kept;
mod run_texts;
mod runs;
mod shell;
mod style;
mod tune;
mod tune_check;
mod tune_settings;

#[cfg(test)]
mod question_tests;
#[cfg(test)]
mod tune_view_tests;
#[cfg(test)]
mod view_tests;

pub use shell::show;
pub use style::{apply, ground, set_up};
