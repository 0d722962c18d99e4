//! Reading whole files that are small by nature: configurations, templates, indexes. A JSON tree takes up to a hundred times
//! the memory of its text, so a file that is far too large for what it should be is refused unread.
//!
//! Weights are mapped instead (`tensor::mapped_file`), and training data is read line by line (`data::dataset`).

use crate::error::{Context, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most bytes of a configuration or a template; the largest known have one million.
pub const CONFIG_BYTES: u64 = 4 << 20;

/// The bytes of a file that has at most `most_bytes`. Errors do not name the path: the caller does.
pub fn read_bytes(path: &Path, most_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most_bytes + 1).read_to_end(&mut bytes)?;
    crate::ensure!(bytes.len() as u64 <= most_bytes, "more than {most_bytes} bytes, which no such file has");
    Ok(bytes)
}

/// The text of a configuration or a template.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path, CONFIG_BYTES)?).map_err(|e| e.utf8_error()).context("not a text")
}

#[cfg(test)]
mod tests {
    use super::*;

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
