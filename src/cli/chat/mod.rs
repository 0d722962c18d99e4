//! `longreach chat`: a conversation in the terminal.
//!
//! `run.rs` has the flags and the loop. `machine.rs` is the state machine: lines in, answers and
//! sentences out to a `Screen`; `answers.rs`, `set.rs` and `files.rs` are its commands.
//! `command.rs` reads commands, `turns.rs` holds the messages, `engine.rs` the model, and `saved.rs`
//! the file of a conversation. The terminal is in `input.rs`, `editor.rs`, `screen.rs` and
//! `signals.rs`.

mod answers;
mod command;
mod editor;
mod engine;
mod files;
mod input;
mod lines;
mod machine;
mod multiline;
mod reports;
mod run;
mod saved;
mod screen;
mod set;
mod settings;
mod signals;
mod turns;

#[cfg(test)]
mod machine_tests;

pub use run::{ChatCommand, run};
