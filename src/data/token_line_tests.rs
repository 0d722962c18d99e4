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
    let tokens: [(&[u32], &[i32]); 7] = [
        (&[5, 6, 7], &[-100, 6, 7]),
        (&[5, 6, 7], &[-100, 6, 7]),
        (&[1, 2, 3], &[1, 2, 3]),
        (&[4, 5], &[4, 5]),
        (&[1, 2, 3], &[-100, -100, 3]),
        (&[4, 5], &[-100, 5]),
        (&[1, 2, 3], &[1, -100, 3]),
    ];
    assert_eq!(expected, tokens.map(|(ids, labels)| (ids.to_vec(), labels.to_vec())));
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
        (r#""attention_mask": [1, 2]"#, "as \"seq_lengths\""),
        (r#""seq_lengths": [1]"#, "\"seq_lengths\" add up to 1, and \"input_ids\" has 2 entries"),
        (r#""seq_lengths": [1, 2]"#, "\"seq_lengths\" add up to 3, and \"input_ids\" has 2 entries"),
        (r#""seq_lengths": [18446744073709551615, 3]"#, "add up to more than any line has"),
        (r#""seq_lengths": [-1, 3]"#, "\"seq_lengths\" contains a value that is no number of tokens"),
        (r#""seq_lengths": 2"#, "\"seq_lengths\" is the number 2; expected a list of integers"),
        (r#""position_ids": [0]"#, "\"input_ids\" has 2 entries and \"position_ids\" 1"),
        (r#""position_ids": [0, 2]"#, "\"position_ids\" goes from 0 to 2 at token 1"),
        (r#""position_ids": [1, 1]"#, "\"position_ids\" goes from 1 to 1 at token 1"),
        (r#""position_ids": [0.5, 1]"#, "\"position_ids\" contains a value that is no position"),
        (r#""completion_mask": "ab""#, "\"completion_mask\" is the string \"ab\"; expected a list of integers"),
    ] {
        let line = format!("{{\"input_ids\": [1, 2]}}\n{{\"input_ids\": [1, 2], {fields}}}");
        let e = lines(&reader(), &line).unwrap_err().to_string();
        assert!(e.contains("line 2") && e.contains(words), "{e}");
    }
}

#[test]
fn documents_of_a_packed_line_are_examples_of_their_own() {
    for (fields, documents) in [
        (r#""seq_lengths": [3, 2]"#, &[&[1, 2, 3][..], &[4, 5]][..]),
        (r#""seq_lengths": [0, 2, 0, 3, 0]"#, &[&[1, 2], &[3, 4, 5]]),
        (r#""seq_lengths": [5]"#, &[&[1, 2, 3, 4, 5]]),
        (r#""seq_lengths": [3, 2], "attention_mask": [1, 1, 1, 0, 0]"#, &[&[1, 2, 3]]),
        (r#""seq_lengths": [2, 3], "position_ids": [0, 1, 2, 3, 4]"#, &[&[1, 2], &[3, 4, 5]]),
        (r#""position_ids": [0, 1, 2, 3, 4]"#, &[&[1, 2, 3, 4, 5]]),
        (r#""position_ids": [7, 8, 9, 10, 11]"#, &[&[1, 2, 3, 4, 5]]),
        (r#""position_ids": [0, 1, 0, 1, 2]"#, &[&[1, 2], &[3, 4, 5]]),
        // The end of a document that was cut, and the beginning of the next one.
        (r#""position_ids": [6, 7, 8, 0, 1]"#, &[&[1, 2, 3], &[4, 5]]),
        // Programs give padding positions of several kinds.
        (r#""position_ids": [1, 1, 0, 1, 2], "attention_mask": [0, 0, 1, 1, 1]"#, &[&[3, 4, 5]]),
        (r#""position_ids": [-1, -1, 0, 1, 2], "attention_mask": [0, 0, 1, 1, 1]"#, &[&[3, 4, 5]]),
        (r#""position_ids": [0, 1, 2, 0, 0], "attention_mask": [1, 1, 1, 0, 0]"#, &[&[1, 2, 3]]),
        (r#""position_ids": [0, 1, 0, 1, 2], "attention_mask": [1, 1, 0, 1, 1]"#, &[&[1, 2], &[4, 5]]),
    ] {
        let split = lines(&reader(), &format!("{{\"input_ids\": [1, 2, 3, 4, 5], {fields}}}")).unwrap();
        assert_eq!((split.n_records, split.n_packed), (1, usize::from(documents.len() > 1)), "{fields}");
        assert_eq!(split.records, vec![0; documents.len()]);
        let expected: Vec<Tokens> =
            documents.iter().map(|ids| (ids.to_vec(), ids.iter().map(|&id| id as i32).collect())).collect();
        assert_eq!(tokens(split), expected, "{fields}");
    }
    let labelled =
        r#"{"input_ids": [1, 2, 3, 4, 5, 6], "labels": [-100, 2, 3, -100, 5, 6], "position_ids": [0, 1, 0, 1, 2, 0]}"#;
    let split = lines(&reader(), labelled).unwrap();
    assert_eq!((split.n_parts_dropped, split.n_dropped), (1, 0), "nothing comes before a document's first token");
    assert_eq!(tokens(split), [(vec![1, 2], vec![-100, 2]), (vec![3, 4, 5], vec![3, -100, 5])]);
    let unknown = r#"{"input_ids": [1, 2, 3, 100], "seq_lengths": [2, 2]}"#;
    assert!(lines(&reader(), unknown).unwrap_err().to_string().contains("only 100 ids"));
}

#[test]
fn each_document_of_a_packed_line_has_the_maximum_length() {
    let packed = r#"{"input_ids": [1, 2, 3, 4, 5, 6], "seq_lengths": [2, 4]}"#;
    let limited = |long| Reader { max_length: Some(3), long, overlap: 1, ..reader() };
    let cut = lines(&limited(Long::Cut), packed).unwrap();
    assert_eq!((cut.n_truncated, cut.n_packed), (1, 1));
    assert_eq!(cut.longest.as_ref().map(|longest| longest.n_tokens), Some(4));
    assert_eq!(tokens(cut), [(vec![1, 2], vec![1, 2]), (vec![3, 4, 5], vec![3, 4, 5])]);
    let windowed = lines(&limited(Long::Window), packed).unwrap();
    assert_eq!((windowed.n_windowed, windowed.records.as_slice()), (1, &[0, 0, 0][..]));
    let last = (vec![5, 6], vec![-100, 6]);
    assert_eq!(tokens(windowed), [(vec![1, 2], vec![1, 2]), (vec![3, 4, 5], vec![3, 4, 5]), last]);
    let e = lines(&limited(Long::Whole), packed).unwrap_err().to_string();
    assert!(e.contains("line 1, has 4 tokens, more than `max_length` 3"), "{e}");
}
