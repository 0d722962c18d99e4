//! Tables of text: each row is an object whose fields are named in the first line.
//!
//! A value is a string, or JSON in the columns of lists and objects. `fields.rs` says which, and what
//! an empty cell is.

use super::record::{Content, Each, Limited, Place};
use crate::data::fields::{self, Cell, Column};
use crate::error::{Context, Error, Result};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};
use std::fs::File;
use std::io::{BufRead, BufReader};

/// Reads a table whose cells are separated by commas, or by semicolons or tabs if the first line
/// has those and no comma.
pub fn read(mut file: BufReader<File>, each: Each<'_>) -> Result<()> {
    let head = file.fill_buf()?;
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let separator = [b',', b';', b'\t'].into_iter().find(|separator| first.contains(separator));
    rows(file, separator.unwrap_or(b','), each)
}

/// Reads a table whose cells are separated by tabs.
pub fn read_tabs(file: BufReader<File>, each: Each<'_>) -> Result<()> {
    rows(file, b'\t', each)
}

fn rows(file: BufReader<File>, separator: u8, each: Each<'_>) -> Result<()> {
    let (file, allowance) = Limited::new(file);
    let mut table = csv::ReaderBuilder::new().delimiter(separator).from_reader(file);
    let wrong = |e: csv::Error| Error::new(format!("not a table of text ({e})"));
    let names = table.headers().map_err(wrong)?.clone();
    let known = |(place, name): (usize, &str)| Some((place, fields::column(name.trim())?));
    let columns: Vec<(usize, &Column)> = names.iter().enumerate().filter_map(known).collect();
    for (i, (place, column)) in columns.iter().enumerate() {
        if let Some((first, _)) = columns[..i].iter().find(|(_, earlier)| earlier.name == column.name) {
            crate::bail!("the columns {} and {} both have the name {:?}", first + 1, place + 1, column.name);
        }
    }
    crate::ensure!(
        !columns.is_empty(),
        "the first line names none of the known columns ({}), only {:?}",
        fields::names(),
        names.iter().take(20).collect::<Vec<_>>().join(", ").chars().take(300).collect::<String>()
    );
    let mut row = csv::StringRecord::new();
    while table.read_record(&mut row).map_err(wrong)? {
        allowance.renew();
        let line = row.position().map_or(0, csv::Position::line);
        let mut object: Map<String, Json> = Map::new();
        let mut lists = String::new();
        for &(place, &Column { name, cell: kind }) in &columns {
            let cell = row.get(place).unwrap_or_default();
            match kind {
                Cell::Json if cell.trim().is_empty() => {}
                Cell::OptionalText if cell.is_empty() => {}
                Cell::Json => {
                    let list: &RawValue = serde_json::from_str(cell).map_err(|e| not_json(line, name, &e))?;
                    lists.push_str(&format!(", \"{name}\": {list}"));
                }
                Cell::Text | Cell::OptionalText => {
                    object.insert(name.to_owned(), Json::String(cell.to_owned()));
                }
            }
        }
        let mut text = serde_json::to_string(&object).context("writing a row as JSON")?;
        if !lists.is_empty() {
            text.pop();
            text.push_str(if object.is_empty() { &lists[2..] } else { &lists });
            text.push('}');
        }
        each(Place::Line(line), Content::Json(text.as_bytes()))?;
    }
    Ok(())
}

fn not_json(line: u64, name: &str, e: &serde_json::Error) -> Error {
    Error::new(format!(
        "line {line}: the column {name:?} does not hold JSON ({e}); Python's printing of lists, with quotes like 'this', \
         is not JSON: write the column with json.dumps, or the table as JSON lines or Parquet"
    ))
}
