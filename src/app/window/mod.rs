//! The window: winit's event loop, and what the state asks the window to do.

mod effects;
mod event_loop;

pub use event_loop::{AppOptions, run};
