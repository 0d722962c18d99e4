//! Training data: reads `train.jsonl` and `valid.jsonl` into token ids and labels.
//!
//! Each line is one example in one of four formats: see [`SHAPES`]. Labels follow Hugging Face: not
//! shifted, and [`IGNORED`] where the loss does not count. [`super::batch`] shifts them. `line.rs`
//! tokenises one line.

pub use super::example::{Example, IGNORED};
use super::line::{self, Line};
pub use super::line::{Reader, SHAPES};
use crate::error::{Context, Error, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Longest line in bytes. No batch takes that many tokens.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// The examples of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    pub examples: Vec<Example>,
    /// Examples truncated to the maximum length, including those dropped afterwards. Callers should
    /// warn.
    pub n_truncated: usize,
    /// Examples dropped because none of their labels counts. Callers should warn.
    pub n_dropped: usize,
}

/// Training data and, if present, validation data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    pub train: Split,
    pub valid: Option<Split>,
}

impl Reader<'_> {
    /// Reads a folder with `train.jsonl` and optionally `valid.jsonl`, or one file of training
    /// data.
    pub fn read(&self, path: &Path) -> Result<Dataset> {
        if !path.is_dir() {
            return Ok(Dataset { train: self.read_file(path)?, valid: None });
        }
        let (train, valid) = (path.join("train.jsonl"), path.join("valid.jsonl"));
        if !train.exists() {
            return Err(Error::usage(format!(
                "{} has no train.jsonl, a file with one JSON object per line: {SHAPES}",
                path.display()
            )));
        }
        let valid = if valid.exists() { Some(self.read_file(&valid)?) } else { None };
        Ok(Dataset { train: self.read_file(&train)?, valid })
    }

    /// Reads one file. Fails on the first invalid line and names it. Also fails if no example has a
    /// label that counts.
    pub fn read_file(&self, path: &Path) -> Result<Split> {
        let name = path.display();
        let mut lines = BufReader::new(File::open(path).with_context(|| format!("opening the training data {name}"))?);
        let mut split = Split::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = (&mut lines).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line);
            let n_bytes = read.with_context(|| format!("reading {name}"))?;
            crate::ensure!(
                n_bytes as u64 <= MAX_LINE_BYTES,
                "{name}, line {number} has more than {MAX_LINE_BYTES} bytes"
            );
            if n_bytes == 0 {
                break;
            }
            // Editors on Windows may write a byte order mark at the start, which is not JSON.
            let text = if number == 1 { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line) } else { &line };
            if text.trim_ascii().is_empty() {
                continue;
            }
            let example = self.example(text).with_context(|| format!("{name}, line {number}"))?;
            self.keep(example, &mut split);
        }
        if split.examples.is_empty() {
            let n = split.n_dropped;
            crate::ensure!(n > 0, "{name} has no examples; it needs one JSON object per line: {SHAPES}");
            crate::bail!(
                "none of the {n} examples of {name} trains any token: all labels are -100, or `max_length` cuts every \
                 answer off"
            );
        }
        Ok(split)
    }

    fn example(&self, line: &[u8]) -> Result<Example> {
        let example = line::tokens_of(Line::parse(line)?, self)?;
        for (i, &id) in example.ids.iter().enumerate() {
            crate::ensure!(
                (id as usize) < self.vocab_size,
                "token {i} has the id {id}, but the model has only {} ids: is this its tokenizer?",
                self.vocab_size
            );
        }
        Ok(example)
    }

    fn keep(&self, mut example: Example, split: &mut Split) {
        if let Some(max) = self.max_length.filter(|&max| example.ids.len() > max) {
            example.ids.truncate(max);
            example.labels.truncate(max);
            split.n_truncated += 1;
        }
        if example.n_targets() == 0 {
            split.n_dropped += 1;
        } else {
            split.examples.push(example);
        }
    }
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
