//! Reads small files whole, with a size limit: configurations, templates, indexes.
//!
//! A JSON tree takes up to a hundred times the memory of its text, so a file far above the expected
//! size is an error. Weights are memory-mapped instead (`formats::mapped_file`), and training data
//! is read line by line (`data::dataset`).

use crate::error::{Context, Result};
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
