//! A survey of training data: forms, lengths, what is cut or left out and why, and examples.

use super::dataset::{Example, Form, IGNORED, Read, Reader};
use super::hold_out::HoldOut;
use super::long::Long;
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
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// `train`, `valid` or `test`.
    pub name: &'static str,
    pub files: Vec<PathBuf>,
    /// Whether this part is held out of the training files.
    pub is_held_out: bool,
    /// Number of records in each form, without refused ones.
    pub forms: BTreeMap<Form, usize>,
    /// Tokens of each example, window or packed document, after truncation, without those left out.
    pub lengths: Vec<usize>,
    /// Tokens of each of their sequences: a preference pair has two.
    pub tokens: Vec<usize>,
    /// Tokens of each sequence that are learnt.
    pub learnt: Vec<usize>,
    /// Truncated records.
    pub cut: Listed,
    /// Records cut into windows.
    pub windowed: Listed,
    /// Records, windows and packed documents without a token to learn.
    pub left_out: Listed,
    /// Records that training refuses: those that cannot be read, and those that are too long.
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
    /// The tokens of the pieces.
    pub ids: Vec<u32>,
    /// Their labels: the token itself where it is learnt, else [`IGNORED`].
    pub labels: Vec<i32>,
    /// Tokens after the pieces, which are not shown.
    pub n_more: usize,
    /// The sequence with the rejected answer of a preference pair.
    pub rejected: Option<Box<Shown>>,
}

/// Text of an example, and whether it is learnt.
pub type Piece = (String, bool);

/// Surveys a data folder or file. Shows the first `n_shown` examples of the training data, each up
/// to `max_tokens` tokens. With `hold_out`, holds out validation data as a run would, and fails if
/// there is some already.
pub fn survey(
    reader: &Reader<'_>,
    path: &Path,
    hold_out: Option<HoldOut>,
    n_shown: usize,
    max_tokens: usize,
) -> Result<Vec<Part>> {
    let files = Files::find(path)?;
    let mut train = records(reader, &files.train)?;
    let valid = match hold_out {
        None => Part::of("valid", &files.valid, &records(reader, &files.valid)?),
        Some(hold_out) => {
            files.check_no_valid()?;
            let held = held_out(hold_out, &mut train)?;
            Part { is_held_out: true, ..Part::of("valid", &files.train, &held) }
        }
    };
    let test = Part::of("test", &files.test, &records(reader, &files.test)?);
    let shown = train.iter().filter_map(|record| shown(reader, record, max_tokens)).take(n_shown);
    let train = Part { shown: shown.collect::<Result<_>>()?, ..Part::of("train", &files.train, &train) };
    Ok([train, valid, test].into_iter().filter(|part| !part.files.is_empty()).collect())
}

/// A record of a file: where it is, and what training does with it or why it refuses it.
struct Record {
    place: String,
    read: Result<Read>,
    /// What becomes of it if it is too long.
    cut: Option<Long>,
}

impl Record {
    /// The examples that training uses.
    fn examples(&self) -> impl Iterator<Item = &Example> {
        let read = self.read.as_ref().into_iter();
        read.flat_map(|read| &read.examples).filter(|example| example.trains())
    }
}

fn records(reader: &Reader<'_>, paths: &[PathBuf]) -> Result<Vec<Record>> {
    let (mut records, mut n_refused) = (Vec::new(), 0);
    for path in paths {
        reader.each(path, &mut |place, read| {
            let is_long = read.as_ref().is_ok_and(|read| reader.is_too_long(read.n_tokens));
            let read = read.and_then(|read| match (reader.max_length, reader.long) {
                (Some(max), Long::Whole) if is_long => Err(Error::new(format!(
                    "{} tokens are more than `max_length` {max}, and `long` whole cuts none",
                    read.n_tokens
                ))),
                _ => Ok(read),
            });
            if let Err(e) = &read {
                n_refused += 1;
                crate::ensure!(n_refused < MAX_REFUSED, "{MAX_REFUSED} records are refused, the last one because: {e}");
            }
            let place = format!("{}{place}", path.display());
            records.push(Record { place, read, cut: is_long.then_some(reader.long) });
            Ok(())
        })?;
    }
    Ok(records)
}

