//! Reads a file of training data by its ending: the table of formats.

use super::record::Each;
use super::{bundled_text, csv_file, json_file, parquet_file, text_file};
use crate::error::{Context, Result};
use crate::small_file;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// A format of files: the endings of their names, and the reader of their records. Its errors do
/// not name the file.
struct Format {
    endings: &'static [&'static str],
    read: fn(BufReader<File>, Each<'_>) -> Result<()>,
}

const FORMATS: [Format; 5] = [
    Format { endings: &["jsonl", "json", "ndjson"], read: json_file::read },
    Format { endings: &["csv"], read: csv_file::read },
    Format { endings: &["tsv"], read: csv_file::read_tabs },
    Format { endings: &["parquet"], read: parquet_file::read },
    Format { endings: &["txt", "md"], read: text_file::read },
];

/// The endings of the formats that hold many records, in the order in which they are looked for.
pub fn endings() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().flat_map(|format| format.endings.iter().copied())
}

/// Whether the name of a file is that of a document.
pub fn is_document(path: &Path) -> bool {
    FORMATS[4].endings.contains(&ending_of(path).as_str())
}

/// Whether the name of a file is that of a table or of JSON lines. A `.json` file may be anything.
pub fn is_table(path: &Path) -> bool {
    let ending = ending_of(path);
    ending != "json" && !is_document(path) && endings().any(|known| known == ending)
}

/// The ending of a file's name in lower case.
pub fn ending_of(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// Reads the records of a file. A file with an unknown ending has JSON lines. Errors name the file
/// and, for a record, its place.
pub fn read(path: &Path, each: Each<'_>) -> Result<()> {
    if bundled_text::is_part(path) {
        return bundled_text::read(path, each);
    }
    let name = path.display();
    let file = File::open(path).with_context(|| format!("opening the training data {name}"))?;
    let mut file = BufReader::new(file);
    let head = file.fill_buf().with_context(|| format!("reading {name}"))?;
    small_file::refuse_foreign(head).with_context(|| format!("reading {name}"))?;
    let ending = ending_of(path);
    let format = FORMATS.iter().find(|format| format.endings.contains(&ending.as_str())).unwrap_or(&FORMATS[0]);
    let mut is_told = false; // whether the error already names the file
    let read = (format.read)(file, &mut |place, content| {
        let done = each(place, content);
        is_told |= done.is_err();
        done.with_context(|| format!("{name}{place}"))
    });
    if is_told { read } else { read.with_context(|| format!("reading {name}")) }
}
