//! The logs of a run: `metrics.jsonl` and `eval.jsonl`, one JSON object per line.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::observer::StepLine;
use crate::error::{Context, Result};

/// The log with one line per step.
pub const METRICS: &str = "metrics.jsonl";
/// The log with one line per evaluation.
pub const EVAL: &str = "eval.jsonl";

/// The lines of a run's `metrics.jsonl`.
pub fn read_steps(out: &Path) -> Result<Vec<StepLine>> {
    read_log(&out.join(METRICS))
}

/// The lines of a log; none if it does not exist.
pub(super) fn read_log<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| path.display().to_string())).collect()
}

/// The lines of a log, up to the first that is not whole.
pub(super) fn whole_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    Ok(bytes.split(|&b| b == b'\n').map_while(|line| serde_json::from_slice(line).ok()).collect())
}

/// Appends a line to a log. The first line replaces the log of an earlier run.
pub(super) fn append(file: &mut Option<File>, path: &Path, line: &impl Serialize) -> Result<()> {
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
