//! State of the fine-tuning page: the run to start, the current run, and earlier runs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checked_run::RunCheck;
use super::data_counts::{DataCounts, eval_every, held_out};
use super::exporting::Exporting;
use super::form::Form;
use super::history::History;
use crate::checkpoint::bundled;
use crate::checkpoint::record::AttentionRecord;
use crate::error::Result;
use crate::train::{EvalLine, Keep, KeepGroup, Method, StepLine, Summary, TrainJob};

/// State of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RunState {
    #[default]
    Idle,
    Running,
    Paused,
    Done(Summary),
    Failed(String),
}

/// An action on the page for fine-tuning.
#[derive(Clone, Debug, PartialEq)]
pub enum TuneAction {
    /// Count the examples of the data, whose path has changed.
    CountData,
    /// Show the list of runs, or else the run to start.
    ShowRuns(bool),
    /// Show the run in a folder in the list of runs.
    ShowRun(PathBuf),
    /// Read the list of runs anew.
    ReadRuns,
    /// Choose the run in a folder.
    Choose(PathBuf),
    /// Compare the run in a folder with others, or no longer.
    Compare(PathBuf, bool),
    /// Resume the run in a folder.
    Resume(PathBuf),
    /// Chat with what the run in a folder has saved in another.
    ChatWith(PathBuf, PathBuf),
    /// Export the chosen run; whether a file of the same name may be replaced.
    Export { replace: bool },
}

/// The settings of the fine-tuning page that the app saves between sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TuneChoices {
    pub model: Option<String>,
    pub method: Method,
    pub factor: u32,
    pub recompute: bool,
    pub form: Form,
}

impl Default for TuneChoices {
    fn default() -> Self {
        Self { model: None, method: Method::default(), factor: 4, recompute: false, form: Form::default() }
    }
}

/// State of the fine-tuning page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tune {
    pub data: String,
    pub out: String,
    /// The examples of the data, once they are counted.
    pub counts: Option<DataCounts>,
    pub method: Method,
    /// Compression factor of the training run; 1 means dense.
    pub factor: u32,
    pub recompute: bool,
    /// The other settings.
    pub form: Form,
    pub check: RunCheck,
    /// The model to train, if it is another than that of the chat; empty for the bundled one.
    pub model: Option<String>,
    /// Folder with an earlier result, if that kept a run from starting.
    pub would_replace: Option<PathBuf>,
    /// Folder with a run that this one would continue, if that kept it from starting.
    pub would_continue: Option<PathBuf>,
    /// Why the final save failed, while the run waits for an answer.
    pub save_failed: Option<String>,
    /// Whether the run ends after its current step.
    pub stops: bool,
    /// Whether the user has tried to close the window since the final save failed.
    pub gives_up: bool,
    pub run: RunState,
    pub total_steps: u64,
    pub steps: Vec<StepLine>,
    pub evaluations: Vec<EvalLine>,
    pub notes: Vec<String>,
    pub history: History,
    pub export: Exporting,
    /// The job of the run on display.
    pub run_job: TrainJob,
    /// The run on display as the page described it.
    pub asked: Option<TrainJob>,
}

/// The loss curves of a run with their names, each point a step and its loss: one curve for each r that
/// the steps have, or one of this name.
pub fn loss_curves(steps: &[StepLine], name: &str) -> Vec<(String, Vec<[f64; 2]>)> {
    let lines = KeepGroup::lines(steps, name).into_iter();
    lines.map(|(name, steps)| (name, steps.iter().map(|line| [line.step as f64, line.loss]).collect())).collect()
}

impl Tune {
    /// The training run that the page describes. Fails for a field that cannot be read, and for
    /// settings that exclude each other.
    pub fn job(&self, model: &str, sink: usize, lag: usize) -> Result<TrainJob> {
        let counts = self.counts.as_ref().filter(|counts| counts.path == Path::new(self.data.trim()));
        self.job_with(model, (sink, lag), counts.filter(|counts| counts.problem.is_none()))
    }

    /// The run that the page describes, for data with these counts.
    fn job_with(&self, model: &str, lrsa: (usize, usize), counts: Option<&DataCounts>) -> Result<TrainJob> {
        let read = self.form.read()?;
        let (sink, lag) = (read.sink.unwrap_or(lrsa.0), read.lag.unwrap_or(lrsa.1));
        let keep = read.keeps.first().map(|keep| keep.end());
        let attention = match self.factor {
            ..=1 => AttentionRecord::Dense,
            factor => AttentionRecord::Lrsa { sink, lag, keep: keep.unwrap_or(1.0 / f64::from(factor)) },
        };
        let keeps = match self.factor {
            ..=1 => Some(read.keeps).filter(|keeps| !keeps.is_empty()), // which dense attention refuses
            _ => Keep::drawn(read.keeps),
        };
        let mut job = TrainJob {
            model: if model.is_empty() { bundled::NAME.into() } else { model.into() },
            data: PathBuf::from(self.data.trim()),
            out: PathBuf::from(self.out.trim()),
            method: self.method,
            recompute: self.recompute,
            attention: Some(attention),
            keeps,
            ..read.job
        };
        if self.form.text("valid_fraction").trim().is_empty() {
            job.valid_fraction = held_out(counts);
        } else if counts.is_some_and(|counts| counts.n_valid > 0) {
            job.valid_fraction = None; // validation data takes its place
        }
        if self.form.text("eval_every").trim().is_empty() {
            job.eval_every = eval_every(&job, counts);
        }
        job.validate()?;
        Ok(job)
    }

