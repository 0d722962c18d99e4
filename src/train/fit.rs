//! The training loop: steps, evaluations and saves on the job's schedule.

use std::time::Instant;

use super::job_data::{lengths_of, longest_of};
use super::keep_group::by_keep;
use super::observer::{EvalLine, Observer, StepLine, Summary, best_of};
use super::run_folder::RunFolder;
use super::step_clock::StepClock;
use super::stepper::StartedStep;
use super::trainer::Trainer;
use super::trainer_state_json::Course;
use crate::attention::Attention;
use crate::data::batch::Batch;
use crate::data::dataset::{Dataset, Example};
use crate::data::sampler::Sampler;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::gpu::{Breakable, Executor};

impl Trainer {
    /// Trains on `data.train` and evaluates on `data.valid` on the job's schedule, starting at the
    /// trainer's current step: that of a cancelled run or of a loaded state. With a folder, logs
    /// metrics and saves the result there; without one, the trained model stays only in
    /// [`Trainer::loaded`].
    ///
    /// A failed step keeps earlier saves.
    pub fn fit(
        &mut self,
        device: &mut dyn Executor,
        data: &Dataset,
        mut folder: Option<&mut RunFolder<'_>>,
        observer: &mut dyn Observer,
    ) -> Result<Summary> {
        let examples = &data.train.examples;
        self.job.objective.check(examples)?;
        let mut sampler = self.job.sampler(lengths_of(examples))?;
        sampler.seek(self.place.0, self.place.1)?;
        let total = self.job.total_steps(&sampler);
        let warmup = self.job.phases(total).warmup;
        if warmup >= total {
            let field = if self.job.warmup_ratio.is_some() { "warmup_ratio" } else { "warmup" };
            observer.note(&format!(
                "the warm-up of {warmup} steps takes up all {total} steps, and the learning rate never reaches its full \
                 value: lower `{field}`"
            ));
        }
        observer.started(total, examples.len());
        device.reset_peak();
        let course = Course { total_steps: total, steps_per_epoch: sampler.steps_of(1) };
        folder.iter_mut().for_each(|folder| folder.set_course(course));
        let evaluations = folder.as_ref().map_or(Ok(Vec::new()), |folder| folder.evaluations())?;
        let mut run = Run {
            valid: data.valid.as_ref().map(|v| v.examples.as_slice()),
            trainer: self,
            device,
            examples,
            longest: longest_of(examples),
            saved: Instant::now(),
            sampler,
            total,
            folder,
            observer,
            started: None,
            clock: StepClock::new(),
            totals: Totals::default(),
            evaluations,
            lacks_log: false,
            eval_chunk: None,
        };
        if let (Some(best), Some(folder)) = (run.best(), &mut run.folder) {
            folder.keep_best(best.step);
        }
        run.all()
    }
}

/// A queued step with the other values of its report.
struct Started {
    queued: StartedStep,
    step: u64,
    lr: f64,
    /// Tokens of the largest batch.
    most_tokens: usize,
    /// r, if the steps of the run differ in it.
    keep: Option<f64>,
    /// Tokens of the chunks in which long sequences stream, if they do.
    chunk: Option<usize>,
}

/// Totals over the reported steps.
#[derive(Default)]
struct Totals {
    tokens: usize,
    seconds: f64,
    /// r, if the steps differ in it, and the loss of each step.
    losses: Vec<(Option<f64>, f64)>,
}

/// The losses of the steps that have the r of most steps; none where r takes too many values to group
/// the steps by it.
fn comparable(losses: &[(Option<f64>, f64)]) -> Vec<f64> {
    let of_each = by_keep(losses.iter().copied()).unwrap_or_default();
    of_each.into_iter().map(|(_, same)| same).max_by_key(Vec::len).unwrap_or_default()
}

