//! Floor 10: the desktop app. `state.rs` is a pure state machine (what happened in, what is to be done out), with `chat.rs`, `tune.rs` and
//! `devices.rs` as its pages; `views/` draws them; `worker.rs` is the thread that has the engine and is spoken to by messages
//! (`message.rs`); `window.rs` is winit, `painter.rs` egui on a device
//! of its own.

mod chat;
mod desktop;
mod devices;
mod events;
mod labels;
mod message;
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
mod state_tests;
#[cfg(test)]
mod worker_tests;

pub use window::{AppOptions, run};
