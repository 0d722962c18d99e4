//! The text layer of a PDF, page by page.
//!
//! Pictures of text are not read. The library that reads the pages panics on some damaged files, so
//! every call is guarded. `pdf_streams.rs` empties streams that it would read without end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pdf_extract::{LoadOptions, MediaBox, Object, ObjectId, OutputDev, OutputError, PlainTextOutput, Transform};

use super::found::{Found, MAX_TEXT, Text, too_long};
use super::pdf_streams::{cut_endless_forms, tame};

/// Pages may be this deep in the tree of pages.
const MAX_ANCESTORS: usize = 64;

/// Whether a file begins like a PDF. Some have other bytes in front.
pub fn is_pdf(bytes: &[u8]) -> bool {
    bytes[..bytes.len().min(1024)].windows(5).any(|w| w == b"%PDF-")
}

/// Reads the text of all pages. Blank lines separate them.
pub fn text(bytes: &[u8]) -> Found {
    let damaged = || "is damaged: open it in a PDF viewer and save or print it to a new PDF".to_string();
    let options = LoadOptions { filter: Some(tame), ..LoadOptions::default() };
    let loaded = catch_unwind(AssertUnwindSafe(|| pdf_extract::Document::load_mem_with_options(bytes, options)));
    let mut document = loaded.ok().and_then(Result::ok).ok_or_else(damaged)?;
    if document.trailer.get(b"Encrypt").is_ok() && !document.was_encrypted() {
        return Err("is protected by a password: save a copy without one first".into());
    }
    catch_unwind(AssertUnwindSafe(|| cut_endless_forms(&mut document))).map_err(|_| damaged())?;
    let pages = catch_unwind(AssertUnwindSafe(|| document.get_pages())).map_err(|_| damaged())?;
    let (mut texts, mut n_failed, mut n_bytes) = (Vec::new(), 0, 0);
    for (&page, &id) in &pages {
        let read = match has_root(&document, id) {
            true => page_text(&document, page, MAX_TEXT - n_bytes),
            false => Err(PageError::Unreadable),
        };
        match read {
            Ok(text) => {
                n_bytes += text.len();
                texts.extend(Some(text).filter(|text| !text.is_empty()));
            }
            Err(PageError::TooLong) => return Err(too_long()),
            Err(PageError::Unreadable) => n_failed += 1,
        }
    }
    match (pages.len(), texts.is_empty()) {
        (0, _) => Err(damaged()),
        (n, true) if n_failed == n => Err(damaged()),
        (_, true) => {
            Err("has no text layer; it may be a scan: make its text searchable with an OCR program first".into())
        }
        (n, false) => Ok(Text { note: note(n, n - n_failed - texts.len(), n_failed), text: texts.join("\n\n") }),
    }
}

/// What to say of so many pages of which some have no text or could not be read.
fn note(n_pages: usize, n_empty: usize, n_failed: usize) -> String {
    let of_pages = |n: usize, singular: &str, plural: &str| {
        (n > 0).then(|| format!("{n} of {n_pages} pages {}", if n == 1 { singular } else { plural }))
    };
    let parts = [
        Some("text layer only".to_string()),
        of_pages(n_empty, "has no text", "have no text"),
        of_pages(n_failed, "could not be read", "could not be read"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

enum PageError {
    TooLong,
    Unreadable,
}

/// The text of a page, without spaces at the ends of lines and without runs of empty lines.
fn page_text(document: &pdf_extract::Document, page: u32, most: usize) -> Result<String, PageError> {
    let mut text = String::new();
    let mut output = Bounded { output: PlainTextOutput::new(&mut text), left: most };
    let read = catch_unwind(AssertUnwindSafe(|| pdf_extract::output_doc_page(document, &mut output, page)));
    let is_full = output.left == 0;
    match read {
        Ok(Ok(())) => Ok(tidied(&text)),
        _ if is_full => Err(PageError::TooLong),
        _ => Err(PageError::Unreadable),
    }
}

fn tidied(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    for line in text.lines().map(str::trim_end) {
        if !(line.is_empty() && tidy.ends_with("\n\n")) {
            tidy += line;
            tidy.push('\n');
        }
    }
    tidy.trim().to_string()
}

/// Writes text until it is too long.
struct Bounded<'a> {
    output: PlainTextOutput<&'a mut String>,
    /// Bytes that may follow.
    left: usize,
}

impl OutputDev for Bounded<'_> {
    fn begin_page(
        &mut self,
        page: u32,
        media: &MediaBox,
        art: Option<(f64, f64, f64, f64)>,
    ) -> Result<(), OutputError> {
        self.output.begin_page(page, media, art)
    }

    fn end_page(&mut self) -> Result<(), OutputError> {
        self.output.end_page()
    }

    fn output_character(
        &mut self,
        at: &Transform,
        width: f64,
        spacing: f64,
        size: f64,
        text: &str,
    ) -> Result<(), OutputError> {
        self.left = self.left.saturating_sub(text.len());
        if self.left == 0 {
            return Err(OutputError::FormatError(std::fmt::Error));
        }
        self.output.output_character(at, width, spacing, size, text)
    }

    fn begin_word(&mut self) -> Result<(), OutputError> {
        self.output.begin_word()
    }

    fn end_word(&mut self) -> Result<(), OutputError> {
        self.output.end_word()
    }

    fn end_line(&mut self) -> Result<(), OutputError> {
        self.output.end_line()
    }
}

/// Whether the ancestors of a page end. The library follows them without end otherwise.
fn has_root(document: &pdf_extract::Document, page: ObjectId) -> bool {
    let mut at = page;
    for _ in 0..MAX_ANCESTORS {
        let parent = document.get_dictionary(at).and_then(|page| page.get(b"Parent")).and_then(Object::as_reference);
        match parent {
            Ok(parent) => at = parent,
            Err(_) => return true,
        }
    }
    false
}
