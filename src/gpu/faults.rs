//! Faults that a wgpu device reports from its callbacks, kept until the next call can return them.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::{Error, ErrorKind, Result};

/// Shared between the device's callbacks and the executor.
#[derive(Clone, Default)]
pub(super) struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lost: Option<String>,
    pending: Option<(ErrorKind, String)>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Remembers that the device is gone, for good.
    pub(super) fn set_lost(&self, reason: String) {
        self.state().lost.get_or_insert(reason);
    }

    /// Remembers the first error since the last [`Faults::check`].
    pub(super) fn record(&self, error: &wgpu::Error) {
        let fault = match error {
            wgpu::Error::OutOfMemory { source } => (
                ErrorKind::OutOfMemory,
                format!(
                    "the device is out of memory ({source}): use shorter sequences, a smaller batch, or --recompute"
                ),
            ),
            wgpu::Error::Validation { description, .. } => (
                ErrorKind::Failed,
                format!("wgpu refused a command, which is a fault of Longreach, please report it: {description}"),
            ),
            wgpu::Error::Internal { description, .. } => (
                ErrorKind::Failed,
                format!("the graphics driver failed: {description}. Try another --device or update the driver"),
            ),
        };
        self.state().pending.get_or_insert(fault);
    }

    /// Returns what has been reported since the last check. A lost device stays lost.
    pub(super) fn check(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(reason) = &state.lost {
            let text = format!(
                "the device was lost ({reason}): the driver reset it or it was removed. Start again, or use --device cpu"
            );
            return Err(Error::of_kind(ErrorKind::DeviceLost, text));
        }
        match state.pending.take() {
            Some((kind, text)) => Err(Error::of_kind(kind, text)),
            None => Ok(()),
        }
    }
}
