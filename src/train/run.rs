//! Runs a job from its files to its output folder: opens and checks all inputs, then trains.
//!
//! Rejects problems with the model, the data or the folder before any device work and before
//! writing anything. [`super::trainer`] does the training.

use std::path::Path;

use super::chunk_length::ChunkLength;
use super::fitting::with_weights;
use super::held::CHECKPOINTS;
use super::job::{Method, TrainJob};
use super::job_data::{notes_on, read_data};
use super::observer::{Observer, Summary};
use super::planned::Forecast;
use super::preference::ObjectiveKind;
use super::run_folder::RunFolder;
use super::trainer::Trainer;
use crate::checkpoint::model_files::ModelFiles;
use crate::data::dataset::Dataset;
use crate::error::{Context, Result};
use crate::gpu::Executor;
use crate::optim::require;

/// Runs a job.
pub fn run(job: &TrainJob, device: &mut dyn Executor, observer: &mut dyn Observer) -> Result<Summary> {
    job.validate()?;
    let files = ModelFiles::open_scaled(&job.model, job.adapter.as_deref(), job.rope_scaling)?;
    run_valid(job, &files, device, observer)
}

/// Forecasts [`run_opened`]: checks all that it checks, measures the gradients of one step, and
/// writes nothing.
pub fn dry_run(
    job: &TrainJob,
    files: &ModelFiles,
    device: &mut dyn Executor,
    observer: &mut dyn Observer,
) -> Result<Forecast> {
    job.validate()?;
    let (_, data, mut trainer) = prepared(job, files, device, observer)?;
    observer.stage("measuring a step");
    trainer.forecast(device, &data.train.examples, true)
}

/// [`run`] on an open model, with the adapter and the RoPE scaling it was opened with.
pub fn run_opened(
    job: &TrainJob,
    files: &ModelFiles,
    device: &mut dyn Executor,
    observer: &mut dyn Observer,
) -> Result<Summary> {
    job.validate()?;
    run_valid(job, files, device, observer)
}

fn run_valid(
    job: &TrainJob,
    files: &ModelFiles,
    device: &mut dyn Executor,
    observer: &mut dyn Observer,
) -> Result<Summary> {
    let (mut folder, data, mut trainer) = prepared(job, files, device, observer)?;
    observer.forecast(&trainer.forecast(device, &data.train.examples, false)?);
    folder.make([&data.train.examples, data.valid.as_ref().map_or(&[], |valid| &valid.examples)])?;
    if let Some(state) = folder.take_state() {
        trainer.load_state(device, &state).context("resuming")?;
        observer.note(&format!("the run in {} resumes after step {}", job.out.display(), trainer.n_steps()));
    }
    let done = trainer.fit(device, &data, Some(&mut folder), observer);
    done.map_err(|e| {
        let e = folder.explained(e);
        folder.record_failure(&e);
        e
    })
}

/// Opens what a run needs, and rejects a job that cannot run; writes nothing.
fn prepared<'a>(
    job: &TrainJob,
    files: &'a ModelFiles,
    device: &mut dyn Executor,
    observer: &mut dyn Observer,
) -> Result<(RunFolder<'a>, Dataset, Trainer)> {
    let is_within = |path: &Path, folder: &Path| {
        let folder = folder.canonicalize();
        path.canonicalize().is_ok_and(|path| folder.is_ok_and(|folder| path.starts_with(folder)))
    };
    let (adapter, checkpoints) = (job.adapter.as_deref(), job.out.join(CHECKPOINTS));
    require(job.objective != ObjectiveKind::Dpo || !adapter.is_some_and(|path| is_within(path, &job.out)), || {
        "`out` holds `adapter`, which `objective` dpo compares with during the whole run: choose another folder".into()
    })?;
    for (field, path) in [("adapter", adapter), ("model", Some(Path::new(&job.model)))] {
        require(!path.is_some_and(|path| is_within(path, &checkpoints)), || {
            format!(
                "`{field}` is among the checkpoints in `out`, and a new run removes the checkpoints of earlier runs: choose \
                 another `out`"
            )
        })?;
    }
    let folder = RunFolder::open(job, files)?;
    if job.method == Method::Full {
        // Fails now rather than at the first save.
        files.config().to_hf_json().context("`method` full writes a Hugging Face model")?;
    }
    if let Some(layers) = files.config().windows_note() {
        observer.note(&layers);
    }
    observer.stage("reading the data");
    let data = read_data(job, files, observer)?;
    observer.stage("loading the model");
    let mut trainer = Trainer::of_valid(device, files, job).map_err(|e| with_weights(e, files, device))?;
    for text in notes_on(job, files, trainer.attention, &data.train.examples) {
        observer.note(&text);
    }
    observer.stage("planning the memory of the largest step");
    trainer.check_largest(device, &data.train.examples)?;
    if let (ChunkLength::Auto, Some(chunk)) = (job.chunk, trainer.chunk()) {
        observer.note(&format!(
            "the longest batch does not fit at once: long sequences stream in chunks of {chunk} tokens"
        ));
    }
    Ok((folder, data, trainer))
}
