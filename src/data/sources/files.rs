//! Finds the files of a data folder: those of training, validation and test.

use super::bundled_text;
use super::read::{ending_of, endings, is_document, is_table};
use crate::data::line::SHAPES;
use crate::error::{Context, Error, Result};
use std::path::{Path, PathBuf};

/// The files of each part of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub train: Vec<PathBuf>,
    pub valid: Vec<PathBuf>,
    pub test: Vec<PathBuf>,
}

/// Names of the validation file, without the ending.
const VALID: [&str; 4] = ["valid", "validation", "val", "dev"];
/// Levels of folders in which documents are looked for.
const MAX_DEPTH: usize = 8;
/// Most documents of a folder.
const MAX_DOCUMENTS: usize = 1_000_000;

impl Files {
    /// Fails if there is no training data of this name.
    pub fn check_named(path: &Path) -> Result<()> {
        if path.exists() || bundled_text::is_named(path) {
            return Ok(());
        }
        Err(Error::usage(format!(
            "`data` {} does not exist; the bundled example data is called {}",
            path.display(),
            bundled_text::NAME
        )))
    }

    /// The files of a path: a file of training data, or a folder with `train` and perhaps `valid`
    /// and `test` in one of the formats, or a folder of documents. The bundled data has no files, but parts that
    /// [`read`](super::read::read) knows.
    pub fn find(path: &Path) -> Result<Self> {
        if bundled_text::is_named(path) {
            let [train, valid] = bundled_text::parts();
            return Ok(Self { train: vec![train], valid: vec![valid], ..Self::default() });
        }
        if !path.is_dir() {
            return Ok(Self { train: vec![path.to_path_buf()], ..Self::default() });
        }
        // Data sets of the hub have their files in a folder `data`.
        for folder in [path.to_path_buf(), path.join("data")] {
            let train = named(&folder, &["train"])?;
            if !train.is_empty() {
                return Ok(Self { train, valid: named(&folder, &VALID)?, test: named(&folder, &["test"])? });
            }
        }
        let mut train = Vec::new();
        documents(path, path, 0, &mut train)?;
        if train.is_empty() {
            return Err(Error::usage(format!(
                "{} has neither a train.jsonl (or .json, .csv, .tsv, .parquet, .txt) nor documents (.txt, .md); \
                 train.jsonl is a file with one JSON object per line: {SHAPES}",
                path.display()
            )));
        }
        Ok(Self { train, ..Self::default() })
    }

    /// Fails if there is validation data: none is held out of the training data then.
    pub fn check_no_valid(&self) -> Result<()> {
        match self.valid.first() {
            None => Ok(()),
            Some(file) => Err(Error::usage(format!(
                "`valid_fraction` holds out training data, but there is validation data already, {}: leave \
                 `valid_fraction` out, or give the training file itself as `data`",
                file.display()
            ))),
        }
    }
}

/// The entries of a folder in the order of their names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read =
        || -> std::io::Result<Vec<PathBuf>> { std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    let mut paths = read().with_context(|| format!("reading {}", folder.display()))?;
    paths.sort();
    Ok(paths)
}

/// The number of a file and the number of all files in a name such as `train-00000-of-00002`. Old
/// data sets of the hub have a hash after them.
fn part_of(stem: &str) -> Option<(&str, u32, u32)> {
    let (name, part) = stem.split_once('-')?;
    let (number, rest) = part.split_once("-of-")?;
    let total = rest.split('-').next()?;
    Some((name, number.parse().ok()?, total.parse().ok()?))
}

/// The files with one of the names and the ending of a format, or the numbered parts of one.
fn named(folder: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found: Vec<(String, u32, PathBuf)> = Vec::new();
    let mut n_parts = None;
    for path in entries(folder)?.into_iter().filter(|path| path.is_file()) {
        let ending = ending_of(&path);
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let part = part_of(&stem);
        let name = part.map_or(stem.as_str(), |(name, ..)| name);
        if names.contains(&name) && endings().any(|known| known == ending) {
            let (set, number) = match part {
                Some((name, number, total)) => (format!("{name}-*-of-{total:05}.{ending}"), number),
                None => (format!("{stem}.{ending}"), 0),
            };
            n_parts = part.map(|(.., total)| total);
            found.push((set, number, path));
        }
    }
    if let Some((other, ..)) = found.iter().find(|(set, ..)| *set != found[0].0) {
        return Err(Error::usage(format!(
            "{} has both {} and {other}: leave one of them, or give the file itself",
            folder.display(),
            found[0].0
        )));
    }
    if let Some(total) = n_parts {
        found.sort_by_key(|(_, number, _)| *number);
        // Most writers count from 0, some from 1.
        let first = u32::from(found.last().is_some_and(|(_, number, _)| *number == total));
        let last = first.saturating_add(total);
        let mut numbers = found.iter().map(|(_, number, _)| *number);
        if let Some(missing) = (first..last).find(|&number| numbers.next() != Some(number)) {
            let name = found[0].0.replace('*', &format!("{missing:05}"));
            return Err(Error::usage(format!("{} has no {name}: one of {total} parts is missing", folder.display())));
        }
        if let Some(number) = numbers.next() {
            let name = found[0].0.replace('*', &format!("{number:05}"));
            return Err(Error::usage(format!("{} has {name} besides {total} other parts", folder.display())));
        }
    }
    Ok(found.into_iter().map(|(.., path)| path).collect())
}

/// Adds the documents of a folder and of the folders in it. Skips hidden files and links to
/// folders. Refuses a table, beside which the documents only describe it.
fn documents(root: &Path, folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if is_hidden {
            continue;
        }
        if path.is_dir() && !path.is_symlink() && depth < MAX_DEPTH {
            documents(root, &path, depth + 1, found)?;
        } else if path.is_file() && is_table(&path) {
            return Err(Error::usage(format!(
                "{} has {} but no train.*: rename it, or give the file itself",
                root.display(),
                path.strip_prefix(root).unwrap_or(&path).display()
            )));
        } else if path.is_file() && is_document(&path) {
            crate::ensure!(found.len() < MAX_DOCUMENTS, "{} has more than {MAX_DOCUMENTS} documents", folder.display());
            found.push(path);
        }
    }
    Ok(())
}