/// One call of [`Trainer::fit`].
struct Run<'a, 'f> {
    trainer: &'a mut Trainer,
    device: &'a mut dyn Executor,
    examples: &'a [Example],
    /// Tokens of the longest one.
    longest: usize,
    /// When the run last saved, or began.
    saved: Instant,
    valid: Option<&'a [Example]>,
    sampler: Sampler,
    /// Number of the last step.
    total: u64,
    folder: Option<&'a mut RunFolder<'f>>,
    observer: &'a mut dyn Observer,
    /// The queued step that is not reported yet.
    started: Option<Started>,
    clock: StepClock,
    totals: Totals,
    /// All evaluations of the run, also those before it was resumed.
    evaluations: Vec<EvalLine>,
    /// Whether writing a log line failed; the observer is notified once.
    lacks_log: bool,
    /// The length of chunks in evaluations, where their texts need shorter ones than training.
    eval_chunk: Option<usize>,
}

impl Run<'_, '_> {
    fn all(mut self) -> Result<Summary> {
        let begun = Instant::now();
        let (mut cancelled, mut stopped_early) = (false, false);
        if self.done() > 0 && self.done() < self.total && self.is_due(self.trainer.job.eval_every) {
            cancelled = was_stopped(self.evaluate())?; // unless the run did before it was resumed
        }
        while !cancelled && self.done() < self.total {
            stopped_early = self.has_stopped_improving();
            if stopped_early {
                break;
            }
            let step = self.step().and_then(|()| match self.done() < self.total {
                true => self.save_and_evaluate_where_due(),
                false => Ok(()),
            });
            cancelled = was_stopped(step)?;
        }
        self.report_queued()?;
        self.save_at_the_end()?;
        cancelled = cancelled || was_stopped(self.evaluate())?;
        if let (false, Some(folder)) = (cancelled, &self.folder) {
            folder.finish()?;
        }
        let Totals { tokens, seconds, ref losses } = self.totals;
        let alike = comparable(losses);
        let tenth = alike.len().div_ceil(10).max(2);
        let is_whole = losses.len() as u64 == self.total && losses.len() >= 20 && alike.len() >= 10;
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let ends = is_whole.then(|| (mean(&alike[..tenth]), mean(&alike[alike.len() - tenth..])));
        Ok(Summary {
            steps: self.done(),
            loss: losses.last().map(|(_, loss)| *loss),
            first_loss: ends.map(|(first, _)| first),
            last_loss: ends.map(|(_, last)| last),
            eval_loss: self.evaluations.last().map(|e| e.loss),
            best: self.best(),
            tokens,
            seconds: begun.elapsed().as_secs_f64(),
            tokens_per_s: if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 },
            peak_bytes: self.device.memory().peak_bytes(),
            cancelled,
            stopped_early,
        })
    }

    /// The evaluation with the lowest loss, the first of equal ones.
    fn best(&self) -> Option<EvalLine> {
        best_of(&self.evaluations)
    }

    /// Whether the last evaluations, as many as the job's `early_stop`, had no lower loss.
    fn has_stopped_improving(&self) -> bool {
        let (Some(patience), Some(best)) = (self.trainer.job.early_stop, self.best()) else { return false };
        self.evaluations.iter().filter(|e| e.step > best.step).count() as u64 >= patience
    }

    /// Whether something that happens every so many steps is due now.
    fn is_due(&self, every: u64) -> bool {
        every > 0 && self.done().is_multiple_of(every)
    }

    /// Number of steps done, including the queued one.
    fn done(&self) -> u64 {
        self.trainer.n_steps()
    }

    /// Queues the next step and then reports the previous one, so that the device never idles
    /// between steps.
    fn step(&mut self) -> Result<()> {
        let step = self.done() + 1;
        let chosen = self.sampler.next_step();
        let batch = |micro: &Vec<usize>| Batch::new(micro.iter().map(|&i| &self.examples[i]));
        let batches: Vec<Batch> = chosen.iter().map(batch).collect();
        let most_tokens = batches.iter().map(|b| b.ids.len()).max().unwrap_or(0);
        let job = &self.trainer.job;
        let lr = job.schedule.lr(job.learning_rate(), step, job.phases(self.total));
        if self.started.is_none() {
            self.clock.begin();
        }
        let longest = batches.iter().map(|b| b.longest).max().unwrap_or(0);
        let attention = job.attention_of(self.trainer.attention, longest, step, self.total)?;
        let keep = job.keep_of(self.trainer.attention, self.longest, attention);

        let batches_before = self.trainer.stepper.n_micro();
        let mut queued = self.queue(&batches, attention, lr);
        // Tries again only if the gradients failed, which leave the weights as they were.
        while queued.as_ref().is_err_and(|e| e.kind() == ErrorKind::OutOfMemory)
            && self.trainer.stepper.n_micro() == batches_before
            && self.shortens_chunk(&format!("step {step} does not fit into memory: long sequences stream"), most_tokens)
        {
            queued = self.queue(&batches, attention, lr);
        }
        if queued.is_ok() {
            self.trainer.place = self.sampler.place();
        }
        self.report_queued()?; // even if queuing the new step failed
        self.clock.queued();
        let queued = match queued {
            Err(e) if self.trainer.stepper.n_micro() == batches_before => {
                let saved = self.saved_before_failure(e);
                return Err(self.explained(saved, step, most_tokens));
            }
            done => done.map_err(|e| self.explained(e, step, most_tokens))?,
        };
        let is_ready = queued.is_ready();
        let chunk = self.trainer.chunk();
        self.started = Some(Started { queued, step, lr, most_tokens, keep, chunk });
        if is_ready { self.report_queued() } else { Ok(()) }
    }

    /// Queues a step. The observer can stop its gradients.
    fn queue(&mut self, batches: &[Batch], attention: Attention, lr: f64) -> Result<StartedStep> {
        let Trainer { stepper, loaded, .. } = &mut *self.trainer;
        let mut is_stopped = || self.clock.hold(|| self.observer.cancelled());
        let breakable = &mut Breakable::new(self.device, &mut is_stopped);
        stepper.run_gradients_of_step(breakable, loaded, batches, attention)?;
        stepper.start_update(self.device, loaded, batches, lr)
    }

    /// Takes shorter chunks after something with a batch of `n_tokens` had too little memory, and
    /// says what streams so. False if there are no shorter ones.
    fn shortens_chunk(&mut self, what: &str, n_tokens: usize) -> bool {
        let Some(chunk) = self.trainer.shorten_chunk(n_tokens) else { return false };
        self.observer.note(&format!("{what} in chunks of {chunk} tokens from now on"));
        true
    }

    /// Waits for the queued step, if any, and reports it.
    fn report_queued(&mut self) -> Result<()> {
        let Some(Started { queued, step, lr, most_tokens, keep, chunk }) = self.started.take() else { return Ok(()) };
        let report = match queued.wait() {
            Err(e) if e.kind() == ErrorKind::Diverged => {
                let saved = self.saved_before_failure(e);
                return Err(self.explained(saved, step, most_tokens));
            }
            done => done.map_err(|e| self.explained(e, step, most_tokens))?,
        };
        let (loss, grad_norm, tokens) = (report.loss, report.grad_norm, report.n_tokens);
        let seconds = self.clock.done(report.done);
        let bytes = self.device.memory().peak_bytes();
        let (ce, kl) = (report.parts.and_then(|p| p.ce), report.parts.map(|p| p.kl));
        let pairs = report.pairs;

        let line = StepLine { step, loss, keep, chunk, ce, kl, pairs, lr, grad_norm, tokens, seconds, bytes };
        self.log(|folder| folder.log_step(&line));
        self.observer.step(&line);
        self.totals.tokens += tokens;
        self.totals.seconds += seconds;
        self.totals.losses.push((keep, loss));
        Ok(())
    }

    /// Saves what was learnt before something failed that left the weights as they were, and adds to its
    /// error where it is. A step with gradients that are not finite changes nothing; one that was queued
    /// behind it may have. After a divergence a run that resumes from there leaves out the data of the
    /// step, and after another failure it repeats the step.
    fn saved_before_failure(&mut self, e: Error) -> Error {
        let Some(folder) = self.folder.as_mut().filter(|_| self.trainer.n_steps() > 0) else { return e };
        if matches!(e.kind(), ErrorKind::DeviceLost | ErrorKind::Interrupted) {
            return e; // the weights are lost, or saved at the end of the run
        }
        match self.trainer.save_checkpoint(self.device, folder) {
            Ok(checkpoint) => e.context(format!("what was learnt before is in {}", checkpoint.display())),
            Err(failed) => e.context(failed),
        }
    }

    /// Adds to the error what is saved and how to use less memory.
    fn explained(&self, e: Error, step: u64, most_tokens: usize) -> Error {
        let e = self.trainer.with_advice(e, self.examples, most_tokens);
        let saved = self.folder.as_ref().and_then(|folder| Some((folder.saved_at()?, folder.dir())));
        match saved {
            Some((at, dir)) => e.context(format!("step {step} (the result of step {at} is kept in {})", dir.display())),
            None => e.context(format!("step {step}")),
        }
    }

    /// Saves and evaluates if due. Saves first, because an evaluation can fail.
    fn save_and_evaluate_where_due(&mut self) -> Result<()> {
        let job = &self.trainer.job;
        let saves = self.is_due(job.save_every) || job.saves_after().is_some_and(|after| self.saved.elapsed() >= after);
        let evaluates = self.is_due(job.eval_every);

        if saves || evaluates {
            self.report_queued()?;
        }
        if saves {
            self.save_if_possible()?;
        }
        if evaluates { self.evaluate().map_err(|e| self.saved_before_failure(e)) } else { Ok(()) }
    }

    /// Saves. If the disk is full, says so and goes on.
    fn save_if_possible(&mut self) -> Result<()> {
        match self.save() {
            Err(e) if !is_fatal(&e) => {
                self.observer.note(&format!("{e}. The run continues and saves again later: free disk space meanwhile"));
                Ok(())
            }
            done => done,
        }
    }

    /// Saves the result at the end; retries as often as the observer asks for it.
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

    /// Writes a log line if there is a folder. A write error (such as a full disk) does not end the
    /// run.
    fn log(&mut self, write: impl FnOnce(&mut RunFolder<'_>) -> Result<()>) {
        if let Some(Err(e)) = self.folder.as_mut().map(|folder| write(folder))
            && !self.lacks_log
        {
            self.lacks_log = true;
            self.observer.note(&format!("{e}. The run continues, and its log has gaps"));
        }
    }

    fn save(&mut self) -> Result<()> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        self.observer.stage("saving");
        self.trainer.save(self.device, folder)?;
        self.saved = Instant::now();
        self.observer.saved(self.done());
        Ok(())
    }

    /// Evaluates on the validation data, if there is any and the run has not done so at this step.
    /// Keeps a checkpoint of the step if its loss is the lowest so far.
    fn evaluate(&mut self) -> Result<()> {
        let Some(valid) = self.valid else { return Ok(()) };
        if self.evaluations.last().is_some_and(|e| e.step == self.done()) {
            return Ok(());
        }
        self.observer.stage("evaluating");
        let attention = self.trainer.attention;
        // Where validation texts need shorter chunks than training texts, training keeps its own.
        let chunk = self.trainer.chunk();
        if self.eval_chunk.is_some() {
            self.trainer.stepper.set_chunk(self.eval_chunk);
        }
        let what = "an evaluation does not fit into memory: evaluations stream long sequences";
        let evaluated = loop {
            let mut is_stopped = || self.clock.hold(|| self.observer.cancelled());
            match self.trainer.evaluate(&mut Breakable::new(self.device, &mut is_stopped), valid, attention) {
                Err(e)
                    if e.kind() == ErrorKind::OutOfMemory
                        && self.shortens_chunk(what, self.trainer.most_tokens(valid)) =>
                {
                    self.eval_chunk = self.trainer.chunk();
                }
                done => break done.context("evaluating"),
            }
        };
        self.trainer.stepper.set_chunk(chunk);
        let line = evaluated?;
        self.evaluations.push(line);
        if self.best() == Some(line) {
            self.save_if_possible()?;
            self.folder.iter_mut().for_each(|folder| folder.keep_best(line.step));
        }
        self.log(|folder| folder.log_eval(&line));
        self.log(|folder| folder.refresh_trainer_state(line.step));
        self.observer.evaluated(&line);
        Ok(())
    }
}

/// Whether a part of the run was stopped. Fails if it failed otherwise.
fn was_stopped(done: Result<()>) -> Result<bool> {
    match done {
        Err(e) if e.kind() == ErrorKind::Interrupted => Ok(true),
        done => done.map(|()| false),
    }
}

/// Whether a save error is permanent: neither time nor freeing disk space fixes it.
fn is_fatal(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::DeviceLost | ErrorKind::Diverged)
}
