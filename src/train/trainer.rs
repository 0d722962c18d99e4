//! A model being trained: steps, evaluations and saves as a job describes them, on data that is already in memory.
//!
//! Opening files and refusing what cannot work is [`super::run`]'s matter; one step is [`super::Stepper`]'s.

use std::time::Instant;

use rand::RngExt;

use super::job::{Method, TrainJob};
use super::observer::{EvalLine, Observer, StepLine, Summary};
use super::run_folder::RunFolder;
use super::save::save;
use super::state::TrainerState;
use super::step_clock::StepClock;
use super::stepper::{StartedStep, StepSettings, Stepper};
use crate::attention::Attention;
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::checkpoint::adapter_file::Adapter;
use crate::checkpoint::load::{Loaded, Train, load};
use crate::checkpoint::model_files::ModelFiles;
use crate::data::batch::{Batch, Sampler};
use crate::data::dataset::{Dataset, Example};
use crate::data::rng::seeded;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::formats::host_tensor::HostTensor;
use crate::gpu::Executor;
use crate::optim::matching_values;

/// A model on a device with its optimiser.
pub struct Trainer {
    /// The model; generate with it at any time.
    pub loaded: Loaded,
    /// The attention it is evaluated with and that is recorded beside it.
    pub attention: Attention,
    /// Those that steps draw from; `attention` alone where the job names no list.
    attentions: Vec<Attention>,
    job: TrainJob,
    stepper: Stepper,
    /// Of the adapter that is trained, `None` for full fine-tuning.
    adapter: Option<AdapterConfig>,
    /// Epoch of the next step, and how many of its examples were visited.
    place: (u64, usize),
}

impl Trainer {
    /// Loads the model with a new adapter, the adapter that `files` was opened with, or for full fine-tuning. Of the job
    /// only the settings count; its paths are not looked at.
    pub fn new(device: &mut dyn Executor, files: &ModelFiles, job: &TrainJob) -> Result<Self> {
        job.validate()?;
        Self::of_valid(device, files, job)
    }

    /// [`Trainer::new`] for a job that was validated.
    pub(super) fn of_valid(device: &mut dyn Executor, files: &ModelFiles, job: &TrainJob) -> Result<Self> {
        let attention = job.attention(files.recorded)?;
        let (adapter, train) = match job.method {
            Method::Full => (None, Train::All(job.decay)),
            Method::Lora => (Some(adapter_of(files, job)?), Train::Adapter(job.decay)),
        };
        let loaded = load(device, &files.source, adapter.as_ref(), train)?;
        let seed = (job.seed ^ (job.seed >> 32)) as u32;
        let settings = StepSettings { clip: job.clip, recompute: job.recompute, seed };
        let stepper = Stepper::new(device, &loaded, job.update_rule()?, settings)?;
        let attentions = job.attentions(attention)?;
        let adapter = adapter.map(|a| a.config);
        Ok(Self { loaded, attention, attentions, job: job.clone(), stepper, adapter, place: (0, 0) })
    }

    /// Optimiser steps done so far.
    pub fn n_steps(&self) -> u64 {
        self.stepper.n_steps()
    }

    /// Reads out all that [`Trainer::load_state`] needs. Call it between runs of [`Trainer::fit`].
    pub fn state(&self, device: &mut dyn Executor) -> Result<TrainerState> {
        let mut parameters = Vec::with_capacity(self.loaded.trainables.len());
        for t in &self.loaded.trainables {
            let values = t.value.read(device).with_context(|| format!("reading {}", t.name))?;
            parameters.push((t.name.clone(), HostTensor::from_f32(&[t.value.rows, t.value.cols], &values)));
        }
        let optimizer = self.stepper.optimizer_state(device, &self.loaded)?;
        let ((epoch, position), micro_batches) = (self.place, self.stepper.n_micro());
        Ok(TrainerState { parameters, optimizer, micro_batches, epoch, position })
    }

