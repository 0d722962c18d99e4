//! Walks a recording dispatch by dispatch on a device and compares each with its f64 twin.
//!
//! Every dispatch is judged alone: the twin is fed the device's own inputs, so that the first wrong kernel is named and
//! errors do not add up along the way. `trial.rs` is what happens to one dispatch.

use super::Difference;
use super::dispatch_check::Trial;
use crate::error::Result;
use crate::gpu::{Command, Executor, Recording};

/// Runs `recording` on the device and hands a trial of each dispatch, with its inputs as the device has them, to `visit`,
/// which runs it in place.
pub fn visit(
    device: &mut dyn Executor,
    recording: &Recording,
    mut visit: impl FnMut(&mut dyn Executor, Trial) -> Result<()>,
) -> Result<()> {
    for (i, command) in recording.promoted().commands().iter().enumerate() {
        match command {
            Command::Dispatch(d) => {
                let trial = Trial::capture(device, d, i)?;
                visit(device, trial)?;
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

/// Runs `recording` on the device and reports one difference for each written buffer of each dispatch.
pub fn compare(device: &mut dyn Executor, recording: &Recording) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    visit(device, recording, |device, trial| {
        found.extend(trial.run_in_place(device)?.0);
        Ok(())
    })?;
    Ok(found)
}

/// As [`compare`], and runs each dispatch once more in guarded buffers: see [`Trial::examine`].
pub fn examine(device: &mut dyn Executor, recording: &Recording) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    visit(device, recording, |device, trial| {
        found.extend(trial.examine(device)?);
        Ok(())
    })?;
    Ok(found)
}
