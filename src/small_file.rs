//! Reads small files whole, with a size limit, and recognises files that are not what they should be.
//!
//! A JSON tree takes up to a hundred times the memory of its text, so a file far above the expected
//! size is an error. Weights are memory-mapped instead (`formats::mapped_file`), and training data
//! is read line by line (`data::dataset`).

use crate::error::{Context, Result};
use crate::plain_json::Plain;
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
    text_of(read_bytes(path, CONFIG_BYTES)?)
}

/// The text of a file's bytes in UTF-8, without a byte order mark. The error for other bytes says
/// what they are, if that can be told.
pub fn text_of(mut bytes: Vec<u8>) -> Result<String> {
    refuse_foreign(&bytes)?;
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|e| e.utf8_error()).context("not a text in UTF-8")
}

/// Fails if a file that should be a text or data begins like something else that people have under
/// the same name: a Git LFS pointer, UTF-16, or an archive.
pub fn refuse_foreign(head: &[u8]) -> Result<()> {
    refuse_pointer(head)?;
    let is_utf16 = head.starts_with(b"\xFF\xFE")
        || head.starts_with(b"\xFE\xFF")
        || matches!(head, [a, 0, b, 0, ..] | [0, a, 0, b, ..] if *a != 0 && *b != 0);
    if is_utf16 {
        crate::bail!("the file is in UTF-16, as PowerShell's > writes it: save it in UTF-8");
    }
    if head.starts_with(b"\x1F\x8B") || head.starts_with(b"\x28\xB5\x2F\xFD") || head.starts_with(b"PK\x03\x04") {
        crate::bail!("the file is compressed: unpack it first");
    }
    Ok(())
}

/// Fails for a Git LFS pointer, which stands for a large file that was not downloaded.
pub fn refuse_pointer(head: &[u8]) -> Result<()> {
    if head.starts_with(b"version https://git-lfs") {
        crate::bail!("the file is a Git LFS pointer, not the data: run `git lfs pull` in its folder");
    }
    Ok(())
}

/// Parses JSON as Python's `json` module writes it: the numbers NaN, Infinity and -Infinity, which
/// JSON does not have, become null.
pub fn parse_json(text: &str) -> Result<Value> {
    let parsed = match serde_json::from_str(text) {
        Err(_) if text.contains("NaN") || text.contains("Infinity") => {
            serde_json::from_str(&without_special_numbers(text))
        }
        parsed => parsed,
    };
    parsed.map(|Plain(value)| value).context("invalid JSON")
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
        assert_eq!(parse_json("[1000000000000000019884624838656]").unwrap(), json!([1e30]));
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
        std::fs::write(&path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("`git lfs pull`"));
        assert!(read_text(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn files_of_another_kind_are_named() {
        for (head, word) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid"[..], "git lfs pull"),
            (b"\xFF\xFE{\0", "UTF-16"),
            (b"\xFF\xFE", "UTF-16"),
            (b"\xFE\xFF\0{", "UTF-16"),
            (b"{\0\"\0", "UTF-16"),
            (b"\0a\0b", "UTF-16"),
            (b"\x1F\x8B\x08", "compressed"),
        ] {
            assert!(refuse_foreign(head).unwrap_err().to_string().contains(word), "{word}");
            assert!(text_of(head.to_vec()).is_err());
        }
        for head in [&b""[..], b"{}", b"\xEF\xBB\xBF{}", b"[", b"PAR1"] {
            refuse_foreign(head).unwrap();
        }
        assert_eq!(text_of(b"\xEF\xBB\xBF{}".to_vec()).unwrap(), "{}", "without the byte order mark");
        assert_eq!(text_of(b"a\xEF\xBB\xBF".to_vec()).unwrap(), "a\u{FEFF}", "only at the start");
    }
}