    /// Goes on where the trainer of the same job was that a state was read from. Fails, and changes nothing, where the state is
    /// of other parameters or of another optimiser.
    pub fn load_state(&mut self, device: &mut dyn Executor, state: &TrainerState) -> Result<()> {
        let parameters: Vec<_> = self.loaded.trainables.iter().map(|t| (t.name.clone(), t.value.clone())).collect();
        let values = matching_values(&parameters, &state.parameters)?;
        self.stepper.load_state(device, &self.loaded, &state.optimizer, state.micro_batches)?;
        for ((_, tensor), values) in parameters.iter().zip(&values) {
            tensor.write(device, values)?;
        }
        self.place = (state.epoch, state.position);
        Ok(())
    }

    /// The attention of a step, by the seed and the step's number alone.
    fn attention_of(&self, step: u64) -> Attention {
        let drawn = seeded(self.job.seed, step).random_range(0..self.attentions.len());
        self.attentions[drawn]
    }

    /// Mean loss over the labelled tokens of `examples` under any attention. Dropout is off and nothing is trained.
    pub fn evaluate(
        &mut self,
        device: &mut dyn Executor,
        examples: &[Example],
        attention: Attention,
    ) -> Result<EvalLine> {
        let (mut sum, mut tokens) = (0.0, 0);
        for part in examples.chunks(self.job.batch_size) {
            let (loss, n) =
                self.stepper.gradients().evaluate(device, &mut self.loaded, &Batch::new(part), attention)?;
            sum += loss;
            tokens += n;
        }
        crate::ensure!(tokens > 0, "no token of the validation data has a label: there is no loss to compute");
        let loss = sum / tokens as f64;
        Ok(EvalLine { step: self.n_steps(), loss, perplexity: loss.exp(), tokens })
    }

    /// Writes the adapter or the model to the folder of a run, which remembers the step.
    pub fn save(&self, device: &mut dyn Executor, folder: &mut RunFolder<'_>) -> Result<()> {
        save(device, folder.dir(), folder.files, &self.loaded, self.adapter.as_ref(), self.attention)
            .context("saving")?;
        folder.saved_at = Some(self.n_steps());
        Ok(())
    }

    /// Trains on `data.train` and evaluates on `data.valid` as the job says, from the step that the trainer is at: that of a run
    /// that was cancelled, or of a loaded state. With a folder, metrics are logged and the result is saved there; without one the
    /// trained model only stays in [`Trainer::loaded`].
    ///
    /// A failing step leaves what was saved before it.
    pub fn fit(
        &mut self,
        device: &mut dyn Executor,
        data: &Dataset,
        folder: Option<&mut RunFolder<'_>>,
        observer: &mut dyn Observer,
    ) -> Result<Summary> {
        let examples = &data.train.examples;
        let mut sampler = Sampler::new(examples.len(), self.job.batch_size, self.job.accumulate, self.job.seed)?;
        sampler.seek(self.place.0, self.place.1)?;
        let total = self.job.total_steps(sampler.steps_per_epoch());
        if self.job.warmup >= total {
            observer.note(&format!(
                "`warmup` {} takes up all {total} steps: the learning rate never reaches its full value",
                self.job.warmup
            ));
        }
        observer.started(total, examples.len());
        device.reset_peak();
        let run = Run {
            valid: data.valid.as_ref().map(|v| v.examples.as_slice()),
            trainer: self,
            device,
            examples,
            sampler,
            total,
            folder,
            observer,
            started: None,
            clock: StepClock::new(),
            totals: Totals::default(),
            eval: None,
            lacks_log: false,
        };
        run.all()
    }

    /// Refuses data whose largest batch, the longest examples at once, is known not to fit on the device. It records that
    /// batch and computes nothing; [`Trainer::fit`] finds the same out at the step that meets it.
    pub fn check_largest(&mut self, device: &mut dyn Executor, examples: &[Example]) -> Result<()> {
        let batch = self.largest(examples);
        let mut check = |&attention| self.stepper.check(device, &mut self.loaded, &batch, attention);
        let checked = self.attentions.iter().try_for_each(&mut check);
        checked.map_err(|e| self.with_advice(e, batch.ids.len()).context("before the first step"))
    }

