//! Reads a file as a document: text, Markdown, PDF or DOCX.
//!
//! The content of a file decides what it is, not its name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::document::Document;
use super::found::{Found, MAX_TEXT, Text, too_long};
use super::{docx, pdf};
use crate::app::labels::name_of;
use crate::error::{Context, Error, Result};

/// Largest PDF or DOCX file in bytes. Most of a large one is pictures.
const MAX_PACKED: usize = 128 << 20;

/// Reads a document. It takes seconds for a large one.
pub fn read_document(path: &Path) -> Result<Document> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let read = file.take(MAX_PACKED as u64 + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("reading {}", path.display()))?;
    let found = text_of(bytes).map_err(|why| Error::usage(format!("{} {why}", path.display())))?;
    Ok(Document { note: found.note, ..Document::new(name_of(path), found.text) })
}

fn text_of(bytes: Vec<u8>) -> Found {
    let is_pdf = pdf::is_pdf(&bytes);
    let is_packed = is_pdf || bytes.starts_with(b"PK\x03\x04");
    let most = if is_packed { MAX_PACKED } else { MAX_TEXT };
    if bytes.len() > most {
        return Err(format!("has more than the {} MiB that such a document may have: split it", most >> 20));
    }
    let found = match is_packed {
        true if is_pdf => pdf::text(&bytes)?,
        true => docx::text(&bytes)?,
        false => Text { text: decoded(bytes)?, note: String::new() },
    };
    if found.text.trim().is_empty() {
        return Err("has no text".into());
    }
    if found.text.len() > MAX_TEXT {
        return Err(too_long());
    }
    Ok(found)
}

/// The text of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one.
fn decoded(mut bytes: Vec<u8>) -> std::result::Result<String, String> {
    if bytes.starts_with(b"\xD0\xCF\x11\xE0") {
        return Err("is an old or protected Office file: save it as .docx without a password".into());
    }
    if bytes.starts_with(b"{\\rtf") {
        return Err("is a rich text file (RTF): save it as .docx or as plain text".into());
    }
    let of_pair: Option<fn([u8; 2]) -> u16> = match bytes[..] {
        [0xFF, 0xFE, ..] => Some(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => Some(u16::from_be_bytes),
        _ => None,
    };
    if let Some(of_pair) = of_pair {
        let (pairs, rest) = bytes[2..].as_chunks::<2>();
        let text = char::decode_utf16(pairs.iter().map(|&pair| of_pair(pair))).collect::<std::result::Result<_, _>>();
        return match text {
            Ok(text) if rest.is_empty() => Ok(text),
            _ => Err("is damaged: it begins like UTF-16, but is not. Save it as UTF-8 text".into()),
        };
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        bytes.drain(..3);
    }
    let not_text = "is neither text in UTF-8, PDF nor DOCX. If it is text in another encoding, such as Latin-1 \
        (Windows-1252) or UTF-16 without a byte order mark, open it in an editor and save it as UTF-8";
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(not_text.into()),
    }
}
