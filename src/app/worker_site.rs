//! The inputs of every command of the worker: event sink, function that opens devices, stop flags.

use std::sync::Arc;

use super::documents::Counter;
use super::message::{Control, Event};
use crate::error::Result;
use crate::gpu::Device;

/// Sends an event to the window.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// Opens a device by name, with the same names as `--device`.
pub type Open = Arc<dyn Fn(&str) -> Result<Device> + Send + Sync>;

/// Environment of a command.
#[derive(Clone)]
pub struct Site {
    pub control: Arc<Control>,
    pub tell: Tell,
    pub open: Open,
    /// Has the tokenizer of the open model.
    pub counter: Counter,
}
