//! The egui views of the app.
//!
//! `shell.rs` is the frame around the pages `chat.rs`, `kept.rs`, `models.rs`, `tune.rs` and
//! `devices.rs`. `style.rs` holds colours and sizes. Views read the state, write to its input
//! fields, and return the user's actions.

mod chat;
mod devices;
mod kept;
mod model_download;
mod model_rows;
pub mod models;
mod shell;
mod style;
mod tune;

#[cfg(test)]
mod model_view_tests;
#[cfg(test)]
mod question_tests;
#[cfg(test)]
mod view_tests;

pub use shell::show;
pub use style::{apply, ground, set_up};