    /// Bytes on the device at the peak of training on these examples, the weights included. It records their largest batch and
    /// computes nothing.
    pub fn planned_bytes(&mut self, device: &mut dyn Executor, examples: &[Example]) -> Result<u64> {
        let batch = self.largest(examples);
        let mut most = 0;
        for &attention in &self.attentions {
            most = most.max(self.stepper.planned_bytes(device, &mut self.loaded, &batch, attention)?);
        }
        Ok(most)
    }

    /// The longest examples at once.
    fn largest(&self, examples: &[Example]) -> Batch {
        let mut longest: Vec<&Example> = examples.iter().collect();
        longest.sort_by_key(|e| std::cmp::Reverse(e.ids.len()));
        Batch::new(longest.into_iter().take(self.job.batch_size))
    }

    /// Says what would need less memory, where that is what was missing.
    fn with_advice(&self, e: Error, n_tokens: usize) -> Error {
        if e.kind() != ErrorKind::OutOfMemory {
            return e;
        }
        let recompute = if self.job.recompute { "" } else { "`recompute`, " };
        e.context(format!(
            "a batch of {n_tokens} tokens does not fit: use {recompute}a smaller `batch_size` (with `accumulate`) or `max_length`"
        ))
    }
}

/// The adapter to train: the one that was opened, or a new one.
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

/// A queued step with what its report will say besides.
struct Started {
    queued: StartedStep,
    step: u64,
    lr: f64,
    /// Tokens of its largest batch.
    most_tokens: usize,
}

/// What the reported steps add up to.
#[derive(Default)]
struct Totals {
    tokens: usize,
    seconds: f64,
    /// Of the last one.
    loss: Option<f64>,
}

/// One call of [`Trainer::fit`].
struct Run<'a, 'f> {
    trainer: &'a mut Trainer,
    device: &'a mut dyn Executor,
    examples: &'a [Example],
    valid: Option<&'a [Example]>,
    sampler: Sampler,
    /// Number of the last step.
    total: u64,
    folder: Option<&'a mut RunFolder<'f>>,
    observer: &'a mut dyn Observer,
    /// The step that is queued and not reported yet.
    started: Option<Started>,
    clock: StepClock,
    totals: Totals,
    eval: Option<EvalLine>,
    /// Whether a line could not be logged, which is said once.
    lacks_log: bool,
}

