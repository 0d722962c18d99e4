//! The time of a training step by kernel.

use super::report::{Activity, KernelShare, Profile, attention_name};
use super::subject::Subject;
use super::training::open;
use crate::attention::Attention;
use crate::error::{Context, Result};
use crate::gpu::{Command, Device, Executor, Recording};
use crate::train::{Objective, StepSettings};

/// The time of each kernel in one warm step on one sequence of `length` tokens: forward, backward
/// and update. Each command is timed on its own, so the sum exceeds the time of a step.
pub fn training_profile(
    mut device: Device,
    subject: &Subject,
    activity: Activity,
    attention: Attention,
    length: usize,
    recompute: bool,
) -> Result<Profile> {
    let device = device.as_mut();
    let (mut loaded, stepper) = open(device, subject, activity, StepSettings { recompute, ..StepSettings::default() })?;
    let batch = subject.batch(length);
    let objective = Objective {
        attention,
        scale: 1.0 / batch.n_targets as f32,
        dropout: None,
        distill: None,
        preference: None,
        kept: None,
    };
    let gradients = stepper.gradients();
    let step = gradients.record(device, &mut loaded, &batch, &objective).context(activity.name())?;
    let mut update = Recording::new();
    gradients.record_clear(&mut update, &loaded);
    let mut warm_up = update.clone();
    stepper.record_update(&mut update, &loaded)?;
    step.commands().iter().chain(update.commands()).for_each(|c| warm_up.push(c.clone()));
    device.run(&warm_up)?;
    let mut kernels = Vec::new();
    for recording in [&step, &update] {
        add_times(device, recording, &mut kernels)?;
    }
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(Profile { activity, attention: attention_name(attention), length, kernels })
}

/// Runs a recording and adds the time of each command to its kernel's total.
fn add_times(device: &mut dyn Executor, recording: &Recording, kernels: &mut Vec<KernelShare>) -> Result<()> {
    let timings = device.run_timed(recording)?;
    for (command, timing) in recording.commands().iter().zip(timings) {
        let kernel = match command {
            Command::Dispatch(d) => device.kernel_of(d).name(),
            Command::Copy { .. } => "a copy".to_string(),
            Command::Clear(_) => "a fill with zeros".to_string(),
        };
        match kernels.iter_mut().find(|k| k.kernel == kernel) {
            Some(share) => {
                share.dispatches += 1;
                share.seconds += timing.seconds;
            }
            None => kernels.push(KernelShare { kernel, dispatches: 1, seconds: timing.seconds }),
        }
    }
    Ok(())
}
