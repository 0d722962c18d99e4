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
            let is_absent = match kind {
                Cell::Json => cell.trim().is_empty(),
                Cell::OptionalText => cell.is_empty(),
                Cell::Text | Cell::TextOrMessages => false,
            };
            if is_absent {
                continue;
            }
            if kind == Cell::Json || kind == Cell::TextOrMessages && holds_messages(cell) {
                let list: &RawValue = serde_json::from_str(cell).map_err(|e| not_json(line, name, &e))?;
                lists.push_str(&format!(", \"{name}\": {list}"));
            } else {
                object.insert(name.to_owned(), Json::String(cell.to_owned()));
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

/// Whether a cell is a list of messages, as JSON or as another program prints one. Lists of other
/// objects are texts: an answer may be one.
fn holds_messages(cell: &str) -> bool {
    let is_list_of_objects = cell.trim_start().strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with('{'));
    if !is_list_of_objects {
        return false;
    }
    let is_message = |has: &dyn Fn(&str) -> bool| {
        has("role") && (has("content") || has("tool_calls")) || has("from") && has("value")
    };
    match serde_json::from_str::<Vec<Map<String, Json>>>(cell) {
        Ok(list) => list.iter().any(|object| is_message(&|key| object.contains_key(key))),
        Err(_) => is_message(&|key| ['"', '\''].iter().any(|quote| cell.contains(&format!("{quote}{key}{quote}")))),
    }
}

fn not_json(line: u64, name: &str, e: &serde_json::Error) -> Error {
    Error::new(format!(
        "line {line}: the column {name:?} does not hold JSON ({e}); Python's printing of lists, with quotes like 'this', \
         is not JSON: write the column with json.dumps, or the table as JSON lines or Parquet"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    /// The objects of a table's rows.
    fn objects(table: &str) -> Result<Vec<Json>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(table.as_bytes()).unwrap();
        file.rewind().unwrap();
        let mut objects = Vec::new();
        read(BufReader::new(file), &mut |_, content| {
            let Content::Json(text) = content else { panic!("{content:?}") };
            objects.push(serde_json::from_slice(text).unwrap());
            Ok(())
        })?;
        Ok(objects)
    }

    /// A table of one row.
    fn table(cells: [(&str, &str); 2]) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        format!("{},{}\n{},{}\n", cells[0].0, cells[1].0, quoted(cells[0].1), quoted(cells[1].1))
    }

    #[test]
    fn lists_of_messages_are_lists_and_other_cells_are_texts() {
        let asked = r#"[ {"role": "user", "content": "a"}]"#;
        let said = r#"[{"role": "assistant", "content": "b [{x}]"}]"#;
        let called = r#"[{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]}]"#;
        for (first, second) in [("prompt", "completion"), ("chosen", "rejected")] {
            for (a, b) in [(asked, said), (said, called)] {
                let row = &objects(&table([(first, a), (second, b)])).unwrap()[0];
                let expected = [a, b].map(|list| serde_json::from_str::<Json>(list).unwrap());
                assert_eq!([&row[first], &row[second]], expected.each_ref());
            }
        }
        for text in [
            "[x] is the unknown",
            "[1, 2]",
            "[{x: 1}, {x: 2}]",
            "[{'x': 1}]",
            r#"[{"name": "f", "arguments": {"role": "admin", "content": "c"}}]"#,
            r#"[{"name": "Ann", "role": "cook"}]"#,
            r#"{"role": "user", "content": "a"}"#,
            r#"The answer: [{"role": "user", "content": "a"}]"#,
            "[",
            "",
        ] {
            let row = &objects(&table([("prompt", "q"), ("completion", text)])).unwrap()[0];
            assert_eq!((&row["prompt"], &row["completion"]), (&Json::from("q"), &Json::from(text)));
        }
        let row = &objects(&table([("instruction", said), ("output", said)])).unwrap()[0];
        assert_eq!(row["output"], Json::from(said), "a column of texts");
    }

    #[test]
    fn lists_of_messages_that_are_not_json_are_refused() {
        for cell in [
            "[{'role': 'user', 'content': 'a'}]",
            "[{'content': \"it's\", 'role': 'user'}\n {'content': 'b', 'role': 'assistant'}]",
            "[{'from': 'human', 'value': 'a'}]",
            r#"[{"role": "user", "content": "a"}"#,
            r#"[{"role": "user", "content": "a"}, None]"#,
        ] {
            for name in ["prompt", "completion", "chosen", "rejected"] {
                let e = objects(&table([(name, cell), ("id", "1")])).unwrap_err().to_string();
                assert!(e.contains("line 2") && e.contains(&format!("{name:?}")) && e.contains("json.dumps"), "{e}");
            }
        }
    }
}
