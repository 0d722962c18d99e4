//! State of the fine-tuning page: the run to start, the current run, and earlier runs.

use std::path::{Path, PathBuf};

use super::message::PreviewExample;
use crate::checkpoint::record::AttentionRecord;
use crate::optim::Schedule;
use crate::train::{EvalLine, Method, StepLine, Summary, TrainJob};

/// Length of a training run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    Quick,
    #[default]
    Standard,
    Thorough,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 3] = [Self::Quick, Self::Standard, Self::Thorough];

    /// Name and description.
    pub fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Quick => ("Quick", "20 steps, to see whether the loss falls"),
            Self::Standard => ("Standard", "100 steps with warm-up and decay"),
            Self::Thorough => ("Thorough", "3 epochs with warm-up and decay"),
        }
    }
}

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

/// An earlier run, for comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct PastRun {
    pub name: String,
    pub losses: Vec<[f64; 2]>,
}

/// Training examples, with the model and data that they belong to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preview {
    pub model: String,
    pub data: PathBuf,
    pub examples: Vec<PreviewExample>,
}

/// Estimated device memory of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    pub job: TrainJob,
    pub device: String,
    pub bytes: Option<u64>,
}

/// State of the fine-tuning page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tune {
    pub data: String,
    pub out: String,
    pub method: Method,
    pub preset: Preset,
    /// Compression factor of the training run; 1 means dense.
    pub factor: u32,
    pub recompute: bool,
    pub preview: Preview,
    pub estimate: Estimate,
    /// Folder with an earlier result, if that kept a run from starting.
    pub would_replace: Option<PathBuf>,
    /// Why the final save failed, while the run waits for an answer.
    pub save_failed: Option<String>,
    /// Whether the user has tried to close the window since the final save failed.
    pub gives_up: bool,
    pub run: RunState,
    pub total_steps: u64,
    pub steps: Vec<StepLine>,
    pub evaluations: Vec<EvalLine>,
    pub notes: Vec<String>,
    pub past: Vec<PastRun>,
    /// Output folder of the run on display.
    pub run_out: String,
    /// Method of the run on display.
    pub run_method: Method,
}

impl Tune {
    /// The training run that the page describes.
    pub fn job(&self, model: &str, sink: usize, lag: usize) -> TrainJob {
        let attention = if self.factor <= 1 {
            AttentionRecord::Dense
        } else {
            AttentionRecord::Lrsa { sink, lag, keep: 1.0 / f64::from(self.factor) }
        };
        let (steps, epochs, warmup) = match self.preset {
            Preset::Quick => (Some(20), None, 2),
            Preset::Standard => (Some(100), None, 10),
            Preset::Thorough => (None, Some(3), 20),
        };
        TrainJob {
            model: model.to_string(),
            data: PathBuf::from(self.data.trim()),
            out: PathBuf::from(self.out.trim()),
            method: self.method,
            steps,
            epochs,
            warmup,
            schedule: Schedule::Linear,
            recompute: self.recompute,
            save_every: 20,
            attention: Some(attention),
            ..TrainJob::default()
        }
    }

    /// The preview examples, if they belong to the current model and data.
    pub fn examples(&self, model: &str) -> &[PreviewExample] {
        let is_current = self.preview.model == model && self.preview.data == Path::new(self.data.trim());
        if is_current { &self.preview.examples } else { &[] }
    }

    /// Estimated bytes of a run on a device, if the estimate is for this run.
    pub fn estimate_of(&self, job: &TrainJob, device: &str) -> Option<u64> {
        self.estimate.bytes.filter(|_| self.estimate.job == *job && self.estimate.device == device)
    }

    /// The folder whose result a run would replace, if it is still the output folder.
    pub fn asks_to_replace(&self) -> Option<&PathBuf> {
        self.would_replace.as_ref().filter(|folder| folder.as_path() == Path::new(self.out.trim()))
    }

    /// The command line of the same run.
    pub fn command_line(&self, model: &str, sink: usize, lag: usize, device: &str) -> String {
        let job = self.job(model, sink, lag);
        let quoted = |s: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:\\".contains(c);
            if !s.is_empty() && s.chars().all(plain) { s.to_string() } else { format!("\"{s}\"") }
        };
        let mut line = format!(
            "longreach train --model {} --data {} --out {} --device {}",
            quoted(model),
            quoted(self.data.trim()),
            quoted(self.out.trim()),
            quoted(device)
        );
        if job.method == Method::Full {
            line += " --method full";
        }
        match job.attention {
            Some(AttentionRecord::Lrsa { sink, lag, keep }) => {
                line += &format!(" --attention lrsa --sink {sink} --lag {lag} --keep {keep}");
            }
            _ => line += " --attention dense",
        }
        if let Some(steps) = job.steps {
            line += &format!(" --steps {steps}");
        }
        if let Some(epochs) = job.epochs {
            line += &format!(" --epochs {epochs}");
        }
        line += &format!(" --warmup {} --schedule linear --save-every {}", job.warmup, job.save_every);
        if job.recompute {
            line += " --recompute";
        }
        line
    }

    /// Starts a run and moves the curve of the last one to the earlier runs.
    pub fn begin(&mut self, job: &TrainJob) {
        if self.steps.len() > 1 {
            let name = format!("{} ({} steps)", self.run_out, self.steps.len());
            self.past.push(PastRun { name, losses: self.losses() });
        }
        self.steps.clear();
        self.evaluations.clear();
        self.notes.clear();
        self.total_steps = 0;
        self.turn(RunState::Running);
        self.run_out = job.out.display().to_string();
        self.run_method = job.method;
    }

    /// Sets the state of the run, in which no final save waits for an answer.
    pub fn turn(&mut self, run: RunState) {
        (self.run, self.save_failed, self.gives_up) = (run, None, false);
    }

    /// Points of the loss curve: step and loss.
    pub fn losses(&self) -> Vec<[f64; 2]> {
        self.steps.iter().map(|s| [s.step as f64, s.loss]).collect()
    }

    /// Estimated seconds left, from the mean of the last 8 steps. `None` before the second step.
    pub fn seconds_left(&self) -> Option<f64> {
        let recent = &self.steps[self.steps.len().saturating_sub(8)..];
        if recent.len() < 2 {
            return None;
        }
        let mean = recent.iter().map(|s| s.seconds).sum::<f64>() / recent.len() as f64;
        Some(mean * self.total_steps.saturating_sub(self.steps.len() as u64) as f64)
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
}
