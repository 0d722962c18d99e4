//! Tests of lines of token ids, as JSON lines and in tables.

use crate::data::dataset::{Example, Reader, Split};
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

fn tokens(split: Split) -> Vec<Tokens> {
    let tokens = |example: Example| (example.ids, example.labels);
    split.examples.into_iter().map(tokens).collect()
}

fn read(path: &Path) -> Result<Vec<Tokens>> {
    Ok(tokens(reader().read_file(path)?))
}

fn lines(reader: &Reader, text: &str) -> Result<Split> {
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    reader.read_file(file.path())
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
    let expected = read(&put("rows.jsonl", ROWS)).unwrap();
    assert_eq!(expected[..2], [(vec![5, 6, 7], vec![-100, 6, 7]), (vec![5, 6, 7], vec![-100, 6, 7])]);
    assert_eq!(expected.last(), Some(&(vec![1, 2, 3], vec![1, -100, 3])));
    assert_eq!(read(&put("rows.csv", &table(ROWS))).unwrap(), expected);
    let parquet = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/tokens.parquet");
    assert_eq!(read(&parquet).unwrap(), expected);
}

#[test]
fn padding_is_left_out_and_masks_say_what_is_learnt() {
    for (line, ids, labels) in [
        (r#"{"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0]}"#, &[5, 6, 7][..], &[5, 6, 7][..]),
        (r#"{"input_ids": [0, 0, 5, 6], "attention_mask": [false, false, true, true]}"#, &[5, 6], &[5, 6]),
        (r#"{"input_ids": [1, 2, 3, 4], "attention_mask": [1, 0, 1, 1]}"#, &[1, 3, 4], &[1, 3, 4]),
        (r#"{"input_ids": [100, 5, 6], "labels": [100, 5, 6], "attention_mask": [0, 1, 1]}"#, &[5, 6], &[5, 6]),
        (
            r#"{"input_ids": [0, 5, 6, 7], "labels": [-100, -100, 6, 7], "attention_mask": [0, 1, 1, 1], "completion_mask": [1, 1, 0, 1]}"#,
            &[5, 6, 7],
            &[-100, -100, 7],
        ),
        (
            r#"{"input_ids": [1, 2, 3, 4], "labels": [1, 2, -100, 4], "completion_mask": [0, 1, 1, 1], "assistant_masks": [1, 1, 1, 1]}"#,
            &[1, 2, 3, 4],
            &[-100, 2, -100, 4],
        ),
        (
            r#"{"input_ids": [1, 2, 3], "completion_mask": [0, 1, 1], "assistant_masks": [0, 0, 1], "attention_mask": null}"#,
            &[1, 2, 3],
            &[-100, -100, 3],
        ),
    ] {
        assert_eq!(tokens(lines(&reader(), line).unwrap()), [(ids.to_vec(), labels.to_vec())], "{line}");
    }
    let padded = r#"{"input_ids": [0, 0, 5, 6, 7], "attention_mask": [0, 0, 1, 1, 1]}"#;
    let empty = r#"{"input_ids": [0, 0], "attention_mask": [0, 0]}"#;
    let cut = Reader { max_length: Some(2), ..reader() };
    let split = lines(&cut, &format!("{padded}\n{empty}\n{{\"input_ids\": []}}")).unwrap();
    assert_eq!((split.n_records, split.n_truncated, split.n_dropped), (3, 1, 2));
    assert_eq!(tokens(split), [(vec![5, 6], vec![5, 6])]);
    assert!(lines(&reader(), empty).unwrap_err().to_string().contains("none of the 1 examples"));
}

#[test]
fn lists_that_do_not_belong_together_are_refused() {
    for (fields, words) in [
        (r#""attention_mask": [1]"#, "\"input_ids\" has 2 entries and \"attention_mask\" 1"),
        (r#""labels": [1, 2], "completion_mask": [1, 1, 1]"#, "\"input_ids\" has 2 entries and \"completion_mask\" 3"),
        (r#""labels": [1, 2, 3], "attention_mask": [1, 1]"#, "\"input_ids\" has 2 entries and \"labels\" 3"),
        (r#""attention_mask": [1, 2]"#, "\"attention_mask\" contains a value other than 0 and 1"),
        (r#""assistant_masks": [0, 0.5]"#, "\"assistant_masks\" contains a value other than 0 and 1"),
        (r#""completion_mask": "ab""#, "\"completion_mask\" is the string \"ab\"; expected a list of integers"),
    ] {
        let line = format!("{{\"input_ids\": [1, 2]}}\n{{\"input_ids\": [1, 2], {fields}}}");
        let e = lines(&reader(), &line).unwrap_err().to_string();
        assert!(e.contains("line 2") && e.contains(words), "{e}");
    }
}
