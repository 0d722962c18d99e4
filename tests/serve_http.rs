//! The server over HTTP, with a scripted engine behind it.
#![cfg(feature = "serve")]

#[path = "serve/errors.rs"]
mod errors;
#[path = "serve/harness.rs"]
mod harness;
#[path = "serve/hostile.rs"]
mod hostile;
#[path = "serve/limits.rs"]
mod limits;
#[path = "serve/mutated.rs"]
mod mutated;
#[path = "serve/shapes.rs"]
mod shapes;
#[path = "serve/tool_calls.rs"]
mod tool_calls;