/// Takes the records that a run would hold out.
fn held_out(hold_out: HoldOut, records: &mut Vec<Record>) -> Result<Vec<Record>> {
    let trains: Vec<usize> = (0..records.len()).filter(|&i| records[i].examples().next().is_some()).collect();
    let drawn = hold_out.drawn(&trains)?;
    let all = std::mem::take(records).into_iter().enumerate();
    let (held, kept): (Vec<_>, Vec<_>) = all.partition(|(i, _)| drawn.contains(i));
    records.extend(kept.into_iter().map(|(_, record)| record));
    Ok(held.into_iter().map(|(_, record)| record).collect())
}

impl Part {
    fn of(name: &'static str, files: &[PathBuf], records: &[Record]) -> Self {
        let mut part = Self { name, files: files.to_vec(), ..Self::default() };
        for record in records {
            match &record.read {
                Ok(read) => part.add(record, read),
                Err(e) => part.refused.add(&record.place, e.to_string()),
            }
        }
        part
    }

    fn add(&mut self, record: &Record, read: &Read) {
        let place = &record.place;
        *self.forms.entry(read.form).or_default() += 1;
        let n = read.examples.len();
        let (what, parts) = match read.n_documents {
            1 => (format!("{} tokens", read.n_tokens), "windows"),
            documents => (format!("{documents} documents of up to {} tokens", read.n_tokens), "examples"),
        };
        match record.cut {
            Some(Long::Cut) => {
                let rest = read.examples.iter().map(Example::longest).max().unwrap_or(0);
                self.cut.add(place, format!("{what} are cut to {rest}"));
            }
            Some(Long::Window) => self.windowed.add(place, format!("{what} become {n} {parts}")),
            Some(Long::Whole) | None => {}
        }
        let before = self.lengths.len();
        for example in record.examples() {
            self.lengths.push(example.n_tokens());
            self.tokens.extend(example.sequences().map(|sequence| sequence.ids.len()));
            self.learnt.extend(example.sequences().map(Example::n_targets));
        }
        match n - (self.lengths.len() - before) {
            0 => {}
            left if left == n => self.left_out.add(place, "no token to learn".to_owned()),
            left => self.left_out.add(place, format!("no token to learn in {left} of {n} {parts}")),
        }
    }
}

/// The first example of a record to look at, if training uses one.
fn shown(reader: &Reader<'_>, record: &Record, max_tokens: usize) -> Option<Result<Shown>> {
    let (read, example) = (record.read.as_ref().ok()?, record.examples().next()?);
    let shown = |sequence: &Example| -> Result<Shown> {
        let n = sequence.ids.len().min(max_tokens);
        Ok(Shown {
            place: record.place.clone(),
            form: read.form,
            n_tokens: sequence.ids.len(),
            n_learnt: sequence.n_targets(),
            pieces: pieces(reader.tokenizer, sequence, max_tokens)?,
            ids: sequence.ids[..n].to_vec(),
            labels: sequence.labels[..n].to_vec(),
            n_more: sequence.ids.len() - n,
            rejected: None,
        })
    };
    let rejected = example.rejected.as_deref().map(|rejected| shown(rejected).map(Box::new)).transpose();
    Some(rejected.and_then(|rejected| Ok(Shown { rejected, ..shown(example)? })))
}

