//! Benchmark of optimiser steps at one length, and their memory.

use std::time::Instant;

use super::measure::time_runs;
use super::report::{Activity, ModelRow};
use super::subject::Subject;
use crate::attention::Attention;
use crate::checkpoint::adapter_file::Adapter;
use crate::checkpoint::load::{Decay, Loaded, Train, load};
use crate::error::{Context, Result};
use crate::gpu::{Device, Executor};
use crate::train::{StepSettings, Stepper, TrainJob};

/// The model with what the activity trains, and a stepper for it with the optimiser that a job has
/// by default.
pub(super) fn open(
    device: &mut dyn Executor,
    subject: &Subject,
    activity: Activity,
    settings: StepSettings,
) -> Result<(Loaded, Stepper)> {
    let job = TrainJob::default();
    let config = subject.source.config();
    let loaded = if activity == Activity::TrainLora {
        let adapter = Adapter::fresh(job.new_adapter(config)?, config, 0)?;
        load(device, &subject.source, Some(&adapter), Train::Adapter(Decay::All))?
    } else {
        load(device, &subject.source, None, Train::All(Decay::All))?
    };
    let stepper = Stepper::new(device, &loaded, job.update_rule()?, settings)?;
    Ok((loaded, stepper))
}

/// The memory of an optimiser step on one sequence of `length` tokens, as a run with these settings
/// would plan it. Computes nothing.
pub fn memory_row(
    mut device: Device,
    subject: &Subject,
    activity: Activity,
    attention: Attention,
    length: usize,
    settings: StepSettings,
) -> Result<ModelRow> {
    let device = device.as_mut();
    let (mut loaded, stepper) = open(device, subject, activity, settings)?;
    let bytes = stepper.planned_bytes(device, &mut loaded, &subject.batch(length), attention);
    let mut row = ModelRow::new(activity, attention, length, length, None);
    row.peak_bytes = bytes.context(activity.name())?;
    (row.recompute, row.chunk) = (settings.recompute, settings.chunk);
    Ok(row)
}

/// Times optimiser steps on one sequence of `length` tokens, for about `budget` seconds after the
/// first. `device` must be newly opened: nothing compiled, no memory in use.
pub fn training_row(
    mut device: Device,
    subject: &Subject,
    activity: Activity,
    attention: Attention,
    length: usize,
    settings: StepSettings,
    budget: f64,
) -> Result<ModelRow> {
    let device = device.as_mut();
    let (mut loaded, mut stepper) = open(device, subject, activity, settings)?;
    let batch = [subject.batch(length)];
    device.wait()?;
    let runs = time_runs(budget, || {
        let start = Instant::now();
        stepper.step(device, &mut loaded, &batch, attention, 1e-5)?;
        device.wait()?;
        Ok(start.elapsed().as_secs_f64())
    });
    let mut row = ModelRow::new(activity, attention, length, length, Some(&runs.context(activity.name())?));
    row.peak_bytes = device.memory().peak_bytes();
    (row.recompute, row.chunk) = (settings.recompute, settings.chunk);
    Ok(row)
}
