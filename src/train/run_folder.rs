//! A run's output folder: the result, saved whole, its settings, its logs and its checkpoints.
//!
//! ```text
//! OUT/adapter_model.safetensors …   the result of the last save
//! OUT/job.json                      the settings, written before the first step
//! OUT/metrics.jsonl, eval.jsonl     logs
//! OUT/tensorboard/                  the same logs for TensorBoard
//! OUT/trainer_state.json            progress up to the last save, as transformers reads it
//! OUT/checkpoints/step-200/         the result of that step and the state to resume from
//! OUT/checkpoints/run.lock          locked while a run writes to OUT
//! OUT/checkpoints/failed            why the run failed, until it resumes
//! OUT/checkpoints/unfinished/       what is being written
//! ```
//!
//! A checkpoint appears whole: it is written under another name and renamed. Its files then become
//! the result, one rename for each. Within a run only the weights change, so a reader never finds
//! the weights of one run with the description of another.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

use super::held::{CHECKPOINTS, FAILED, FINISHED, Held, JOB, LOCK, STEP, held, made_by, step_of, steps_in};
use super::job::{Method, TrainJob};
use super::observer::{EvalLine, StepLine};
use super::run_log::{EVAL, METRICS, RunLogs};
use super::saved_state::{is_state_file, read_state, write_state};
use super::state::TrainerState;
use super::trainer_state_json::{Course, FILE as TRAINER_STATE, trainer_state_json};
use crate::atomic_file::{files_within, sync_folder, write_file, write_through};
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::record::FILE as RECORD;
use crate::data::dataset::Example;
use crate::error::{Context, Error, Result};

const UNFINISHED: &str = "unfinished";

/// Names that the next run removes from the folder of checkpoints: the reason of a failure, and files
/// that a killed run was writing.
const LEFT_BY_A_KILL: [&str; 6] = [UNFINISHED, FAILED, JOB, METRICS, EVAL, TRAINER_STATE];

/// The output of one run.
pub struct RunFolder<'a> {
    dir: PathBuf,
    job: TrainJob,
    /// Source of the copied tokenizer and configuration.
    pub(super) files: &'a ModelFiles,
    /// Whether the folder holds the result of an earlier run.
    used: bool,
    /// The step of the checkpoint that this run resumes from.
    resumed_at: Option<u64>,
    /// The state in that checkpoint.
    state: Option<TrainerState>,
    /// The step of this run's last save.
    saved_at: Option<u64>,
    /// The step of the checkpoint with the lowest validation loss, which is kept.
    best: Option<u64>,
    /// Of the training data.
    checksum: String,
    /// Held until the run ends.
    lock: Option<File>,
    logs: RunLogs,
    /// Known once the data is counted.
    course: Option<Course>,
}

impl<'a> RunFolder<'a> {
    /// The folder `out` of a job; creates nothing yet. Finds the checkpoint to resume from.
    ///
    /// Rejects a file of that name, the model's own folder, a folder with the result of the other
    /// method (a reader could not tell which one is valid), a folder that another run writes to, and
    /// one with another run unless the job has `overwrite`.
    pub fn open(job: &TrainJob, files: &'a ModelFiles) -> Result<Self> {
        let out = &job.out;
        if out.as_os_str().is_empty() {
            return Err(Error::usage("`out` is not a folder name"));
        }
        // Keeps the path valid if the program changes its working directory during the run.
        let dir = std::path::absolute(out).with_context(|| format!("`out` {}", out.display()))?;
        if dir.exists() && !dir.is_dir() {
            return Err(Error::usage(format!("`out` {} is a file: give a folder", out.display())));
        }
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if files.source.dir().is_some_and(|model| same(model, &dir)) {
            return Err(Error::usage(format!(
                "`out` {} is the folder of the model itself, and its files would be replaced: give another folder",
                out.display()
            )));
        }
        let (own, own_file) = made_by(job.method);
        let (other, other_file) = made_by(match job.method {
            Method::Lora => Method::Full,
            Method::Full => Method::Lora,
        });
        if dir.join(other_file).exists() {
            return Err(Error::usage(format!(
                "`out` {} holds {other} ({other_file}), and this run saves {own} that would mix with it: choose \
                 another folder",
                out.display()
            )));
        }
        let lock = dir.join(CHECKPOINTS).join(LOCK);
        if lock.is_file() {
            locked(&lock, out)?;
        }
        Ok(Self {
            used: dir.join(own_file).exists(),
            resumed_at: place_in(job)?,
            job: TrainJob { out: dir.clone(), ..job.clone() },
            logs: RunLogs::new(&dir),
            dir,
            files,
            state: None,
            saved_at: None,
            best: None,
            checksum: String::new(),
            lock: None,
            course: None,
        })
    }

