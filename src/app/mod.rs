//! Floor 10: the desktop app.
//!
//! `state.rs` is a pure state machine: actions and events in, effects out. The chat has its state in
//! `chat.rs`, `turns.rs` and `kept.rs`; `conversations/` saves chats, and `documents/` reads documents.
//! The page for fine-tuning has its state in `tune.rs`, its settings in `form.rs` and its actions in
//! `tune_actions.rs`. `command_line.rs` writes the command of a run, `data_counts.rs` counts its
//! examples, and `checked_run.rs` is what a check of it finds. `history.rs` is the list of runs, and
//! `exporting.rs` the export of one. `models.rs` is the list of models, and `library.rs` has the threads
//! that list and download them. `views/` draws the pages. `worker.rs` is the thread that owns the
//! engine; it communicates by messages (`message.rs`). `window/` handles winit and carries out what the
//! state asks, and `painter.rs` runs egui on its own wgpu device.

mod asking;
mod chat;
mod checked_run;
mod command_line;
mod conversations;
mod data_counts;
mod desktop;
mod devices;
mod documents;
mod download_actions;
mod downloads;
mod events;
mod evidence;
mod exporting;
mod form;
mod free_name;
mod history;
mod kept;
mod kept_actions;
mod labels;
mod library;
mod mesh_painter;
mod message;
mod model_actions;
mod model_adapters;
mod model_download;
mod model_scan;
mod models;
mod painter;
mod place;
mod settings;
mod state;
mod tune;
mod tune_actions;
mod turns;
mod views;
mod window;
mod worker;
mod worker_chat;
mod worker_export;
mod worker_jobs;
mod worker_site;

#[cfg(test)]
mod chat_tests;
#[cfg(test)]
mod download_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod opening_tests;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod tune_tests;
#[cfg(test)]
mod worker_run_tests;
#[cfg(test)]
mod worker_tests;

pub use window::{AppOptions, run};