    /// The run that the page describes, whatever its data holds.
    pub fn described(&self, model: &str, sink: usize, lag: usize) -> Option<TrainJob> {
        self.job_with(model, (sink, lag), None).ok()
    }

    /// The folder whose result a run would replace, if it is still the output folder.
    pub fn asks_to_replace(&self) -> Option<&PathBuf> {
        self.would_replace.as_ref().filter(|folder| folder.as_path() == Path::new(self.out.trim()))
    }

    /// The folder with a run to continue, if it is still the output folder.
    pub fn asks_to_continue(&self) -> Option<&PathBuf> {
        self.would_continue.as_ref().filter(|folder| folder.as_path() == Path::new(self.out.trim()))
    }

    /// The settings that the page keeps between sessions.
    pub fn choices(&self) -> TuneChoices {
        let Self { method, factor, recompute, .. } = *self;
        TuneChoices { model: self.model.clone(), method, factor, recompute, form: self.form.clone() }
    }

    /// Takes the settings of an earlier session.
    pub fn take(&mut self, choices: TuneChoices) {
        let TuneChoices { model, method, factor, recompute, form } = choices;
        (self.model, self.method, self.factor, self.recompute) = (model, method, factor, recompute);
        self.form = form.known();
    }

    /// Starts a run.
    pub fn begin(&mut self, job: &TrainJob) {
        self.steps.clear();
        self.evaluations.clear();
        self.notes.clear();
        self.total_steps = 0;
        if let Some(run) = self.history.run(&job.out).filter(|_| job.resume) {
            let logs = run.logs.clone().up_to(run.saved_at.unwrap_or_default());
            (self.steps, self.evaluations) = (logs.steps, logs.evaluations);
        }
        self.turn(RunState::Running);
        self.run_job = job.clone();
    }

    /// Adds a step of the run.
    pub fn add_step(&mut self, line: StepLine) {
        self.steps.retain(|earlier| earlier.step < line.step); // of a run that was resumed
        self.steps.push(line);
    }

    /// Adds an evaluation of the run.
    pub fn add_evaluation(&mut self, line: EvalLine) {
        self.evaluations.retain(|earlier| earlier.step < line.step);
        self.evaluations.push(line);
    }

    /// Steps done, with those before a run was resumed.
    pub fn n_steps(&self) -> u64 {
        self.steps.last().map_or(0, |line| line.step)
    }

    /// Sets the state of the run, in which no final save waits for an answer.
    pub fn turn(&mut self, run: RunState) {
        (self.run, self.save_failed, self.gives_up, self.stops) = (run, None, false, false);
    }

    /// Points of the validation loss: step and loss.
    pub fn validation(&self) -> Vec<[f64; 2]> {
        self.evaluations.iter().map(|e| [e.step as f64, e.loss]).collect()
    }

    /// Estimated seconds left, from the mean of the last 8 steps. `None` before the second step, and
    /// while nothing goes on.
    pub fn seconds_left(&self) -> Option<f64> {
        if self.run != RunState::Running {
            return None;
        }
        let recent = &self.steps[self.steps.len().saturating_sub(8)..];
        if recent.len() < 2 {
            return None;
        }
        let mean = recent.iter().map(|s| s.seconds).sum::<f64>() / recent.len() as f64;
        Some(mean * self.total_steps.saturating_sub(self.n_steps()) as f64)
    }

    /// Tokens per second over the last 8 steps.
    pub fn tokens_per_s(&self) -> Option<f64> {
        let recent = &self.steps[self.steps.len().saturating_sub(8)..];
        let seconds: f64 = recent.iter().map(|s| s.seconds).sum();
        (seconds > 0.0).then(|| recent.iter().map(|s| s.tokens as f64).sum::<f64>() / seconds)
    }

    /// Whether a run is in progress, paused or not.
    pub fn is_running(&self) -> bool {
        matches!(self.run, RunState::Running | RunState::Paused)
    }

    /// What a run that makes no progress waits for.
    pub fn waits(&self) -> Option<&'static str> {
        match self.run {
            _ if self.save_failed.is_some() => Some("The trained weights are not saved"),
            _ if self.stops => Some("Stopping after this step…"),
            RunState::Paused => Some("Training is paused"),
            _ => None,
        }
    }
}
