//! Floor 10: the desktop app.
//!
//! `state.rs` is a pure state machine: actions and events in, effects out. Its pages are `chat.rs`,
//! `models.rs`, `tune.rs` and `devices.rs`, and `views/` draws them. `worker.rs` is the thread that
//! owns the engine; it communicates by messages (`message.rs`). `library.rs` has the threads that list
//! and download models. `window.rs` handles winit, and `painter.rs` runs egui on its own wgpu device.

mod chat;
mod desktop;
mod devices;
mod download_actions;
mod downloads;
mod events;
mod labels;
mod library;
mod message;
mod model_actions;
mod model_adapters;
mod model_download;
mod model_scan;
mod models;
mod painter;
mod settings;
mod state;
mod tune;
mod views;
mod window;
mod worker;
mod worker_chat;
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
mod state_tests;
#[cfg(test)]
mod worker_tests;

pub use window::{AppOptions, run};
