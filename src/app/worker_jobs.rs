//! The jobs of the worker: forecast of a run, training and device check.

use std::ops::ControlFlow;

use super::checked_run::CheckedRun;
use super::labels::in_words;
use super::message::{CheckLine, Event, ModelChoice};
use super::worker_chat::open_scaled_files;
use super::worker_site::Site;
use crate::conformance::{CheckOptions, Report, Row, Status, check_adapter, check_cpu, page};
use crate::data::sources::files::Files;
use crate::data::survey::pieces;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Breakable, adapters, find_adapter};
use crate::train::{EvalLine, Held, Observer, StepLine, TrainJob, Trainer, held, read_data, run_opened};

/// Number of examples in a preview.
const N_PREVIEWED: usize = 5;
/// Tokens shown of each example.
const MAX_PREVIEW_TOKENS: usize = 400;
/// Fewest tokens of a sequence whose memory is worth a line.
const SHORTEST_PLANNED: usize = 64;

/// The job without held-out examples if there is validation data, which then takes their place.
pub fn with_own_validation(job: &mut TrainJob) {
    if Files::find(&job.data).is_ok_and(|files| !files.valid.is_empty()) {
        job.valid_fraction = None;
    }
}

/// The model, adapter and device of a job.
fn choice_of(job: &TrainJob, device: &str) -> ModelChoice {
    ModelChoice { model: job.model.clone(), adapter: job.adapter.clone(), device: device.to_string() }
}

/// Collects what a run would say.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        self.0.push(in_words(text));
    }
}

/// Says what a run will take: reads its data, plans its memory, and measures a step that changes
/// nothing. Calls `begin` once the data is read.
pub fn forecast(job: &TrainJob, device: &str, site: &Site, begin: impl FnOnce()) -> Result<()> {
    let files = open_scaled_files(&choice_of(job, device), job.rope_scaling)?;
    let mut notes = Notes::default();
    let data = read_data(job, &files, &mut notes)?;
    let (train, examples) = (&data.train, &data.train.examples);
    begin();
    let mut device = (site.open)(device)?;
    let mut trainer = Trainer::new(&mut *device, &files, job)?;
    let too_large = match trainer.check_largest(&mut *device, examples) {
        Err(e) if e.kind() == ErrorKind::OutOfMemory => Some(in_words(&e.to_string())),
        checked => checked.map(|()| None)?,
    };
    let mut is_stopped = || site.control.is_stopped();
    let breakable = &mut Breakable::new(&mut *device, &mut is_stopped);
    let forecast = trainer.forecast(breakable, examples, too_large.is_none())?;
    let mut by_length = Vec::new();
    for part in [4, 2] {
        let length = forecast.data.longest / part;
        if length >= SHORTEST_PLANNED {
            by_length.push((length, trainer.planned_within(&mut *device, examples, length)?.peak()));
        }
    }
    by_length.push((forecast.data.longest, forecast.memory.peak()));
    if let Held::Other(what) = held(job)? {
        notes
            .0
            .push(in_words(&format!("`out` {} holds {what}: the run asks before it replaces it", job.out.display())));
    }
    let tokenizer = files.tokenizer().ok();
    let shown = examples.iter().take(N_PREVIEWED).map(|e| pieces(tokenizer, e, MAX_PREVIEW_TOKENS));
    let found = CheckedRun {
        n_records: train.n_records,
        n_cut: train.n_truncated,
        n_windowed: train.n_windowed,
        n_left_out: train.n_dropped,
        n_valid: data.valid.as_ref().map_or(0, |valid| valid.examples.len()),
        forecast,
        by_length,
        too_large,
        notes: notes.0,
        examples: shown.collect::<Result<_>>()?,
    };
    (site.tell)(Event::Forecast(Box::new(found)));
    Ok(())
}

/// Forwards the progress of a run as events.
struct Watch<'a>(&'a Site);

impl Observer for Watch<'_> {
    fn note(&mut self, text: &str) {
        (self.0.tell)(Event::Note(in_words(text)));
    }
    fn started(&mut self, total_steps: u64, n_examples: usize) {
        (self.0.tell)(Event::TrainStarted { steps: total_steps, examples: n_examples });
    }
    fn step(&mut self, line: &StepLine) {
        (self.0.tell)(Event::TrainStep(*line));
    }
    fn evaluated(&mut self, line: &EvalLine) {
        (self.0.tell)(Event::TrainEvaluated(*line));
    }
    fn saved(&mut self, step: u64) {
        (self.0.tell)(Event::TrainSaved(step));
    }
    fn retries_save(&mut self, why: &Error) -> bool {
        (self.0.tell)(Event::SaveFailed(in_words(&why.to_string())));
        self.0.control.wait_for_answer()
    }
    fn cancelled(&self) -> bool {
        self.0.control.is_stopped()
    }
}

/// Trains a model. Calls `begin` once it has found the model's files. A stop saves the weights
/// trained so far.
pub fn train(job: &TrainJob, device: &str, site: &Site, begin: impl FnOnce()) -> Result<()> {
    let files = open_scaled_files(&choice_of(job, device), job.rope_scaling)?;
    begin();
    let mut device = (site.open)(device)?;
    let summary = run_opened(job, &files, &mut *device, &mut Watch(site))?;
    (site.tell)(Event::Trained(summary));
    Ok(())
}

/// Runs the quick check of a device: one case of every op.
pub fn check(device: &str, site: &Site) -> Result<()> {
    let options = CheckOptions { quick: true, ..CheckOptions::default() };
    let mut is_complete = true;
    let mut watch = |row: &Row| {
        (site.tell)(Event::Checked(Box::new(line(row))));
        is_complete = !site.control.is_ending();
        if is_complete { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let mut report = Report::default();
    report.devices.push(match device {
        "cpu" => check_cpu(&options, &mut watch)?,
        name => check_adapter(find_adapter(&adapters(), name)?, &options, &mut watch)?,
    });
    let failed = report.count(Status::Failed);
    let passed = report.rows().count() - failed;
    let report = page(&report, &format!("longreach check --quick --device {device}"))?;
    (site.tell)(Event::CheckDone { passed, failed, is_complete, report });
    Ok(())
}

fn line(row: &Row) -> CheckLine {
    CheckLine {
        kernel: row.kernel.clone(),
        case: row.case.clone(),
        passed: row.status != Status::Failed,
        relative_error: row.max_relative,
        reason: row.reason.clone(),
    }
}