    /// The folder's absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The step of the checkpoint that the run resumes from.
    pub fn resumed_at(&self) -> Option<u64> {
        self.resumed_at
    }

    /// Sets the length of the run, which `trainer_state.json` names.
    pub(super) fn set_course(&mut self, course: Course) {
        self.course = Some(course);
    }

    /// The step of this run's last save.
    pub(super) fn saved_at(&self) -> Option<u64> {
        self.saved_at
    }

    /// The folder of the checkpoint of a step.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.dir.join(CHECKPOINTS).join(format!("{STEP}{step}"))
    }

    fn unfinished(&self) -> PathBuf {
        self.dir.join(CHECKPOINTS).join(UNFINISHED)
    }

    /// Creates and locks the folder, reads the state to resume from, removes what killed runs left, and
    /// writes the settings. A run that resumes cuts the logs behind its checkpoint; a new one removes
    /// earlier checkpoints. `data` are the training examples, and those of the validation.
    ///
    /// Fails, and changes nothing, if the data has changed since the run began, or if another run has
    /// used the folder since it was opened.
    pub fn make(&mut self, data: [&[Example]; 2]) -> Result<()> {
        self.checksum = checksum(data);
        let out = self.job.out.display().to_string();
        let unwritable = |e: Error| match e.kind() {
            crate::ErrorKind::Usage => e,
            _ => e.context(format!("`out` {out} cannot be written to")),
        };
        let checkpoints = self.dir.join(CHECKPOINTS);
        let mut lock = || -> Result<()> {
            fs::create_dir_all(&checkpoints)?;
            self.lock = Some(locked(&checkpoints.join(LOCK), &self.job.out)?);
            Ok(())
        };
        lock().map_err(unwritable)?;
        if place_in(&self.job)? != self.resumed_at {
            return Err(Error::usage(format!("another run has written to `out` {out} meanwhile: start again")));
        }
        self.state = self.resumed_at.map(|step| self.read_state(step)).transpose()?;
        let mut begin = || -> Result<()> {
            self.sweep()?;
            self.place(&self.dir.join(JOB), &(serde_json::to_string_pretty(&self.job)? + "\n"))?;
            match self.resumed_at {
                Some(step) => self.logs.cut(step, &checkpoints),
                None => Ok(()),
            }
        };
        begin().map_err(unwritable)
    }

    /// Removes what runs left that were killed, and, in a new run, the checkpoints of earlier ones.
    fn sweep(&self) -> Result<()> {
        let is_new = self.resumed_at.is_none();
        if is_new {
            remove(&self.dir.join(JOB))?; // a kill from here on leaves nothing that would resume
        }
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(".longreach-")) {
                remove(&entry.path())?;
            }
        }
        // Files of others beside the checkpoints stay.
        let is_left = |name: &str| name.starts_with(".longreach-") || LEFT_BY_A_KILL.contains(&name);
        let is_earlier = |name: &str| name == FINISHED || step_of(name).is_some();
        for entry in fs::read_dir(self.dir.join(CHECKPOINTS))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| is_left(name) || is_new && is_earlier(name)) {
                self.discard(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes something from the folder of checkpoints, whose name goes first: a kill leaves no part
    /// of a checkpoint.
    fn discard(&self, path: &Path) -> Result<()> {
        let unfinished = self.unfinished();
        if path != unfinished {
            remove(&unfinished)?;
            fs::rename(path, &unfinished)?;
        }
        remove(&unfinished)
    }

    /// Writes a small file of the run's folder or of a checkpoint: beside the checkpoints first, so
    /// that a kill leaves nothing among the results.
    fn place(&self, path: &Path, text: &str) -> Result<()> {
        write_through(&self.dir.join(CHECKPOINTS), path, text)
    }

    /// The state to resume from, once.
    pub fn take_state(&mut self) -> Option<TrainerState> {
        self.state.take()
    }

    fn read_state(&self, step: u64) -> Result<TrainerState> {
        let (state, data) = read_state(&self.checkpoint(step))?;
        if data != self.checksum {
            return Err(Error::usage(format!(
                "the data is not what the run in {} began with: bring it back, or begin anew with `overwrite`",
                self.dir.display()
            )));
        }
        Ok(state)
    }

    /// The evaluations of the run so far.
    pub(super) fn evaluations(&self) -> Result<Vec<EvalLine>> {
        Ok(self.logs.lines()?.evaluations)
    }

    /// Saves a step: as a checkpoint, and its files as the result. `write` writes these to the folder
    /// it is given, which does not exist yet, and returns the state. Keeps what is saved if it fails.
    pub(super) fn save(&mut self, step: u64, write: impl FnOnce(&Path) -> Result<TrainerState>) -> Result<()> {
        // Not if the folder was taken away meanwhile.
        if self.saved_at == Some(step) && self.checkpoint(step).is_dir() {
            return Ok(());
        }
        let checkpoint = self.save_checkpoint(step, write)?;
        self.publish(&checkpoint).with_context(|| format!("writing the folder {}", self.dir.display()))?;
        self.saved_at = Some(step);
        self.prune();
        Ok(())
    }

    /// Saves the checkpoint of a step, and leaves the result as it is. Returns its folder.
    pub(super) fn save_checkpoint(
        &mut self,
        step: u64,
        write: impl FnOnce(&Path) -> Result<TrainerState>,
    ) -> Result<PathBuf> {
        let checkpoint = self.checkpoint(step);
        if !checkpoint.is_dir() {
            let unfinished = self.unfinished();
            let fill = || -> Result<()> {
                remove(&unfinished)?;
                let state = write(&unfinished)?;
                write_state(&unfinished, state, &self.checksum)?;
                // Made from the logs, for others; a log that cannot be read costs no checkpoint.
                if let Ok(Some(text)) = self.trainer_state(step) {
                    write_file(&unfinished.join(TRAINER_STATE), text)?;
                }
                self.logs.sync();
                fs::rename(&unfinished, &checkpoint).with_context(|| checkpoint.display().to_string())?;
                sync_folder(&self.dir.join(CHECKPOINTS));
                Ok(())
            };
            if let Err(e) = fill() {
                remove(&unfinished).ok(); // makes room; the next save or run tries again
                return Err(e);
            }
        }
        Ok(checkpoint)
    }

    /// The text of `trainer_state.json` after a step. `None` before the length of the run is known.
    fn trainer_state(&self, step: u64) -> Result<Option<String>> {
        let Some(course) = self.course else { return Ok(None) };
        let logs = self.logs.lines()?.up_to(step);
        let checkpoint = |step| Some(self.checkpoint(step)).filter(|folder| folder.is_dir());
        trainer_state_json(&self.job, course, step, &logs, checkpoint).map(Some)
    }

    /// Adds what the logs hold by now to `trainer_state.json`, in the checkpoint of a step and, if
    /// the result is of this step, beside it.
    pub(super) fn refresh_trainer_state(&self, step: u64) -> Result<()> {
        let Some(text) = self.trainer_state(step)? else { return Ok(()) };
        let is_saved = self.saved_at == Some(step);
        for folder in [Some(self.checkpoint(step)), is_saved.then(|| self.dir.clone())].into_iter().flatten() {
            if folder.is_dir() {
                self.place(&folder.join(TRAINER_STATE), &text)?;
            }
        }
        Ok(())
    }

    /// Makes the files of a checkpoint the result, those that describe the others last.
    fn publish(&self, checkpoint: &Path) -> Result<()> {
        if self.used && self.saved_at.is_none() && self.resumed_at.is_none() {
            // Of an earlier run: its description must not stand beside the new weights.
            for name in [made_by(self.job.method).1, RECORD] {
                remove(&self.dir.join(name))?;
            }
        }
        let unfinished = self.unfinished();
        for name in files_within(checkpoint)?.into_iter().filter(|name| !is_state_file(name.as_os_str())) {
            let (from, to) = (checkpoint.join(&name), self.dir.join(&name));
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            }
            remove(&unfinished)?;
            // Not every file system has links.
            if fs::hard_link(&from, &unfinished).is_err() {
                fs::copy(&from, &unfinished)?;
                File::open(&unfinished)?.sync_all().ok(); // likewise
            }
            fs::rename(&unfinished, &to).with_context(|| to.display().to_string())?;
        }
        remove(&unfinished)?; // stays where both names were of one file already
        sync_folder(&self.dir);
        Ok(())
    }

    /// Names the step whose checkpoint is kept as the best, if it is there.
    pub(super) fn keep_best(&mut self, step: u64) {
        if self.checkpoint(step).is_dir() {
            self.best = Some(step);
            self.prune();
        }
    }

    /// Removes all checkpoints but the last ones and the best one. One that cannot be removed stays
    /// until the next save.
    fn prune(&self) {
        let mut steps = steps_in(&self.dir).unwrap_or_default();
        steps.truncate(steps.len().saturating_sub(self.job.keep_checkpoints));
        for step in steps.into_iter().filter(|&step| Some(step) != self.best) {
            self.discard(&self.checkpoint(step)).ok();
        }
    }

    /// Records that the run is finished: there is nothing to resume.
    pub(super) fn finish(&self) -> Result<()> {
        write_file(&self.dir.join(CHECKPOINTS).join(FINISHED), "")
    }

    /// Records why the run failed. A record that cannot be written is left out: the error is reported
    /// anyway.
    pub(super) fn record_failure(&self, e: &Error) {
        fs::write(self.dir.join(CHECKPOINTS).join(FAILED), e.to_string()).ok();
    }

    /// Adds a note to the error if the run failed before its first save and the folder holds an
    /// earlier result; this run's logs would otherwise seem to belong to that result.
    pub(super) fn explained(&self, e: Error) -> Error {
        if !self.used || self.saved_at.is_some() || self.resumed_at.is_some() {
            return e;
        }
        let logs = if self.logs.has_steps() { format!(", but {METRICS} is from this run") } else { String::new() };
        e.context(format!("the result in {} is still that of an earlier run{logs}", self.dir.display()))
    }

    /// Appends a line to `metrics.jsonl` and the event file. A run's first line replaces an earlier
    /// run's logs.
    pub fn log_step(&mut self, line: &StepLine) -> Result<()> {
        self.logs.add_step(line)
    }

    /// Appends a line to `eval.jsonl` and the event file, in the same way.
    pub fn log_eval(&mut self, line: &EvalLine) -> Result<()> {
        self.logs.add_evaluation(line)
    }
}

