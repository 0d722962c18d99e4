//! A model in training with its optimiser: evaluates, saves, and reads and loads its state.
//!
//! `fit.rs` runs the training loop and `stepper.rs` one step; `run.rs` opens files and rejects
//! invalid inputs.

use std::path::{Path, PathBuf};

use super::chunk_length::{ChunkLength, candidates};
use super::job::{Method, TrainJob};
use super::job_data::lengths_of;
use super::largest::LargestBatch;
use super::observer::EvalLine;
use super::planned::PlannedMemory;
use super::preference::ObjectiveKind;
use super::run_folder::RunFolder;
use super::save::save;
use super::state::TrainerState;
use super::stepper::{StepSettings, Stepper};
use crate::attention::Attention;
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::checkpoint::adapter_file::Adapter;
use crate::checkpoint::load::{Loaded, Train, load};
use crate::checkpoint::model_files::ModelFiles;
use crate::data::batch::Batch;
use crate::data::dataset::Example;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::gpu::Executor;
use crate::optim::{Stored, matching, read_stored, write_stored};

/// A model on a device with its optimiser.
pub struct Trainer {
    /// The model; it can generate at any time.
    pub loaded: Loaded,
    /// The attention for evaluation; it is recorded with the result.
    pub attention: Attention,
    pub(super) job: TrainJob,
    pub(super) stepper: Stepper,
    /// The trained adapter's configuration, `None` for full fine-tuning.
    adapter: Option<AdapterConfig>,
    /// Epoch of the next step, and how many of its examples were used.
    pub(super) place: (u64, usize),
}

impl Trainer {
    /// Loads the model with a new adapter, with the adapter that `files` was opened with, or for
    /// full fine-tuning. Uses the job's settings and ignores its paths.
    pub fn new(device: &mut dyn Executor, files: &ModelFiles, job: &TrainJob) -> Result<Self> {
        job.validate()?;
        Self::of_valid(device, files, job)
    }

    /// [`Trainer::new`] for a validated job.
    pub(super) fn of_valid(device: &mut dyn Executor, files: &ModelFiles, job: &TrainJob) -> Result<Self> {
        if let Some(scaling) = job.rope_scaling.filter(|scaling| files.rope_scaling() != Some(*scaling)) {
            return Err(Error::usage(format!(
                "the job has `rope_scaling` {scaling}, and the model was opened without it: open it with the job's"
            )));
        }
        let attention = job.attention(files.recorded)?;
        let (mut adapter, train) = match job.method {
            Method::Full => (None, Train::All(job.decay)),
            Method::Lora => {
                // A new adapter begins as none, which is the reference then.
                let continued = job.objective == ObjectiveKind::Dpo && files.adapter.is_some();
                let train = if continued { Train::AdapterWithReference } else { Train::Adapter };
                (Some(adapter_of(files, job)?), train(job.decay))
            }
        };
        let distill = job.distillation();
        if let Some(distill) = distill {
            distill.teacher.check(adapter.as_ref().map(|a| &a.config))?;
        }
        let preference = job.preference();
        if let Some(preference) = preference {
            preference.check(adapter.as_ref().map(|a| &a.config))?;
        }
        // What is saved keeps the dropout that the adapter came with.
        let config = adapter.as_ref().map(|a| a.config.clone());
        if let Some(adapter) = &mut adapter {
            adapter.config.dropout = job.dropout_of_steps(adapter.config.dropout);
        }
        let loaded = load(device, &files.source, adapter.as_ref(), train)?;
        let seed = (job.seed ^ (job.seed >> 32)) as u32;
        let (chunk, recompute) = (job.chunk.given(), job.recompute);
        let TrainJob { clip, neftune, lora_plus, .. } = *job;
        let settings = StepSettings { clip, recompute, chunk, seed, neftune, lora_plus, distill, preference };
        let stepper = Stepper::new(device, &loaded, job.update_rule()?, settings)?;
        Ok(Self { loaded, attention, job: job.clone(), stepper, adapter: config, place: (0, 0) })
    }

    /// Optimiser steps done so far.
    pub fn n_steps(&self) -> u64 {
        self.stepper.n_steps()
    }

    /// Reads the state for [`Trainer::load_state`]. Call it between runs of [`Trainer::fit`].
    pub fn state(&self, device: &mut dyn Executor) -> Result<TrainerState> {
        let parameters = read_stored(device, &self.parameters())?;
        let optimizer = self.stepper.optimizer_state(device)?;
        let ((epoch, position), micro_batches) = (self.place, self.stepper.n_micro());
        Ok(TrainerState { parameters, optimizer, micro_batches, epoch, position, chunk: self.chunk() })
    }