impl Run<'_, '_> {
    fn all(mut self) -> Result<Summary> {
        let begun = Instant::now();
        let mut cancelled = false;
        while self.done() < self.total {
            cancelled = self.clock.hold(|| self.observer.cancelled());
            if cancelled {
                break;
            }
            self.step()?;
            if self.done() < self.total {
                self.save_and_evaluate_where_due()?;
            }
        }
        self.report_queued()?;
        self.save_at_the_end()?;
        if !cancelled {
            self.evaluate()?;
        }
        let Totals { tokens, seconds, loss } = self.totals;
        Ok(Summary {
            steps: self.done(),
            loss,
            eval_loss: self.eval.map(|e| e.loss),
            tokens,
            seconds: begun.elapsed().as_secs_f64(),
            tokens_per_s: if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 },
            peak_bytes: self.device.memory().peak_bytes(),
            cancelled,
        })
    }

    /// Steps done, the queued one among them.
    fn done(&self) -> u64 {
        self.trainer.n_steps()
    }

    /// Queues the next step and then reports the one before it, so that the device is not kept waiting for the host.
    fn step(&mut self) -> Result<()> {
        let step = self.done() + 1;
        let chosen = self.sampler.next_step();
        let batch = |micro: &Vec<usize>| Batch::new(micro.iter().map(|&i| &self.examples[i]));
        let batches: Vec<Batch> = chosen.iter().map(batch).collect();
        let most_tokens = batches.iter().map(|b| b.ids.len()).max().unwrap_or(0);
        let job = &self.trainer.job;
        let lr = job.schedule.lr(job.learning_rate(), step, job.warmup, self.total);
        if self.started.is_none() {
            self.clock.begin();
        }
        let attention = self.trainer.attention_of(step);
        let queued = self.trainer.stepper.start(self.device, &mut self.trainer.loaded, &batches, attention, lr);
        self.report_queued()?; // whatever became of this one
        self.clock.queued();
        let queued = queued.map_err(|e| self.explained(e, step, most_tokens))?;
        self.trainer.place = self.sampler.place();
        let is_ready = queued.is_ready();
        self.started = Some(Started { queued, step, lr, most_tokens });
        if is_ready { self.report_queued() } else { Ok(()) }
    }

    /// Waits for the queued step, if there is one, and reports it.
    fn report_queued(&mut self) -> Result<()> {
        let Some(Started { queued, step, lr, most_tokens }) = self.started.take() else { return Ok(()) };
        let report = queued.wait().map_err(|e| self.explained(e, step, most_tokens))?;
        let (loss, grad_norm, tokens) = (report.loss, report.grad_norm, report.n_tokens);
        let seconds = self.clock.done(report.done);
        let bytes = self.device.memory().peak_bytes();
        let line = StepLine { step, loss, lr, grad_norm, tokens, seconds, bytes };
        self.log(|folder| folder.log_step(&line));
        self.observer.step(&line);
        self.totals.tokens += tokens;
        self.totals.seconds += seconds;
        self.totals.loss = Some(loss);
        Ok(())
    }

    /// Says what a failed step leaves, and what would need less memory.
    fn explained(&self, e: Error, step: u64, most_tokens: usize) -> Error {
        let e = self.trainer.with_advice(e, most_tokens);
        let saved = self.folder.as_ref().and_then(|folder| Some((folder.saved_at?, folder.dir())));
        match saved {
            Some((at, dir)) => e.context(format!("step {step} (what step {at} saved stays in {})", dir.display())),
            None => e.context(format!("step {step}")),
        }
    }

    /// What is due between two steps. Saving comes first: an evaluation can fail.
    fn save_and_evaluate_where_due(&mut self) -> Result<()> {
        let done = self.done();
        let due = |every: u64| every > 0 && done.is_multiple_of(every);
        let (saves, evaluates) = (due(self.trainer.job.save_every), due(self.trainer.job.eval_every));
        if saves || evaluates {
            self.report_queued()?;
        }
        if saves && let Err(e) = self.save() {
            if is_fatal(&e) {
                return Err(e);
            }
            self.observer.note(&format!("{e}. The run goes on and will be saved later: make room meanwhile"));
        }
        if evaluates { self.evaluate() } else { Ok(()) }
    }

    /// Saves what was trained, as often as the observer wants to try.
    fn save_at_the_end(&mut self) -> Result<()> {
        if self.done() == 0 {
            return Ok(());
        }
        while let Err(e) = self.save() {
            if is_fatal(&e) || !self.observer.retries_save(&e) {
                return Err(e);
            }
        }
        Ok(())
    }

    /// Writes a line, where there is a folder. A log that has no room does not cost what is being learnt.
    fn log(&mut self, write: impl FnOnce(&mut RunFolder<'_>) -> Result<()>) {
        if let Some(Err(e)) = self.folder.as_mut().map(|folder| write(folder))
            && !self.lacks_log
        {
            self.lacks_log = true;
            self.observer.note(&format!("{e}. The run goes on, and its log has gaps"));
        }
    }

    fn save(&mut self) -> Result<()> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        self.trainer.save(self.device, folder)?;
        self.observer.saved(self.done());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<()> {
        let Some(valid) = self.valid else { return Ok(()) };
        let attention = self.trainer.attention;
        let line = self.trainer.evaluate(self.device, valid, attention).context("evaluating")?;
        self.log(|folder| folder.log_eval(&line));
        self.observer.evaluated(&line);
        self.eval = Some(line);
        Ok(())
    }
}

/// Whether an error of a save will not go away by itself or by what a person does to the disk.
fn is_fatal(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::DeviceLost | ErrorKind::Diverged)
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