/// The open and locked file that says that a run writes to `out`. Fails if another run holds it.
fn locked(path: &Path, out: &Path) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::usage(format!(
            "another run is writing to `out` {}: wait for its end, or give another folder",
            out.display()
        ))),
        // A file system without locks.
        Err(TryLockError::Error(e)) if e.kind() == IoErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(e)) => Err(e.into()),
    }
}

/// Removes a file or a folder; absent is fine.
fn remove(path: &Path) -> Result<()> {
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    let removed = if found.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.with_context(|| format!("removing {}", path.display()))
}

/// The step to resume from in the folder of a job. Fails if it holds another run and the job does not
/// replace it.
fn place_in(job: &TrainJob) -> Result<Option<u64>> {
    let out = job.out.display();
    match held(job)? {
        _ if job.overwrite => Ok(None),
        Held::Nothing if job.resume => Err(Error::usage(format!("`resume`: `out` {out} holds no run to resume"))),
        Held::Nothing => Ok(None),
        Held::Unfinished => match steps_in(&job.out)?.pop() {
            None if job.resume => Err(Error::usage(format!(
                "`resume`: the run in `out` {out} was stopped before its first checkpoint: begin it anew without `resume`"
            ))),
            last => Ok(last),
        },
        Held::Other(what) => {
            let advice = if job.resume {
                "`resume` needs an unfinished run with the same settings"
            } else {
                "choose another folder, or replace it with `overwrite`"
            };
            Err(Error::usage(format!("`out` {out} holds {what}: {advice}")))
        }
    }
}

/// A checksum of the examples of both splits and their order.
fn checksum(data: [&[Example]; 2]) -> String {
    let mut hasher = crc32fast::Hasher::new();
    for example in data.into_iter().flatten().flat_map(Example::sequences) {
        hasher.update(&(example.ids.len() as u64).to_le_bytes());
        hasher.update(bytemuck::cast_slice(&example.ids));
        hasher.update(bytemuck::cast_slice(&example.labels));
    }
    format!("crc32 {:08x}", hasher.finalize())
}

#[cfg(test)]
#[path = "run_folder_tests.rs"]
mod tests;
