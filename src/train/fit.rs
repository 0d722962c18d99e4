//! The loop of a run: steps, evaluations and saves as the job describes them.

use std::time::Instant;

use super::observer::{EvalLine, Observer, StepLine, Summary};
use super::run_folder::RunFolder;
use super::step_clock::StepClock;
use super::stepper::StartedStep;
use super::trainer::Trainer;
use crate::data::batch::{Batch, Sampler};
use crate::data::dataset::{Dataset, Example};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::gpu::Executor;

impl Trainer {
    /// Trains on `data.train` and evaluates on `data.valid` as the job says, from the step that the
    /// trainer is at: that of a run that was cancelled, or of a loaded state. With a folder,
    /// metrics are logged and the result is saved there; without one the trained model only stays
    /// in [`Trainer::loaded`].
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

    /// Queues the next step and then reports the one before it, so that the device is not kept
    /// waiting for the host.
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

    /// Writes a line, where there is a folder. A log that has no room does not cost what is being
    /// learnt.
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
