//! Floor 10: the desktop app.
//!
//! `state.rs` is a pure state machine: actions and events in, effects out. Its pages are `chat.rs` (with `kept.rs`),
//! `tune.rs` and `devices.rs`, `documents/` reads documents, and `views/` draws them. `worker.rs` is the thread that owns the
//! engine; it communicates by messages (`message.rs`). `window.rs` handles winit, and `painter.rs`
//! runs egui on its own wgpu device.

mod chat;
mod conversations;
mod desktop;
mod devices;
mod documents;
mod events;
mod evidence;
mod kept;
mod kept_actions;
mod labels;
mod message;
mod painter;
mod place;
mod settings;
mod state;
mod tune;
mod turns;
mod views;
mod window;
mod worker;
mod worker_chat;
mod worker_jobs;
mod worker_site;

#[cfg(test)]
mod chat_tests;
#[cfg(test)]
mod opening_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod worker_tests;

pub use window::{AppOptions, run};
