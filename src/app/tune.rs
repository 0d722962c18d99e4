//! The fine-tuning page's state: what to train, a run that goes on, and the runs before it.

use std::path::{Path, PathBuf};

use super::message::PreviewExample;
use crate::checkpoint::record::AttentionRecord;
use crate::optim::Schedule;
use crate::train::{EvalLine, Method, StepLine, Summary, TrainJob};

/// How much time to spend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    Quick,
    #[default]
    Standard,
    Thorough,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Quick, Self::Standard, Self::Thorough];

    /// Its name, and what it does.
    pub fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Quick => ("Quick", "20 steps: does it learn at all?"),
            Self::Standard => ("Standard", "100 steps with warm-up and decay"),
            Self::Thorough => ("Thorough", "3 passes over the data"),
        }
    }
}

/// Where a run is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RunState {
    #[default]
    Idle,
    Running,
    Paused,
    Done(Summary),
    Failed(String),
}

/// A run of before, for comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct PastRun {
    pub name: String,
    pub losses: Vec<[f64; 2]>,
}

/// Examples of training data, and of which.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preview {
    pub model: String,
    pub data: PathBuf,
    pub examples: Vec<PreviewExample>,
}

/// The memory that a run would take, and which run on which device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    pub job: TrainJob,
    pub device: String,
    pub bytes: Option<u64>,
}

/// The page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tune {
    pub data: String,
    pub out: String,
    pub method: Method,
    pub preset: Preset,
    /// Compression to train with: 1 for dense.
    pub factor: u32,
    pub recompute: bool,
    pub preview: Preview,
    pub estimate: Estimate,
    /// The folder that holds an earlier run's result, where a run was not begun for it.
    pub would_replace: Option<PathBuf>,
    /// Why the end of the run was not saved, while it waits for an answer.
    pub save_failed: Option<String>,
    pub run: RunState,
    pub total_steps: u64,
    pub steps: Vec<StepLine>,
    pub evaluations: Vec<EvalLine>,
    pub notes: Vec<String>,
    pub past: Vec<PastRun>,
    /// Folder and method of the run that is shown.
    pub run_out: String,
    pub run_method: Method,
}

impl Tune {
    /// The run that the page describes.
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

    /// The examples, if they are of what the page describes now.
    pub fn examples(&self, model: &str) -> &[PreviewExample] {
        let is_current = self.preview.model == model && self.preview.data == Path::new(self.data.trim());
        if is_current { &self.preview.examples } else { &[] }
    }

    /// Bytes that a run takes on a device, if they were asked for.
    pub fn estimate_of(&self, job: &TrainJob, device: &str) -> Option<u64> {
        self.estimate.bytes.filter(|_| self.estimate.job == *job && self.estimate.device == device)
    }

    /// The folder whose result a run would replace, if it is the one that is named now.
    pub fn asks_to_replace(&self) -> Option<&PathBuf> {
        self.would_replace.as_ref().filter(|folder| folder.as_path() == Path::new(self.out.trim()))
    }

    /// The command line that repeats the run.
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

    /// A run begins: what the last one showed is kept for comparison.
    pub fn begin(&mut self, job: &TrainJob) {
        if self.steps.len() > 1 {
            let name = format!("{} ({} steps)", self.run_out, self.steps.len());
            self.past.push(PastRun { name, losses: self.losses() });
        }
        self.steps.clear();
        self.evaluations.clear();
        self.notes.clear();
        self.total_steps = 0;
        self.run = RunState::Running;
        self.run_out = job.out.display().to_string();
        self.run_method = job.method;
    }

    /// Loss against step.
    pub fn losses(&self) -> Vec<[f64; 2]> {
        self.steps.iter().map(|s| [s.step as f64, s.loss]).collect()
    }

    /// Seconds that are left, by the mean of the last steps; none before there are two.
    pub fn seconds_left(&self) -> Option<f64> {
        let recent = &self.steps[self.steps.len().saturating_sub(8)..];
        if recent.len() < 2 {
            return None;
        }
        let mean = recent.iter().map(|s| s.seconds).sum::<f64>() / recent.len() as f64;
        Some(mean * self.total_steps.saturating_sub(self.steps.len() as u64) as f64)
    }

    /// Tokens a second of the last steps.
    pub fn tokens_per_s(&self) -> Option<f64> {
        let recent = &self.steps[self.steps.len().saturating_sub(8)..];
        let seconds: f64 = recent.iter().map(|s| s.seconds).sum();
        (seconds > 0.0).then(|| recent.iter().map(|s| s.tokens as f64).sum::<f64>() / seconds)
    }

    /// Whether a run goes on, paused or not.
    pub fn is_running(&self) -> bool {
        matches!(self.run, RunState::Running | RunState::Paused)
    }
}
