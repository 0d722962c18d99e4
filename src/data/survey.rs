//! A survey of training data: forms, lengths, what is cut or left out and why, and examples.

use super::dataset::{Example, Form, IGNORED, Read, Reader};
use super::sources::files::Files;
use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most entries of each list of places.
pub const MAX_LISTED: usize = 1000;
/// Refused records after which the survey ends.
const MAX_REFUSED: usize = 1000;

/// What one part of a data set holds.
#[derive(Clone, Debug)]
pub struct Part {
    /// `train`, `valid` or `test`.
    pub name: &'static str,
    pub files: Vec<PathBuf>,
    /// Number of records in each form, without refused ones.
    pub forms: BTreeMap<Form, usize>,
    /// Examples, without those left out.
    pub n_examples: usize,
    /// Tokens of each sequence, after truncation, without those left out. A preference pair has two
    /// sequences.
    pub tokens: Vec<usize>,
    /// Tokens of each sequence that are learnt.
    pub learnt: Vec<usize>,
    /// Truncated records.
    pub cut: Listed,
    /// Records without a token to learn.
    pub left_out: Listed,
    /// Records that cannot be read. Training would end at the first.
    pub refused: Listed,
    /// The first examples.
    pub shown: Vec<Shown>,
}

/// Places with what happened there, the first [`MAX_LISTED`] of them.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    pub n: usize,
    pub first: Vec<(String, String)>,
}

impl Listed {
    fn add(&mut self, place: &str, what: String) {
        self.n += 1;
        if self.first.len() < MAX_LISTED {
            self.first.push((place.to_owned(), what));
        }
    }
}

/// An example to look at.
#[derive(Clone, Debug)]
pub struct Shown {
    pub place: String,
    pub form: Form,
    pub n_tokens: usize,
    pub n_learnt: usize,
    pub pieces: Vec<Piece>,
    /// Tokens after the pieces, which are not shown.
    pub n_more: usize,
    /// The sequence with the rejected answer of a preference pair.
    pub rejected: Option<Box<Shown>>,
}

/// Text of an example, and whether it is learnt.
pub type Piece = (String, bool);

/// Surveys a data folder or file. Shows the first `n_shown` examples of the training data, each up
/// to `max_tokens` tokens.
pub fn survey(reader: &Reader<'_>, path: &Path, n_shown: usize, max_tokens: usize) -> Result<Vec<Part>> {
    let Files { train, valid, test } = Files::find(path)?;
    let parts = [("train", train, n_shown), ("valid", valid, 0), ("test", test, 0)];
    let parts = parts.into_iter().filter(|(_, files, _)| !files.is_empty());
    parts.map(|(name, files, n_shown)| part(reader, name, files, n_shown, max_tokens)).collect()
}

fn part(
    reader: &Reader<'_>,
    name: &'static str,
    files: Vec<PathBuf>,
    n_shown: usize,
    max_tokens: usize,
) -> Result<Part> {
    let mut part = Part {
        name,
        files,
        forms: BTreeMap::new(),
        n_examples: 0,
        tokens: Vec::new(),
        learnt: Vec::new(),
        cut: Listed::default(),
        left_out: Listed::default(),
        refused: Listed::default(),
        shown: Vec::new(),
    };
    for path in part.files.clone() {
        reader.each(&path, &mut |place, read| {
            let place = format!("{}{place}", path.display());
            let read = match read {
                Ok(read) => read,
                Err(e) => {
                    part.refused.add(&place, e.to_string());
                    let too_many = Error::new(format!("{MAX_REFUSED} records are refused, the last one because: {e}"));
                    return if part.refused.n < MAX_REFUSED { Ok(()) } else { Err(too_many) };
                }
            };
            part.add(&place, &read);
            if part.shown.len() < n_shown && read.example.trains() {
                part.shown.push(shown(reader, &place, (read.form, &read.example), max_tokens)?);
            }
            Ok(())
        })?;
    }
    Ok(part)
}

impl Part {
    fn add(&mut self, place: &str, read: &Read) {
        let Read { form, example, n_tokens } = read;
        *self.forms.entry(*form).or_default() += 1;
        let n = example.n_tokens();
        if *n_tokens > n {
            self.cut.add(place, format!("{n_tokens} tokens are cut to {n}"));
        }
        if !example.trains() {
            return self.left_out.add(place, "no token to learn".to_owned());
        }
        self.n_examples += 1;
        for sequence in example.sequences() {
            self.tokens.push(sequence.ids.len());
            self.learnt.push(sequence.n_targets());
        }
    }
}

