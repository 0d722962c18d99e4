//! Reads small files whole, with a size limit: configurations, templates, indexes.
//!
//! A JSON tree takes up to a hundred times the memory of its text, so a file far above the expected
//! size is an error. Weights are memory-mapped instead (`formats::mapped_file`), and training data
//! is read line by line (`data::dataset`).

use crate::error::{Context, Result};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most bytes of a configuration or template. The largest known have one million.
pub const CONFIG_BYTES: u64 = 4 << 20;

/// Reads a file of at most `most_bytes` bytes. Errors do not name the path; the caller adds it.
pub fn read_bytes(path: &Path, most_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most_bytes + 1).read_to_end(&mut bytes)?;
    crate::ensure!(
        bytes.len() as u64 <= most_bytes,
        "the file has more than {most_bytes} bytes, too many for this kind of file"
    );
    Ok(bytes)
}

/// Reads the text of a configuration or template.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path, CONFIG_BYTES)?).map_err(|e| e.utf8_error()).context("not a text in UTF-8")
}

/// Parses JSON as Python's `json` module writes it: the numbers NaN, Infinity and -Infinity, which
/// JSON does not have, become null.
pub fn parse_json(text: &str) -> Result<Value> {
    match serde_json::from_str(text) {
        Err(_) if text.contains("NaN") || text.contains("Infinity") => {
            serde_json::from_str(&without_special_numbers(text)).context("invalid JSON")
        }
        parsed => parsed.context("invalid JSON"),
    }
}

/// The text with null for NaN and infinite numbers outside of strings.
fn without_special_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let number = ["NaN", "-Infinity", "Infinity"].into_iter().find(|n| !in_string && rest.starts_with(n));
        let n = match (number, c) {
            (Some(number), _) => {
                out.push_str("null");
                rest = &rest[number.len()..];
                continue;
            }
            (None, '\\') if in_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => c.len_utf8(),
        };
        in_string ^= c == '"';
        out.push_str(&rest[..n]);
        rest = &rest[n..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_that_only_python_writes_are_null() {
        let text = r#"{"a": NaN, "b": [-Infinity, Infinity, -1], "NaN": "Infinity \" NaN", "é": 1}"#;
        let value = parse_json(text).unwrap();
        assert_eq!(value, json!({"a": null, "b": [null, null, -1], "NaN": "Infinity \" NaN", "é": 1}));
        assert_eq!(parse_json("[1000000000000000019884624838656]").unwrap(), json!([1.0000000000000000199e30]));
        for broken in ["{", "NaN Infinity", "NaNs", "\"NaN", "\"NaN\\"] {
            assert!(parse_json(broken).unwrap_err().to_string().contains("invalid JSON"), "{broken}");
        }
    }

    #[test]
    fn what_is_too_large_or_no_text_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_bytes(&path, 5).unwrap(), b"12345");
        assert!(read_bytes(&path, 4).unwrap_err().to_string().contains("more than 4 bytes"));
        assert_eq!(read_text(&path).unwrap(), "12345");
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("not a text"));
        assert!(read_text(&dir.path().join("absent")).is_err());
    }
}
