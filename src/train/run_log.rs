//! The logs of a run: `metrics.jsonl` and `eval.jsonl`, one JSON object per line, and an event file.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::event_file::EventFile;
use super::observer::{EvalLine, StepLine};
use crate::atomic_file::{append_whole, write_through};
use crate::error::{Context, Result};

/// The log with one line per step.
pub const METRICS: &str = "metrics.jsonl";
/// The log with one line per evaluation.
pub const EVAL: &str = "eval.jsonl";

/// The lines of both logs of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logs {
    /// Of `metrics.jsonl`.
    pub steps: Vec<StepLine>,
    /// Of `eval.jsonl`.
    pub evaluations: Vec<EvalLine>,
}

impl Logs {
    /// The whole lines of the logs in a run's folder, which may still be written to.
    pub fn read(out: &Path) -> Result<Self> {
        Ok(Self { steps: whole_lines(&out.join(METRICS))?, evaluations: whole_lines(&out.join(EVAL))? })
    }

    /// The lines up to a step.
    pub fn up_to(mut self, step: u64) -> Self {
        self.steps.retain(|line| line.step <= step);
        self.evaluations.retain(|line| line.step <= step);
        self
    }
}

/// The logs that a run writes.
pub(super) struct RunLogs {
    /// The folder of the run.
    dir: PathBuf,
    metrics: Option<File>,
    eval: Option<File>,
    events: Option<EventFile>,
}

impl RunLogs {
    /// The logs of a run in the folder `dir`. The first line replaces the logs of an earlier run.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), metrics: None, eval: None, events: None }
    }

    /// Continues the logs of a run that resumes, without the lines after a step. Files are written
    /// to the folder `scratch` first.
    pub fn cut(&mut self, step: u64, scratch: &Path) -> Result<()> {
        let Logs { steps, evaluations } = Logs::read(&self.dir)?.up_to(step);
        self.metrics = rewritten(&self.dir.join(METRICS), scratch, &steps)?;
        self.eval = rewritten(&self.dir.join(EVAL), scratch, &evaluations)?;
        // Without it the run goes on; its first line tries again and says what fails.
        self.events = EventFile::of_logs(&self.dir, &steps, &evaluations).ok();
        Ok(())
    }

    /// Whether this run has logged a step.
    pub fn has_steps(&self) -> bool {
        self.metrics.is_some()
    }

    /// The lines of this run so far.
    pub fn lines(&self) -> Result<Logs> {
        let mut logs = Logs::read(&self.dir)?;
        if self.metrics.is_none() {
            logs.steps.clear(); // of an earlier run
        }
        if self.eval.is_none() {
            logs.evaluations.clear();
        }
        Ok(logs)
    }

    /// Appends the line of a step to each log.
    pub fn add_step(&mut self, line: &StepLine) -> Result<()> {
        if self.metrics.is_none() && self.eval.is_none() {
            fs::remove_file(self.dir.join(EVAL)).ok(); // fails if absent, which is fine
        }
        let ready = self.events().map(|_| ()); // a new event file is made from the lines before
        append(&mut self.metrics, &self.dir.join(METRICS), line)?;
        ready?;
        self.events()?.add_step(line)
    }

    /// Appends the line of an evaluation to each log.
    pub fn add_evaluation(&mut self, line: &EvalLine) -> Result<()> {
        let ready = self.events().map(|_| ());
        append(&mut self.eval, &self.dir.join(EVAL), line)?;
        ready?;
        self.events()?.add_evaluation(line)
    }

    fn events(&mut self) -> Result<&mut EventFile> {
        let events = match self.events.take() {
            Some(events) => events,
            None => {
                let Logs { steps, evaluations } = self.lines()?;
                EventFile::of_logs(&self.dir, &steps, &evaluations)?
            }
        };
        Ok(self.events.insert(events))
    }

    /// Writes the logs to the disk. A failure costs only durability.
    pub fn sync(&self) {
        for log in [&self.metrics, &self.eval].into_iter().flatten() {
            log.sync_data().ok();
        }
    }
}

/// Writes a log anew and opens it at its end. Removes a log without lines.
fn rewritten(path: &Path, scratch: &Path, lines: &[impl Serialize]) -> Result<Option<File>> {
    let text = lines.iter().map(|line| Ok(serde_json::to_string(line)? + "\n")).collect::<Result<String>>()?;
    if text.is_empty() {
        if path.symlink_metadata().is_ok() {
            fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
        }
        return Ok(None);
    }
    write_through(scratch, path, &text)?;
    let mut file = File::options().write(true).open(path)?;
    file.seek(SeekFrom::End(0))?;
    Ok(Some(file))
}

/// The lines of a run's `metrics.jsonl`.
pub fn read_steps(out: &Path) -> Result<Vec<StepLine>> {
    read_log(&out.join(METRICS))
}

/// The lines of a log; none if it does not exist.
fn read_log<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| path.display().to_string())).collect()
}

/// The lines of a log, up to the first that is not whole.
fn whole_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    Ok(bytes.split(|&b| b == b'\n').map_while(|line| serde_json::from_slice(line).ok()).collect())
}

/// Appends a line to a log. The first line replaces the log of an earlier run.
fn append(file: &mut Option<File>, path: &Path, line: &impl Serialize) -> Result<()> {
    let mut write = || -> Result<()> {
        if file.is_none() {
            // Removes a link too, rather than writing through it.
            if path.symlink_metadata().is_ok() {
                fs::remove_file(path)?;
            }
            *file = Some(File::create_new(path)?);
        }
        let text = serde_json::to_string(line)? + "\n";
        let Some(file) = file else { return Ok(()) };
        append_whole(file, text.as_bytes())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_log_is_not_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let [precious, log] = ["precious.txt", METRICS].map(|name| dir.path().join(name));
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &log).unwrap();
        let mut file = None;
        (1..=2).for_each(|n| append(&mut file, &log, &n).unwrap());
        assert_eq!(fs::read_to_string(&log).unwrap(), "1\n2\n");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }

    #[test]
    fn a_line_that_is_not_whole_ends_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS);
        assert_eq!(whole_lines::<u32>(&path).unwrap(), [0; 0]);
        fs::write(&path, "1\n2\n{\"st").unwrap();
        assert_eq!(whole_lines::<u32>(&path).unwrap(), [1, 2]);
        assert!(read_log::<u32>(&path).is_err());
    }
}
