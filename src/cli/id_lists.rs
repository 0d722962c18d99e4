//! Token ids and labels from JSON files: lists of lists of integers, one inner list per sequence.
//!
//! Errors name the row and element, counted from 0 as in JSON. [`super::args`] checks lengths
//! against the model's positions.

use std::path::Path;

use serde_json::Value;

use super::output::{in_file, read_text_file};
use crate::data::dataset::IGNORED;
use crate::error::Result;

/// Reads token ids: at least one row, each with at least one id below `vocab`.
pub fn read_ids(path: &Path, vocab: usize) -> Result<Vec<Vec<u32>>> {
    let read = |value: i64| u32::try_from(value).ok().filter(|&id| (id as usize) < vocab);
    let rows = read_rows(path, &format!("a token id from 0 to {}", vocab - 1), read)?;
    if rows.is_empty() {
        return Err(in_file(path, "there are no rows; expected [[id, …], …]"));
    }
    if let Some(row) = rows.iter().position(Vec::is_empty) {
        return Err(in_file(path, format!("row {row} is empty; a sequence needs at least one token")));
    }
    Ok(rows)
}

/// Reads labels for `ids`: the same rows and lengths; each label is a token id or -100 (ignored).
pub fn read_labels(path: &Path, ids: &[Vec<u32>], vocab: usize) -> Result<Vec<Vec<i32>>> {
    let read = |value: i64| {
        i32::try_from(value).ok().filter(|&l| l == IGNORED || usize::try_from(l).is_ok_and(|id| id < vocab))
    };
    let expected = format!("{IGNORED} (ignored) or a token id from 0 to {}", vocab - 1);
    let rows = read_rows(path, &expected, read)?;
    if rows.len() != ids.len() {
        return Err(in_file(path, format!("{} rows of labels for {} rows of ids", rows.len(), ids.len())));
    }
    for (i, (labels, ids)) in rows.iter().zip(ids).enumerate() {
        if labels.len() != ids.len() {
            return Err(in_file(path, format!("row {i} has {} labels for {} ids", labels.len(), ids.len())));
        }
    }
    if rows.iter().all(|row| row[1..].iter().all(|&l| l == IGNORED)) {
        let why = "every label that counts is ignored: there is no loss to compute (labels are shifted, so that the first of \
                   a row never counts)";
        return Err(in_file(path, why));
    }
    Ok(rows)
}

fn read_rows<T>(path: &Path, expected: &str, element: impl Fn(i64) -> Option<T>) -> Result<Vec<Vec<T>>> {
    let text = read_text_file(path)?;
    let json: Value = serde_json::from_str(&text)
        .map_err(|e| in_file(path, format!("not valid JSON: {e}; expected a list of lists such as [[1, 2, 3]]")))?;
    let Value::Array(rows) = &json else {
        return Err(in_file(path, format!("expected a list of lists such as [[1, 2, 3]], found {}", kind(&json))));
    };
    let mut read = Vec::with_capacity(rows.len());
    for (i, row) in rows.iter().enumerate() {
        let Value::Array(values) = row else {
            return Err(in_file(path, format!("row {i}: expected a list of numbers, found {}", kind(row))));
        };
        let one = |(j, value): (usize, &Value)| {
            let number = value.as_i64().and_then(&element);
            number.ok_or_else(|| {
                in_file(path, format!("row {i}, element {j}: expected {expected}, found {}", kind(value)))
            })
        };
        read.push(values.iter().enumerate().map(one).collect::<Result<Vec<T>>>()?);
    }
    Ok(read)
}

/// A JSON value as errors show it: numbers and short strings verbatim.
fn kind(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(s) if s.chars().count() > 40 => "a long text".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn good_lists_are_read() {
        let ids = read_ids(file("[[1, 2, 3], [0]]").path(), 4).unwrap();
        assert_eq!(ids, [vec![1, 2, 3], vec![0]]);
        let labels = read_labels(file("[[-100, 2, -100], [0]]").path(), &ids, 4).unwrap();
        assert_eq!(labels, [vec![-100, 2, -100], vec![0]]);
    }

    #[test]
    fn wrong_ids_are_named_by_row_and_element() {
        for (text, said) in [
            ("[[1, 2], [3, 4]]", "row 1, element 1: expected a token id from 0 to 3, found 4"),
            ("[[-1]]", "row 0, element 0"),
            ("[[1.0]]", "found 1.0"),
            ("[[\"a\"]]", "found \"a\""),
            ("[[99999999999999999999]]", "row 0, element 0"),
            ("[[1], 2]", "row 1: expected a list"),
            ("[]", "no row"),
            ("[[1], []]", "row 1 is empty"),
            ("{\"ids\": []}", "found an object"),
            ("[[1, 2]", "not valid JSON"),
            ("", "not valid JSON"),
        ] {
            let file = file(text);
            let e = read_ids(file.path(), 4).unwrap_err();
            assert!(e.to_string().contains(said) && e.kind() == crate::ErrorKind::Usage, "{text}: {e}");
        }
    }

    #[test]
    fn labels_must_fit_the_ids() {
        let ids = [vec![1, 2, 3], vec![0]];
        for (text, said) in [
            ("[[1, 2, 3]]", "1 rows of labels for 2"),
            ("[[1, 2, 3], [0, 1]]", "row 1 has 2 labels for 1"),
            ("[[1, -1, 3], [0]]", "row 0, element 1: expected -100"),
            ("[[1, 4, 3], [0]]", "row 0, element 1"),
            ("[[1, -100, -100], [0]]", "no loss"),
        ] {
            let e = read_labels(file(text).path(), &ids, 4).unwrap_err().to_string();
            assert!(e.contains(said), "{text}: {e}");
        }
    }
}
