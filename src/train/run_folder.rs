//! The folder that a run writes: the adapter or model, saved whole each time, and the lines of `metrics.jsonl` and
//! `eval.jsonl`, which grow as the run goes and survive every save.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::observer::{EvalLine, StepLine};
use crate::atomic_file::write_folder;
use crate::data::model_files::ModelFiles;
use crate::error::{Context, Error, Result};

/// One line a step.
pub const METRICS: &str = "metrics.jsonl";
/// One line an evaluation.
pub const EVAL: &str = "eval.jsonl";

/// The output of one run.
pub struct RunFolder<'a> {
    dir: PathBuf,
    /// Where tokenizer and configuration are copied from.
    pub(super) files: &'a ModelFiles,
    metrics: Option<File>,
    eval: Option<File>,
}

impl<'a> RunFolder<'a> {
    /// The folder `out`, not yet made. Refuses a file of that name and the model's own folder.
    pub fn new(out: &Path, files: &'a ModelFiles) -> Result<Self> {
        if out.as_os_str().is_empty() {
            return Err(Error::usage("--out names no folder"));
        }
        // "." has no name that a temporary folder beside it could be made of.
        let dir = std::path::absolute(out).with_context(|| format!("--out {}", out.display()))?;
        if dir.exists() && !dir.is_dir() {
            return Err(Error::usage(format!("--out {} is a file: name a folder", out.display())));
        }
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if files.source.dir().is_some_and(|model| same(model, &dir)) {
            return Err(Error::usage(format!(
                "--out {} is the folder of the model itself, whose files would be replaced: name another",
                out.display()
            )));
        }
        Ok(Self { dir, files, metrics: None, eval: None })
    }

    /// The folder's absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the folder and proves that files can be put into it the way saving does.
    pub fn make(&self) -> Result<()> {
        write_folder(&self.dir, |_| Ok(())).context("--out")?;
        tempfile_in(&self.dir).with_context(|| format!("--out {} cannot be written to", self.dir.display()))
    }

    /// Appends a line to `metrics.jsonl`; the first line of a run replaces what an earlier run wrote.
    pub fn log_step(&mut self, line: &StepLine) -> Result<()> {
        if self.metrics.is_none() {
            fs::remove_file(self.dir.join(EVAL)).ok(); // absent is what it should be
        }
        append(&mut self.metrics, &self.dir.join(METRICS), line)
    }

    /// Appends a line to `eval.jsonl`, likewise.
    pub fn log_eval(&mut self, line: &EvalLine) -> Result<()> {
        append(&mut self.eval, &self.dir.join(EVAL), line)
    }
}

/// Creates and removes an empty file.
fn tempfile_in(dir: &Path) -> Result<()> {
    let probe = dir.join(format!(".longreach-{}.tmp", std::process::id()));
    File::create(&probe)?;
    Ok(fs::remove_file(&probe)?)
}

fn append(file: &mut Option<File>, path: &Path, line: &impl Serialize) -> Result<()> {
    let mut write = || -> Result<()> {
        if file.is_none() {
            *file = Some(File::create(path)?);
        }
        let text = serde_json::to_string(line)? + "\n";
        if let Some(file) = file {
            file.write_all(text.as_bytes())?;
        }
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}