/// The text of the first `max_tokens` tokens of an example, or of the chosen sequence of a pair, split
/// where the loss starts or stops to count. Without a tokenizer, the ids.
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

    /// A reader of tokens that cuts after 4.
    fn reader(long: Long, overlap: usize) -> Reader<'static> {
        let max_length = Some(4);
        Reader { tokenizer: None, template: None, eos: None, vocab_size: 9, max_length, long, overlap, pairs: false }
    }

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
        let parts = survey(&reader(Long::Cut, 1), dir.path(), None, 1, 2).unwrap();
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

    #[test]
    fn long_records_become_windows_or_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"input_ids": [1, 2, 3, 4, 5, 6, 7, 8], "labels": [1, 2, 3, 4, -100, -100, 7, 8]}"#,
            r#"{"input_ids": [1, 2, 3]}"#,
        ];
        std::fs::write(dir.path().join("train.jsonl"), lines.join("\n")).unwrap();
        let limit = reader(Long::Window, 2);
        // 1 to 4, then 3 to 6 without a label that is new, then 5 to 8.
        let train = &survey(&limit, dir.path(), None, 0, 0).unwrap()[0];
        assert_eq!((train.tokens.as_slice(), train.learnt.as_slice()), (&[4, 4, 3][..], &[3, 2, 2][..]));
        assert!(train.windowed.first[0].1.contains("8 tokens become 3 windows"), "{:?}", train.windowed);
        assert!(train.left_out.first[0].1.contains("1 of 3 windows"), "{:?}", train.left_out);
        let whole = Reader { long: Long::Whole, ..limit };
        let train = &survey(&whole, dir.path(), None, 0, 0).unwrap()[0];
        assert!(train.refused.first[0].0.ends_with("line 1") && train.refused.first[0].1.contains("`long` whole"));
        assert_eq!(train.tokens, [3]);
    }

    #[test]
    fn a_survey_counts_the_documents_of_packed_records() {
        let dir = tempfile::tempdir().unwrap();
        let line = r#"{"input_ids": [1, 2, 3, 4, 5, 6, 7, 8], "seq_lengths": [5, 2, 1]}"#;
        std::fs::write(dir.path().join("train.jsonl"), line).unwrap();
        let cut = &survey(&reader(Long::Cut, 0), dir.path(), None, 1, 9).unwrap()[0];
        assert_eq!((cut.tokens.as_slice(), cut.forms[&Form::Tokens]), (&[4, 2][..], 1));
        assert_eq!(cut.cut.first[0].1, "3 documents of up to 5 tokens are cut to 4");
        assert_eq!(cut.left_out.first[0].1, "no token to learn in 1 of 3 examples");
        assert_eq!(cut.shown[0].ids, [1, 2, 3, 4]);
        let windowed = &survey(&reader(Long::Window, 2), dir.path(), None, 0, 0).unwrap()[0];
        assert_eq!(windowed.tokens, [4, 3, 2]);
        assert_eq!(windowed.windowed.first[0].1, "3 documents of up to 5 tokens become 4 examples");
    }

    #[test]
    fn a_survey_holds_out_what_a_run_does() {
        let dir = tempfile::tempdir().unwrap();
        let line = |i: usize| format!("{{\"input_ids\": {:?}}}\n", vec![i; if i == 4 { 1 } else { i + 2 }]);
        std::fs::write(dir.path().join("train.jsonl"), (0..9).map(line).collect::<String>()).unwrap();
        let reader = reader(Long::Window, 1);
        let hold_out = HoldOut { fraction: 0.3, seed: 5 };
        let parts = survey(&reader, dir.path(), Some(hold_out), 0, 0).unwrap();
        let mut train = reader.read(dir.path()).unwrap().train;
        let valid = hold_out.take_from(&mut train).unwrap();
        let lengths = |split: &super::super::dataset::Split| -> Vec<usize> {
            split.examples.iter().map(|e| e.ids.len()).collect()
        };
        assert_eq!((parts[0].tokens.clone(), parts[1].tokens.clone()), (lengths(&train), lengths(&valid)));
        assert!(parts[1].is_held_out && !parts[0].is_held_out && parts[1].forms[&Form::Tokens] == 2);
        std::fs::write(dir.path().join("valid.jsonl"), line(1)).unwrap();
        let e = survey(&reader, dir.path(), Some(hold_out), 0, 0).unwrap_err().to_string();
        assert!(e.contains("`valid_fraction`") && e.contains("valid.jsonl"), "{e}");
    }
}