fn shown(reader: &Reader<'_>, place: &str, (form, example): (Form, &Example), max_tokens: usize) -> Result<Shown> {
    let rejected = example.rejected.as_deref().map(|rejected| shown(reader, place, (form, rejected), max_tokens));
    let n_tokens = example.ids.len();
    Ok(Shown {
        place: place.to_owned(),
        form,
        n_tokens,
        n_learnt: example.n_targets(),
        pieces: pieces(reader.tokenizer, example, max_tokens)?,
        n_more: n_tokens.saturating_sub(max_tokens),
        rejected: rejected.transpose()?.map(Box::new),
    })
}

/// The text of the first `max_tokens` tokens of an example (the chosen sequence of a pair), split where the loss starts or stops to
/// count. Without a tokenizer, the ids.
pub fn pieces(tokenizer: Option<&Tokenizer>, example: &Example, max_tokens: usize) -> Result<Vec<Piece>> {
    let ids = &example.ids[..example.ids.len().min(max_tokens)];
    let texts = match tokenizer {
        Some(tokenizer) => tokenizer.pieces(ids)?,
        None => ids.iter().map(|id| format!("{id} ")).collect(),
    };
    let mut pieces: Vec<Piece> = Vec::new();
    for (i, (text, &label)) in texts.into_iter().zip(&example.labels).enumerate() {
        let is_learnt = i > 0 && label != IGNORED; // nothing comes before the first token
        match pieces.last_mut().filter(|piece| piece.1 == is_learnt) {
            Some(last) => last.0 += &text,
            None => pieces.push((text, is_learnt)),
        }
    }
    Ok(pieces)
}

/// Minimum, median, mean, maximum and total of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    pub min: usize,
    pub median: f64,
    pub mean: f64,
    pub max: usize,
    pub total: usize,
}

impl Statistics {
    /// All zero if there are no numbers.
    pub fn of(numbers: &[usize]) -> Self {
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable();
        let n = sorted.len();
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return Self::default() };
        let total = sorted.iter().sum();
        let median = (sorted[(n - 1) / 2] + sorted[n / 2]) as f64 / 2.0;
        Self { min, median, mean: total as f64 / n as f64, max, total }
    }
}

/// For each power of two, how many of the numbers are at most that and above the one before.
pub fn histogram(numbers: &[usize]) -> Vec<(usize, usize)> {
    let mut bins: BTreeMap<usize, usize> = BTreeMap::new();
    for n in numbers {
        *bins.entry(n.next_power_of_two()).or_default() += 1;
    }
    let (Some(&first), Some(&last)) = (bins.keys().next(), bins.keys().next_back()) else { return Vec::new() };
    let all = std::iter::successors(Some(first), |bin| Some(2 * bin)).take_while(|bin| *bin <= last);
    all.map(|bin| (bin, bins.get(&bin).copied().unwrap_or(0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_and_bins_are_of_all_numbers() {
        let statistics = Statistics::of(&[5, 1, 9, 2]);
        assert_eq!(statistics, Statistics { min: 1, median: 3.5, mean: 4.25, max: 9, total: 17 });
        assert_eq!(Statistics::of(&[3]).median, 3.0);
        assert_eq!(Statistics::of(&[]), Statistics::default());
        assert_eq!(histogram(&[1, 2, 9, 16, 2]), [(1, 1), (2, 2), (4, 0), (8, 0), (16, 2)]);
        assert!(histogram(&[]).is_empty());
    }

    #[test]
    fn a_survey_lists_what_training_would_use_cut_leave_out_and_refuse() {
        let dir = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"input_ids": [1, 2, 3], "labels": [-100, -100, 3]}"#,
            r#"{"input_ids": [1, 2, 3, 4, 5]}"#,
            r#"{"input_ids": [1]}"#,
            r#"{"text": "a"}"#,
        ];
        std::fs::write(dir.path().join("train.jsonl"), lines.join("\n")).unwrap();
        std::fs::write(dir.path().join("test.jsonl"), lines[0]).unwrap();
        let reader =
            Reader { tokenizer: None, template: None, eos: None, vocab_size: 9, max_length: Some(4), pairs: false };
        let parts = survey(&reader, dir.path(), 1, 2).unwrap();
        assert_eq!(parts.iter().map(|part| part.name).collect::<Vec<_>>(), ["train", "test"]);
        let train = &parts[0];
        assert_eq!((train.tokens.as_slice(), train.learnt.as_slice()), (&[3, 4][..], &[1, 3][..]));
        assert_eq!((train.cut.n, train.left_out.n, train.refused.n), (1, 1, 1));
        assert!(train.cut.first[0].0.ends_with("train.jsonl, line 2") && train.cut.first[0].1.contains("5 tokens"));
        assert!(train.refused.first[0].0.ends_with("line 4") && train.refused.first[0].1.contains("no tokenizer"));
        assert_eq!(train.forms[&Form::Tokens], 3);
        let shown = &train.shown[0];
        assert_eq!((shown.pieces.as_slice(), shown.n_more), (&[("1 2 ".to_owned(), false)][..], 1));
    }
}
