//! Training data: reads the files of a data set into token ids and labels.
//!
//! A line is one example in one of several forms: see [`SHAPES`]. Labels follow Hugging Face: not
//! shifted, and [`IGNORED`] where the loss does not count. [`super::batch`] shifts them. `line.rs`
//! parses a line, `tokens.rs` tokenises it, and `sources/` reads the formats of files.

pub use super::example::{Example, IGNORED};
use super::line::Line;
pub use super::line::{Form, SHAPES};
use super::sources::files::Files;
use super::sources::read::read;
use super::sources::record::{Content, Place};
pub use super::tokens::Reader;
use crate::error::Result;
use std::path::{Path, PathBuf};

/// The examples of one part of a data set.
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

/// A record as an example.
#[derive(Clone, Debug)]
pub struct Read {
    pub form: Form,
    /// Truncated to the maximum length.
    pub example: Example,
    /// Tokens of all its sequences before the truncation.
    pub n_tokens: usize,
}

impl Reader<'_> {
    /// Reads a folder with training and perhaps validation data, or one file of training data
    /// ([`Files::find`] has the names).
    pub fn read(&self, path: &Path) -> Result<Dataset> {
        let files = Files::find(path)?;
        let valid = if files.valid.is_empty() { None } else { Some(self.read_files(&files.valid)?) };
        Ok(Dataset { train: self.read_files(&files.train)?, valid })
    }

    /// Reads one file. Fails on the first invalid record and names it. Also fails if no example has
    /// a label that counts.
    pub fn read_file(&self, path: &Path) -> Result<Split> {
        self.read_files(&[path.to_path_buf()])
    }

    fn read_files(&self, paths: &[PathBuf]) -> Result<Split> {
        let mut split = Split::default();
        for path in paths {
            self.each(path, &mut |_, read| {
                let Read { example, n_tokens, .. } = read?;
                let alike = |other: &Example| other.rejected.is_some() == example.rejected.is_some();
                crate::ensure!(
                    split.examples.last().is_none_or(alike),
                    "preference pairs and other examples are mixed: keep them in data sets of their own"
                );
                split.n_truncated += usize::from(n_tokens > example.n_tokens());
                if !example.trains() {
                    split.n_dropped += 1;
                } else {
                    split.examples.push(example);
                }
                Ok(())
            })?;
        }
        if split.examples.is_empty() {
            let (n, name) = (split.n_dropped, paths[0].display());
            crate::ensure!(n > 0, "{name} has no examples; it needs one JSON object per line: {SHAPES}");
            crate::bail!(
                "none of the {n} examples of {name} trains any token: all labels are -100, or `max_length` cuts every \
                 answer off"
            );
        }
        Ok(split)
    }

    /// Passes each record of a file to `keep`, with its place, as an example or as the reason why
    /// it cannot be one. An error of `keep` ends the reading, and then names the file and the
    /// place.
    pub fn each(&self, path: &Path, keep: &mut dyn FnMut(Place, Result<Read>) -> Result<()>) -> Result<()> {
        read(path, &mut |place, content| keep(place, self.example(content)))
    }

    fn example(&self, content: Content<'_>) -> Result<Read> {
        let (form, line) = match content {
            Content::Json(text) => Line::parse(text, self.pairs)?,
            Content::Document(text) => (Form::Document, Line::Text(text)),
        };
        let mut example = self.tokens_of(line)?;
        let n_tokens = example.n_tokens();
        if let Some(max) = self.max_length {
            example.truncate(max);
        }
        Ok(Read { form, example, n_tokens })
    }
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
