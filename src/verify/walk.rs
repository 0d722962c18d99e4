//! Walks a recording on a device and compares each dispatch with its f64 reference.
//!
//! Each dispatch is compared alone: the reference gets the device's own inputs, so that the first
//! wrong kernel is named and errors do not accumulate. `dispatch_check.rs` checks one dispatch.

use super::Mismatch;
use super::dispatch_check::DispatchCheck;
use crate::error::Result;
use crate::gpu::{Command, Executor, Recording};

/// Runs `recording` on the device and passes a check of each dispatch, with the device's inputs, to
/// `visit`, which runs it in place.
pub fn visit(
    device: &mut dyn Executor,
    recording: &Recording,
    mut visit: impl FnMut(&mut dyn Executor, DispatchCheck) -> Result<()>,
) -> Result<()> {
    for (i, command) in recording.promoted().commands().iter().enumerate() {
        match command {
            Command::Dispatch(d) => {
                let check = DispatchCheck::capture(device, d, i)?;
                visit(device, check)?;
            }
            other => {
                let mut alone = Recording::new();
                alone.push(other.clone());
                device.run(&alone)?;
            }
        }
    }
    Ok(())
}

/// Runs `recording` on the device and reports one mismatch per written buffer of each dispatch.
pub fn compare(device: &mut dyn Executor, recording: &Recording) -> Result<Vec<Mismatch>> {
    let mut found = Vec::new();
    visit(device, recording, |device, check| {
        found.extend(check.run_in_place(device)?.0);
        Ok(())
    })?;
    Ok(found)
}

/// Like [`compare`], but also runs each dispatch in guarded buffers: see
/// [`DispatchCheck::examine`].
pub fn examine(device: &mut dyn Executor, recording: &Recording) -> Result<Vec<Mismatch>> {
    let mut found = Vec::new();
    visit(device, recording, |device, check| {
        found.extend(check.examine(device)?);
        Ok(())
    })?;
    Ok(found)
}
