//! Training data: reads the files of a data set into token ids and labels.
//!
//! A line is one example in one of several forms: see [`SHAPES`]. Only a line of packed token ids is
//! several. Labels follow Hugging Face: not
//! shifted, and [`IGNORED`] where the loss does not count. [`super::batch`] shifts them. `line.rs`
//! parses a line, `tokens.rs` tokenises it, and `sources/` reads the formats of files.

pub use super::example::{Example, IGNORED};
use super::line::Line;
pub use super::line::{Form, SHAPES};
use super::long::{Long, windows};
use super::sources::files::Files;
use super::sources::read::read;
use super::sources::record::{Content, Place};
pub use super::tokens::Reader;
use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// The examples of one part of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    pub examples: Vec<Example>,
    /// For each example, the number of its record in the files, in ascending order. The windows and
    /// the packed documents of a record share it.
    pub records: Vec<usize>,
    /// Records of the files.
    pub n_records: usize,
    /// Records truncated to the maximum length, including those dropped afterwards. Callers should
    /// warn.
    pub n_truncated: usize,
    /// Records cut into windows.
    pub n_windowed: usize,
    /// Records dropped because none of their labels counts. Callers should warn.
    pub n_dropped: usize,
    /// Windows and packed documents of other records dropped for the same reason.
    pub n_parts_dropped: usize,
    /// Records that hold several documents, each of which is an example.
    pub n_packed: usize,
    /// The longest of the records that are not dropped.
    pub longest: Option<Longest>,
}

/// A record: the tokens of its longest sequence before it is cut, and its file and line. A packed
/// document is a sequence of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Longest {
    pub n_tokens: usize,
    pub place: String,
}

/// Training data and, if present, validation data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    pub train: Split,
    pub valid: Option<Split>,
}

/// A record as an example, or as several if it is packed.
#[derive(Clone, Debug)]
pub struct Read {
    pub form: Form,
    /// Each example with its sequences within the maximum length, or its windows.
    pub examples: Vec<Example>,
    /// Tokens of its longest sequence, before it is cut.
    pub n_tokens: usize,
    /// Documents that it holds: one, unless it is packed.
    pub n_documents: usize,
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
            self.each(path, &mut |place, read| {
                split.add(self, read?, || format!("{}{place}", path.display()))?;
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
        if let (Some(max), Long::Whole, Some(Longest { n_tokens, place })) =
            (self.max_length, self.long, split.longest.as_ref().filter(|longest| self.is_too_long(longest.n_tokens)))
        {
            return Err(Error::usage(format!(
                "the longest example, {place}, has {n_tokens} tokens, more than `max_length` {max}, and `long` whole cuts \
                 none: raise `max_length`, or use `long` cut or window"
            )));
        }
        Ok(split)
    }

    /// Whether a sequence of so many tokens exceeds the maximum length.
    pub fn is_too_long(&self, n_tokens: usize) -> bool {
        self.max_length.is_some_and(|max| n_tokens > max)
    }

    /// Passes each record of a file to `keep`, with its place, as what it holds or as the reason why
    /// it cannot be read. An error of `keep` ends the reading, and then names the file and the
    /// place.
    pub fn each(&self, path: &Path, keep: &mut dyn FnMut(Place, Result<Read>) -> Result<()>) -> Result<()> {
        read(path, &mut |place, content| keep(place, self.record(content)))
    }

    fn record(&self, content: Content<'_>) -> Result<Read> {
        let (form, line) = match content {
            Content::Json(text) => Line::parse(text, self.pairs)?,
            Content::Document(text) => (Form::Document, Line::Text(text)),
        };
        let documents = self.examples_of(line)?;
        let n_documents = documents.len();
        let n_tokens = documents.iter().map(Example::longest).max().unwrap_or(0);
        let mut examples = Vec::with_capacity(n_documents);
        for document in documents {
            examples.extend(self.within(document)?);
        }
        Ok(Read { form, examples, n_tokens, n_documents })
    }

    /// An example with each of its sequences within the maximum length, or its windows.
    fn within(&self, mut example: Example) -> Result<Vec<Example>> {
        match (self.max_length, self.long) {
            (Some(max), Long::Window) if example.longest() > max => {
                crate::ensure!(
                    example.rejected.is_none(),
                    "`long` window cannot cut a preference pair, because its windows would have nothing to compare: use \
                     `long` cut or whole"
                );
                Ok(windows(example, max, self.overlap, self.tokenizer.and_then(Tokenizer::added_bos)))
            }
            (Some(max), Long::Cut) => {
                example.truncate(max);
                Ok(vec![example])
            }
            _ => Ok(vec![example]),
        }
    }
}

impl Split {
    /// Adds a record. `place` says where it is. Fails if it is a preference pair and others are
    /// not, or the other way round.
    fn add(&mut self, reader: &Reader<'_>, read: Read, place: impl FnOnce() -> String) -> Result<()> {
        let alike = |other: &Example| read.examples.iter().all(|e| e.rejected.is_some() == other.rejected.is_some());
        crate::ensure!(
            self.examples.last().is_none_or(alike),
            "preference pairs and other examples are mixed: keep them in data sets of their own"
        );
        let record = self.n_records;
        self.n_records += 1;
        if reader.is_too_long(read.n_tokens) {
            match reader.long {
                Long::Whole => {}
                Long::Cut => self.n_truncated += 1,
                Long::Window => self.n_windowed += 1,
            }
        }
        self.n_packed += usize::from(read.n_documents > 1);
        let n_read = read.examples.len();
        let kept: Vec<Example> = read.examples.into_iter().filter(Example::trains).collect();
        if kept.is_empty() {
            self.n_dropped += 1;
            return Ok(());
        }
        self.n_parts_dropped += n_read - kept.len();
        self.records.extend(std::iter::repeat_n(record, kept.len()));
        self.examples.extend(kept);
        if self.longest.as_ref().is_none_or(|longest| longest.n_tokens < read.n_tokens) {
            self.longest = Some(Longest { n_tokens: read.n_tokens, place: place() });
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
