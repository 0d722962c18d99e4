//! Runs a job from its files to its output folder: opens and checks all inputs, then trains.
//!
//! Rejects problems with the model, the data or the folder before any device work and before
//! writing anything. [`super::trainer`] does the training.

use super::chunk_length::ChunkLength;
use super::job::{Method, TrainJob};
use super::observer::{Observer, Summary};
use super::planned::Forecast;
use super::preference::ObjectiveKind;
use super::run_folder::RunFolder;
use super::trainer::Trainer;
use crate::attention::Attention;
use crate::checkpoint::model_files::ModelFiles;
use crate::data::dataset::{Dataset, Example, Reader, Split};
use crate::error::{Context, Error, Result};
use crate::gpu::Executor;
use crate::optim::require;
use crate::text::tokenizer::Tokenizer;

/// Runs a job.
pub fn run(job: &TrainJob, device: &mut dyn Executor, observer: &mut dyn Observer) -> Result<Summary> {
    job.validate()?;
    let files = ModelFiles::open(&job.model, job.adapter.as_deref())?;
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
    trainer.forecast(device, &data.train.examples, true)
}

/// [`run`] on an open model, with the adapter it was opened with.
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
    done.map_err(|e| folder.explained(e))
}

/// Opens what a run needs, and rejects a job that cannot run; writes nothing.
fn prepared<'a>(
    job: &TrainJob,
    files: &'a ModelFiles,
    device: &mut dyn Executor,
    observer: &mut dyn Observer,
) -> Result<(RunFolder<'a>, Dataset, Trainer)> {
    if let Some(adapter) = job.adapter.as_deref().filter(|_| job.objective == ObjectiveKind::Dpo) {
        let is_out = adapter.canonicalize().is_ok_and(|adapter| job.out.canonicalize().is_ok_and(|out| out == adapter));
        require(!is_out, || {
            "`out` is the folder of `adapter`, which `objective` dpo compares with during the whole run: choose another one"
                .into()
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
    let data = read_data(job, files, observer)?;
    let mut trainer = Trainer::of_valid(device, files, job)?;
    if let Some(text) = note_on_compression(trainer.attention, &data.train.examples) {
        observer.note(&text);
    }
    trainer.check_largest(device, &data.train.examples)?;
    if let (ChunkLength::Auto, Some(chunk)) = (job.chunk, trainer.chunk()) {
        observer.note(&format!(
            "the longest batch does not fit at once: long sequences stream in chunks of {chunk} tokens"
        ));
    }
    Ok((folder, data, trainer))
}

/// Says how many examples LRSA compresses, if it is few: nothing of a text is dropped before it has
/// S + 2L tokens.
fn note_on_compression(attention: Attention, examples: &[Example]) -> Option<String> {
    let Attention::Lrsa(lrsa) = attention else { return None };
    let shortest = lrsa.sink() + 2 * lrsa.lag();
    let n = examples.iter().filter(|e| e.longest() > shortest).count();
    let longest = examples.iter().map(Example::longest).max()?;
    if 2 * n >= examples.len() {
        return None;
    }
    // Half of the longest text is then in whole partitions that can be compressed.
    let lag = longest.saturating_sub(lrsa.sink()) / 4;
    let advice = match 1 << lag.checked_ilog2().unwrap_or(0) {
        lag @ 8.. if lag < lrsa.lag() => format!("; `lag` {lag} compresses the longest one, of {longest} tokens"),
        _ => String::new(),
    };
    Some(format!(
        "{n} of {} training examples have more than S + 2L = {shortest} tokens; the others are short for LRSA, which is \
         dense attention there{advice}",
        examples.len()
    ))
}

/// Reads a job's data and rejects sequences longer than the model's positions. Notes truncated and
/// skipped examples.
pub fn read_data(job: &TrainJob, files: &ModelFiles, observer: &mut dyn Observer) -> Result<Dataset> {
    let own = files.config().max_positions;
    let limit = job.max_positions.unwrap_or(own);
    let whose = if job.max_positions.is_some() { "`max_positions`" } else { "the model" };
    if let Some(n) = job.max_length.filter(|&n| n > limit) {
        return Err(Error::usage(format!(
            "`max_length` {n} exceeds the {limit} positions that {whose} allows: lower it, or lift the limit with \
             `max_positions` {n} (RoPE stays unchanged)"
        )));
    }
    let reader = Reader {
        tokenizer: files.tokenizer().ok(),
        template: files.template.as_ref(),
        eos: files.stop.first(),
        vocab_size: files.config().vocab,
        max_length: job.max_length,
        pairs: job.objective.takes_pairs(),
    };
    if !job.data.exists() {
        return Err(Error::usage(format!("`data` {} does not exist", job.data.display())));
    }
    let data = reader.read(&job.data)?;
    if let Some(note) = reader.tokenizer.and_then(Tokenizer::take_note) {
        observer.note(&note);
    }
    let splits = [("training", Some(&data.train)), ("validation", data.valid.as_ref())];
    let mut longest = 0;
    for (name, split) in splits.into_iter().filter_map(|(name, split)| split.map(|s| (name, s))) {
        job.objective.check(&split.examples).with_context(|| job.data.display().to_string())?;
        note_losses(name, split, job, observer);
        longest = split.examples.iter().map(Example::longest).fold(longest, usize::max);
    }
    if longest > limit {
        return Err(Error::usage(format!(
            "the longest example has {longest} tokens, more than the {limit} positions that {whose} allows: cut examples with \
             `max_length` {limit}, or lift the limit with `max_positions` {longest} (RoPE stays unchanged)"
        )));
    }
    if job.eval_every > 0 && data.valid.is_none() {
        observer.note(&format!(
            "`eval_every` has nothing to evaluate: {} has no validation data, such as valid.jsonl",
            job.data.display()
        ));
    }
    if longest > own {
        observer.note(&format!(
            "examples of up to {longest} tokens reach beyond the {own} positions that the model was made for; `max_positions` \
             lifts the limit and leaves RoPE unchanged: later positions are rotated further than in pretraining"
        ));
    }
    Ok(data)
}

fn note_losses(name: &str, split: &Split, job: &TrainJob, observer: &mut dyn Observer) {
    let n = split.examples.len() + split.n_dropped;
    if let (Some(max), 1..) = (job.max_length, split.n_truncated) {
        observer.note(&format!(
            "{} of {n} {name} examples are longer than `max_length` {max} and are truncated",
            split.n_truncated
        ));
    }
    if split.n_dropped > 0 {
        observer
            .note(&format!("{} of {n} {name} examples are skipped: they have no token to train on", split.n_dropped));
    }
}