    /// Continues from the state of a trainer of the same job. Fails, and changes nothing, if the
    /// state is for other parameters or another optimiser.
    pub fn load_state(&mut self, device: &mut dyn Executor, state: &TrainerState) -> Result<()> {
        let parameters = self.parameters();
        let values = matching(&parameters, &state.parameters)?;
        self.stepper.load_state(device, &state.optimizer, state.micro_batches)?;
        write_stored(device, &parameters, &values)?;
        self.place = (state.epoch, state.position);
        self.stepper.set_chunk(state.chunk);
        Ok(())
    }

    /// The trained tensors by name.
    fn parameters(&self) -> Vec<Stored> {
        self.loaded.trainables.iter().map(|t| Stored::of(t.name.clone(), &t.value)).collect()
    }

    /// Mean loss over the labelled tokens of `examples`, or over their preference pairs, with any
    /// attention, without dropout or training.
    pub fn evaluate(
        &mut self,
        device: &mut dyn Executor,
        examples: &[Example],
        attention: Attention,
    ) -> Result<EvalLine> {
        self.job.objective.check(examples)?;
        let lengths = lengths_of(examples);
        let ends = self.job.batch_limit(&lengths).ends(lengths);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let batches = starts.zip(&ends).map(|(start, &end)| Batch::new(&examples[start..end]));
        if let Some(preference) = self.job.preference() {
            crate::ensure!(!examples.is_empty(), "the validation data has no pairs: there is no loss to compute");
            let batches: Vec<Batch> = batches.collect();
            let tokens = batches.iter().map(|b| b.n_targets).sum();
            let step = self.stepper.gradients();
            let (loss, pairs) = step.evaluate_pairs(device, &mut self.loaded, &batches, attention, preference)?;
            return Ok(EvalLine { step: self.n_steps(), loss, perplexity: None, pairs: Some(pairs), tokens });
        }
        let (mut sum, mut tokens) = (0.0, 0);
        for batch in batches {
            let (loss, n) = self.stepper.gradients().evaluate(device, &mut self.loaded, &batch, attention)?;
            sum += loss;
            tokens += n;
        }
        crate::ensure!(tokens > 0, "no token of the validation data has a label: there is no loss to compute");
        let loss = sum / tokens as f64;
        Ok(EvalLine { step: self.n_steps(), loss, perplexity: Some(loss.exp()), pairs: None, tokens })
    }

    /// Saves a checkpoint of this step, and its adapter or model as the result, in a run's folder.
    pub fn save(&self, device: &mut dyn Executor, folder: &mut RunFolder<'_>) -> Result<()> {
        let files = folder.files;
        folder.save(self.n_steps(), |dir| self.write(device, dir, files)).context("saving")
    }

    /// Saves a checkpoint of this step, and leaves the result as it is. Returns its folder.
    pub(super) fn save_checkpoint(&self, device: &mut dyn Executor, folder: &mut RunFolder<'_>) -> Result<PathBuf> {
        let files = folder.files;
        folder.save_checkpoint(self.n_steps(), |dir| self.write(device, dir, files)).context("saving")
    }

    /// Writes the adapter or the model to a folder and returns the state.
    fn write(&self, device: &mut dyn Executor, dir: &Path, files: &ModelFiles) -> Result<TrainerState> {
        save(device, dir, files, &self.loaded, self.adapter.as_ref(), self.attention)?;
        self.state(device)
    }

    /// Rejects data whose largest batch, made of the longest examples, is known not to fit on the
    /// device. Where the job leaves the length of chunks open, takes the longest one with which it
    /// fits. Records that batch and computes nothing; without this check, [`Trainer::fit`] fails at
    /// the step with that batch.
    pub fn check_largest(&mut self, device: &mut dyn Executor, examples: &[Example]) -> Result<()> {
        let largest = self.largest(examples)?;
        let most_tokens = largest.first().map_or(0, |l| l.batch.ids.len());
        let mut checked = Ok(());
        for chunk in self.candidates(most_tokens) {
            self.stepper.set_chunk(chunk);
            checked = largest.iter().try_for_each(|largest| self.check(device, largest));
            match &checked {
                Err(e) if e.kind() == ErrorKind::OutOfMemory => {}
                _ => break,
            }
        }
        checked.map_err(|e| {
            let fits = if e.kind() == ErrorKind::OutOfMemory { self.nearest_that_fits(device, examples) } else { None };
            let e = match fits {
                Some(settings) => {
                    e.context(format!("a batch of {most_tokens} tokens does not fit; it fits with {settings}"))
                }
                None => self.with_advice(e, examples, most_tokens),
            };
            e.context("before the first step")
        })
    }

    /// [`TrainJob::largest_batches`] of whole examples in the job's own batches.
    fn largest(&self, examples: &[Example]) -> Result<Vec<LargestBatch>> {
        self.job.largest_batches(self.attention, examples, self.job.batch_limit(&lengths_of(examples)), usize::MAX)
    }

