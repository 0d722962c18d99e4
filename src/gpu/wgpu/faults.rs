//! Faults that a wgpu device reports in callbacks, held until the next call returns them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Mutex, MutexGuard, Once};

use crate::error::{Error, ErrorKind, Result};

/// State shared between the device's callbacks and the executor.
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

    /// Marks the device as lost, permanently.
    pub(super) fn set_lost(&self, reason: String) {
        self.state().lost.get_or_insert(reason);
    }

    /// Records the first error since the last [`Faults::check`].
    pub(super) fn record(&self, error: &wgpu::Error) {
        let fault = match error {
            wgpu::Error::OutOfMemory { source } => (
                ErrorKind::OutOfMemory,
                format!(
                    "the device is out of memory ({source}): use shorter sequences, a smaller batch, or `recompute`"
                ),
            ),
            wgpu::Error::Validation { description, .. } => (
                ErrorKind::Failed,
                format!("wgpu refused a command, which is a fault of Longreach, please report it: {description}"),
            ),
            wgpu::Error::Internal { description, .. } => (
                ErrorKind::Failed,
                format!("the graphics driver failed: {description}. Try another `device` or update the driver"),
            ),
        };
        self.state().pending.get_or_insert(fault);
    }

    /// Returns the fault recorded since the last check. A lost device stays lost.
    pub(super) fn check(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(reason) = &state.lost {
            let text = format!(
                "the device was lost ({reason}): the driver reset it, its memory ran out, or it was removed. Start again \
                 (with a smaller batch if it was memory), update the graphics driver, or use `device` cpu"
            );
            return Err(Error::of_kind(ErrorKind::DeviceLost, text));
        }
        match state.pending.take() {
            Some((kind, text)) => Err(Error::of_kind(kind, text)),
            None => Ok(()),
        }
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`; returns a panic without printing it. wgpu's `Device::poll` panics on a lost device,
/// and the caller reports that as an error.
pub(super) fn catch_quietly<R>(f: impl FnOnce() -> R) -> std::thread::Result<R> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    QUIET.set(false);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out_of_memory() -> wgpu::Error {
        wgpu::Error::OutOfMemory { source: "no room".into() }
    }

    #[test]
    fn the_first_error_is_returned_once_and_loss_for_good() {
        let faults = Faults::default();
        faults.check().unwrap();
        faults.record(&out_of_memory());
        faults.record(&wgpu::Error::Validation { source: "later".into(), description: "later".into() });
        let e = faults.check().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfMemory);
        assert!(e.to_string().contains("no room") && e.to_string().contains("`recompute`"), "{e}");
        faults.check().unwrap();
        faults.set_lost("unplugged".into());
        faults.record(&out_of_memory());
        for _ in 0..2 {
            let e = faults.check().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::DeviceLost);
            assert!(e.to_string().contains("unplugged") && e.to_string().contains("`device` cpu"), "{e}");
        }
    }

    #[test]
    fn a_caught_panic_is_returned_and_later_ones_are_loud() {
        assert!(catch_quietly(|| panic!("as poll does")).is_err());
        assert!(!QUIET.get());
        assert_eq!(catch_quietly(|| 7).unwrap(), 7);
    }
}
