//! What the worker carries commands out with: where events go, how devices are opened, and the stop flags.

use std::sync::Arc;

use super::message::{Control, Event};
use crate::error::Result;
use crate::gpu::Device;

/// Hands an event to the window.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// Opens a device by the name that `--device` takes.
pub type Open = Arc<dyn Fn(&str) -> Result<Device> + Send + Sync>;

/// What commands are carried out with.
#[derive(Clone)]
pub struct Site {
    pub control: Arc<Control>,
    pub tell: Tell,
    pub open: Open,
}
