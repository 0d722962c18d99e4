//! Tests of lines of token ids, as JSON lines and in tables.

use crate::data::dataset::{Example, Reader};
use crate::data::fields;
use crate::data::long::Long;
use crate::error::Result;
use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};

/// Ids and labels of an example.
type Tokens = (Vec<u32>, Vec<i32>);

/// A reader without a tokenizer for a vocabulary of 100.
fn reader() -> Reader<'static> {
    let (max_length, long) = (None, Long::Cut);
    Reader { tokenizer: None, template: None, eos: None, vocab_size: 100, max_length, long, overlap: 0, pairs: false }
}

fn read(path: &Path) -> Result<Vec<Tokens>> {
    let tokens = |example: Example| (example.ids, example.labels);
    Ok(reader().read_file(path)?.examples.into_iter().map(tokens).collect())
}

/// The rows of `tests/tables/tokens.parquet`.
const ROWS: &str = r#"{"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0], "completion_mask": [0, 1, 1, 1]}
{"input_ids": [0, 0, 5, 6, 7], "labels": [-100, -100, 5, 6, 7], "attention_mask": [0, 0, 1, 1, 1], "assistant_masks": [false, false, false, true, true]}
{"input_ids": [1, 2, 3, 4, 5], "seq_lengths": [3, 2]}
{"input_ids": [1, 2, 3, 4, 5, 0, 0], "attention_mask": [1, 1, 1, 1, 1, 0, 0], "completion_mask": [0, 0, 1, 0, 1, 0, 0], "position_ids": [0, 1, 2, 0, 1, 0, 0]}
{"input_ids": [1, 2, 3], "assistant_masks": [true, false, true], "position_ids": [0, 1, 2]}"#;

/// The rows as a table of text that has every column.
fn table(rows: &str) -> String {
    let rows: Vec<Map<String, Json>> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let mut table = csv::Writer::from_writer(Vec::new());
    let names: Vec<&str> = fields::COLUMNS.iter().map(|column| column.name).filter(|name| *name != "ids").collect();
    table.write_record(&names).unwrap();
    for row in rows {
        table.write_record(names.iter().map(|name| row.get(*name).map_or(String::new(), Json::to_string))).unwrap();
    }
    String::from_utf8(table.into_inner().unwrap()).unwrap()
}

#[test]
fn tables_have_the_tokens_of_lines() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let lines = read(&put("rows.jsonl", ROWS)).unwrap();
    assert_eq!(lines[0], (vec![5, 6, 7, 0], vec![-100, 6, 7, -100]));
    assert_eq!(lines.last(), Some(&(vec![1, 2, 3], vec![1, -100, 3])));
    assert_eq!(read(&put("rows.csv", &table(ROWS))).unwrap(), lines);
    let parquet = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/tokens.parquet");
    assert_eq!(read(&parquet).unwrap(), lines);
}
