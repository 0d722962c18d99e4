//! A run's output folder: adapter or model, saved whole, and `metrics.jsonl` and `eval.jsonl`.
//!
//! The two logs grow during the run and survive every save.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::job::Method;
use super::observer::{EvalLine, StepLine};
use crate::atomic_file::write_folder;
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Context, Error, Result};

/// The log with one line per step.
pub const METRICS: &str = "metrics.jsonl";
/// The log with one line per evaluation.
pub const EVAL: &str = "eval.jsonl";

/// Whether a folder holds a result that a run with this method would replace.
pub fn holds_result(out: &Path, method: Method) -> bool {
    out.join(made_by(method).1).exists()
}

/// The result of a method: its name, and the file that identifies it.
fn made_by(method: Method) -> (&'static str, &'static str) {
    match method {
        Method::Lora => ("an adapter", "adapter_config.json"),
        Method::Full => ("a model", "config.json"),
    }
}

/// The output of one run.
pub struct RunFolder<'a> {
    dir: PathBuf,
    /// Source of the copied tokenizer and configuration.
    pub(super) files: &'a ModelFiles,
    /// Whether the folder holds the result of an earlier run.
    used: bool,
    /// The step of this run's last save.
    pub(super) saved_at: Option<u64>,
    metrics: Option<File>,
    eval: Option<File>,
}

impl<'a> RunFolder<'a> {
    /// The folder `out`, not created yet. Rejects a file of that name, the model's own folder, and
    /// a folder with the result of the other method: a reader could not tell which result is valid.
    pub fn new(out: &Path, files: &'a ModelFiles, method: Method) -> Result<Self> {
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
        let (own, _) = made_by(method);
        let (other, other_file) = made_by(match method {
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
        let used = holds_result(&dir, method);
        Ok(Self { dir, files, used, saved_at: None, metrics: None, eval: None })
    }

    /// The folder's absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates the folder and verifies that files can be written to it the way a save does.
    pub fn make(&self) -> Result<()> {
        let probe = format!(".longreach-{}.probe", std::process::id());
        let prove = || -> Result<()> {
            fs::create_dir_all(&self.dir)?;
            write_folder(&self.dir, |folder| Ok(fs::write(folder.join(&probe), "")?))?;
            Ok(fs::remove_file(self.dir.join(&probe))?)
        };
        prove().with_context(|| format!("`out` {} cannot be written to", self.dir.display()))
    }

    /// Adds a note to the error if the run failed before its first save and the folder holds an
    /// earlier result; this run's logs would otherwise seem to belong to that result.
    pub(super) fn explained(&self, e: Error) -> Error {
        if !self.used || self.saved_at.is_some() {
            return e;
        }
        let logs = if self.metrics.is_some() { format!(", but {METRICS} is from this run") } else { String::new() };
        e.context(format!("this run saved nothing ({} holds the result of an earlier run{logs})", self.dir.display()))
    }

    /// Appends a line to `metrics.jsonl`. A run's first line replaces an earlier run's log.
    pub fn log_step(&mut self, line: &StepLine) -> Result<()> {
        if self.metrics.is_none() && self.eval.is_none() {
            fs::remove_file(self.dir.join(EVAL)).ok(); // fails if absent, which is fine
        }
        append(&mut self.metrics, &self.dir.join(METRICS), line)
    }

    /// Appends a line to `eval.jsonl`, in the same way.
    pub fn log_eval(&mut self, line: &EvalLine) -> Result<()> {
        append(&mut self.eval, &self.dir.join(EVAL), line)
    }
}

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
        let before = file.stream_position()?;
        let written = file.write_all(text.as_bytes());
        if written.is_err() {
            // A partial line would corrupt the next one too.
            file.set_len(before)?;
            file.seek(SeekFrom::Start(before))?;
        }
        Ok(written?)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_and_models_are_not_mixed() {
        let dir = tempfile::tempdir().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
        let files = ModelFiles::open(&model.display().to_string(), None).unwrap();
        let open = |method| RunFolder::new(dir.path(), &files, method).map(|folder| folder.used);
        assert!(!open(Method::Lora).unwrap() && !open(Method::Full).unwrap());
        for (file, own, other) in
            [("adapter_config.json", Method::Lora, Method::Full), ("config.json", Method::Full, Method::Lora)]
        {
            fs::write(dir.path().join(file), "{}").unwrap();
            let e = open(other).unwrap_err();
            assert!(e.kind() == crate::ErrorKind::Usage && e.to_string().contains(file), "{e}");
            assert!(open(own).unwrap());
            fs::remove_file(dir.path().join(file)).unwrap();
        }
    }

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
    fn making_a_folder_leaves_it_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
        let files = ModelFiles::open(&model.display().to_string(), None).unwrap();
        let out = dir.path().join("a/b");
        for _ in 0..2 {
            RunFolder::new(&out, &files, Method::Lora).unwrap().make().unwrap();
            assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
        }
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }
}
