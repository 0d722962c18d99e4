//! Text files: each is one document.

use super::record::{Content, Each, Place};
use crate::data::tokens::MAX_TEXT_BYTES;
use crate::error::Result;
use crate::small_file::text_of;
use std::fs::File;
use std::io::{BufReader, Read};

/// Reads a text file. A byte order mark is not part of the text.
pub fn read(file: BufReader<File>, each: Each<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    crate::ensure!(
        bytes.len() <= MAX_TEXT_BYTES,
        "the document has more than {MAX_TEXT_BYTES} bytes: split it into several files"
    );
    each(Place::Whole, Content::Document(text_of(bytes)?))
}
