//! Reads a file as a document.

use std::path::Path;

use super::document::Document;
use crate::error::{Context, Error, Result};

/// Largest document in bytes.
const MAX_DOCUMENT: u64 = 16 << 20;

/// Reads a document of UTF-8 text.
pub fn read_document(path: &Path) -> Result<Document> {
    let show = || format!("opening {}", path.display());
    let size = std::fs::metadata(path).with_context(show)?.len();
    if size > MAX_DOCUMENT {
        return Err(Error::usage(format!(
            "{} has {} MiB, more than the {} MiB that a document may have: split it into smaller files",
            path.display(),
            size >> 20,
            MAX_DOCUMENT >> 20
        )));
    }
    let bytes = std::fs::read(path).with_context(show)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::usage(format!("{} is not UTF-8 text: save it as plain text first", path.display())))?;
    let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
    Ok(Document::new(name, text))
}