    /// Rejects a batch that is known not to fit with one of its attentions.
    pub(super) fn check(&mut self, device: &mut dyn Executor, largest: &LargestBatch) -> Result<()> {
        let LargestBatch { batch, attentions } = largest;
        attentions.iter().try_for_each(|&attention| self.stepper.check(device, &mut self.loaded, batch, attention))
    }

    fn candidates(&self, n_tokens: usize) -> Vec<Option<usize>> {
        self.chunks_of(self.job.chunk, n_tokens)
    }

    /// The lengths of chunks to try for a batch of `n_tokens`.
    pub(super) fn chunks_of(&self, chunk: ChunkLength, n_tokens: usize) -> Vec<Option<usize>> {
        let lag = match self.attention {
            Attention::Dense => 1,
            Attention::Lrsa(l) => l.lag(),
        };
        candidates(chunk, n_tokens, lag)
    }

    /// Takes the next shorter chunk after a batch of `n_tokens` had too little memory; returns it.
    /// `None` if the job names the length, or if there is no shorter one.
    pub(super) fn shorten_chunk(&mut self, n_tokens: usize) -> Option<usize> {
        let now = self.stepper.chunk();
        let shorter = |c: &Option<usize>| c.is_some_and(|c| now.is_none_or(|now| c < now));
        let next = self.candidates(n_tokens).into_iter().find(shorter)?;
        self.stepper.set_chunk(next);
        next
    }

    /// The length of the chunks in which long sequences stream, `None` if none does.
    pub fn chunk(&self) -> Option<usize> {
        self.stepper.chunk()
    }

    /// Peak device bytes of training on these examples, including the weights. Records their
    /// largest batch and computes nothing.
    pub fn planned_bytes(&mut self, device: &mut dyn Executor, examples: &[Example]) -> Result<u64> {
        Ok(self.planned(device, examples)?.peak())
    }

    /// [`Trainer::planned_bytes`] by purpose.
    pub fn planned(&mut self, device: &mut dyn Executor, examples: &[Example]) -> Result<PlannedMemory> {
        self.planned_within(device, examples, usize::MAX)
    }

    /// [`Trainer::planned`] if no sequence is longer than `max_length` tokens.
    pub fn planned_within(
        &mut self,
        device: &mut dyn Executor,
        examples: &[Example],
        max_length: usize,
    ) -> Result<PlannedMemory> {
        let limit = self.job.batch_limit(&lengths_of(examples));
        let mut all = Vec::new();
        for LargestBatch { batch, attentions } in
            self.job.largest_batches(self.attention, examples, limit, max_length)?
        {
            for attention in attentions {
                all.push(self.stepper.planned(device, &mut self.loaded, &batch, attention)?);
            }
        }
        let most = all.into_iter().max_by_key(PlannedMemory::peak);
        most.ok_or_else(|| Error::usage("there are no examples: a run on none has no step to plan"))
    }

    /// Tokens of the largest batch of these examples.
    pub(super) fn most_tokens(&self, examples: &[Example]) -> usize {
        Batch::largest(examples, self.job.batch_limit(&lengths_of(examples)), usize::MAX).ids.len()
    }

    /// Adds advice on memory if the error is about a lack of it.
    pub(super) fn with_advice(&self, e: Error, examples: &[Example], n_tokens: usize) -> Error {
        if e.kind() != ErrorKind::OutOfMemory {
            return e;
        }
        let recompute = if self.job.recompute { "" } else { "`recompute`, " };
        let chunk = if self.job.chunk == ChunkLength::Auto { "" } else { "a smaller `chunk`, " };
        let is_dense = |attention: Attention| matches!(attention, Attention::Lrsa(l) if l.keep() == 1.0);
        let attentions = self.largest(examples).unwrap_or_default().into_iter().flat_map(|l| l.attentions);
        let keep = if attentions.into_iter().any(is_dense) { "`keep` without dense steps, " } else { "" };
        let size = if self.job.batch_tokens.is_some() { "batch_tokens" } else { "batch_size" };
        e.context(format!(
            "a batch of {n_tokens} tokens does not fit: use {recompute}{chunk}{keep}a smaller `{size}` (with `accumulate`) or \
             `max_length`"
        ))
    }
}

/// The adapter to train: the opened one, or a new one.
fn adapter_of(files: &ModelFiles, job: &TrainJob) -> Result<Adapter> {
    let Some(opened) = &files.adapter else {
        return Adapter::fresh(job.new_adapter(files.config())?, files.config(), job.seed);
    };
    let mut adapter = opened.clone();
    if let Some(dropout) = job.dropout {
        adapter.config.dropout = dropout;
    }
    if !job.model.is_empty() {
        adapter.config.base_model = Some(job.model.clone());
    }
    Ok(adapter)
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
