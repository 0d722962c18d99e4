//! The text of a Word document: the XML of a DOCX archive.
//!
//! Paragraphs become lines, and cells of a table are separated by tabs. Footnotes follow at the end.
//! Headers, comments, deleted text and the numbers of lists are left out.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use zip::ZipArchive;
use zip::result::ZipError;

use super::found::{Found, MAX_TEXT, Text, too_long};

/// Most bytes of XML that are unpacked. Word writes some ten bytes for each letter at worst.
const MAX_XML: usize = 16 * MAX_TEXT;

type Parsed<T> = std::result::Result<T, String>;

/// Reads the text and the footnotes.
pub fn text(bytes: &[u8]) -> Found {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|_| damaged())?;
    let Some(body) = unpacked(&mut archive, "word/document.xml")? else {
        return Err("is an archive, but not a Word document (.docx): save it as .docx, PDF or plain text".into());
    };
    let mut notes = Numbers::default();
    let mut text = plain(&body, &mut notes)?;
    if !notes.0.is_empty()
        && let Some(xml) = unpacked(&mut archive, "word/footnotes.xml")?
    {
        text = text.trim_end().to_string() + "\n\n" + &footnotes(&xml, &notes)?;
    }
    Ok(Text { text: text.trim().to_string(), note: String::new() })
}

fn damaged() -> String {
    "is a damaged Word document: open it in a word processor and save it again".into()
}

/// The bytes of a file of the archive; `None` if there is none of this name.
fn unpacked(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str) -> Parsed<Option<Vec<u8>>> {
    let file = match archive.by_name(name) {
        Err(ZipError::FileNotFound) => return Ok(None),
        file => file.map_err(|_| damaged())?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_XML as u64 + 1).read_to_end(&mut bytes).map_err(|_| damaged())?;
    if bytes.len() > MAX_XML { Err(too_long()) } else { Ok(Some(bytes)) }
}

/// Footnotes by id, numbered from 1 in the order in which the text refers to them.
#[derive(Default)]
struct Numbers(HashMap<String, usize>);

/// What surrounds the text that is being read.
#[derive(Default)]
struct Place {
    /// Runs, cells and passages to leave out that are open.
    runs: usize,
    cells: usize,
    omitted: usize,
    is_text: bool,
}

/// The text of the body.
fn plain(xml: &[u8], notes: &mut Numbers) -> Parsed<String> {
    let (mut reader, mut text, mut place) = (Reader::from_reader(xml), String::new(), Place::default());
    loop {
        match reader.read_event().map_err(|_| damaged())? {
            Event::Start(tag) => begin(&tag, &mut place, &mut text, notes),
            Event::Empty(tag) => {
                begin(&tag, &mut place, &mut text, notes);
                end(tag.local_name().as_ref(), &mut place, &mut text);
            }
            Event::End(tag) => end(tag.local_name().as_ref(), &mut place, &mut text),
            event if place.is_text && place.omitted == 0 => text += &said(&event)?,
            Event::Eof => break,
            _ => {}
        }
        if text.len() > MAX_TEXT {
            return Err(too_long());
        }
    }
    Ok(text)
}

/// The text of an event.
fn said(event: &Event<'_>) -> Parsed<String> {
    Ok(match event {
        Event::Text(text) => text.decode().map_err(|_| damaged())?.into_owned(),
        Event::CData(text) => text.decode().map_err(|_| damaged())?.into_owned(),
        Event::GeneralRef(name) => {
            let letter = name.resolve_char_ref().map_err(|_| damaged())?.map(String::from);
            let name = name.decode().map_err(|_| damaged())?;
            letter
                .or_else(|| quick_xml::escape::resolve_predefined_entity(&name).map(str::to_string))
                .ok_or_else(damaged)?
        }
        Event::Eof => return Err(damaged()),
        _ => String::new(),
    })
}

fn begin(tag: &BytesStart<'_>, place: &mut Place, text: &mut String, notes: &mut Numbers) {
    let name = tag.local_name();
    let is_read = place.runs > 0 && place.omitted == 0;
    match name.as_ref() {
        b"r" => place.runs += 1,
        b"tc" => place.cells += 1,
        // A moved passage is where it moved to, and a drawing has its text twice.
        b"moveFrom" | b"Fallback" => place.omitted += 1,
        b"t" => place.is_text = true,
        b"tab" if is_read => text.push('\t'),
        b"br" | b"cr" if is_read => text.push('\n'),
        b"noBreakHyphen" if is_read => text.push('-'),
        b"footnoteReference" if is_read => {
            if let Some(id) = attribute(tag, b"id") {
                let next = notes.0.len() + 1;
                *text += &format!("[{}]", notes.0.entry(id).or_insert(next));
            }
        }
        _ => {}
    }
}

fn end(name: &[u8], place: &mut Place, text: &mut String) {
    match name {
        b"r" => place.runs = place.runs.saturating_sub(1),
        b"moveFrom" | b"Fallback" => place.omitted = place.omitted.saturating_sub(1),
        b"t" => place.is_text = false,
        b"p" if place.omitted == 0 => text.push(if place.cells == 0 { '\n' } else { ' ' }),
        b"tc" => {
            place.cells = place.cells.saturating_sub(1);
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\t');
        }
        b"tr" => {
            text.truncate(text.trim_end_matches(['\t', ' ']).len());
            text.push(if place.cells == 0 { '\n' } else { ' ' });
        }
        _ => {}
    }
}

/// The value of an attribute by its name without prefix.
fn attribute(tag: &BytesStart<'_>, name: &[u8]) -> Option<String> {
    let found = tag.attributes().flatten().find(|a| a.key.local_name().as_ref() == name)?;
    String::from_utf8(found.value.into_owned()).ok()
}

/// The footnotes that the text refers to, a line for each: "[1] …".
fn footnotes(xml: &[u8], notes: &Numbers) -> Parsed<String> {
    let (mut reader, mut lines) = (Reader::from_reader(xml), Vec::new());
    loop {
        match reader.read_event().map_err(|_| damaged())? {
            Event::Start(tag) if tag.local_name().as_ref() == b"footnote" => {
                let number = attribute(&tag, b"id").and_then(|id| notes.0.get(&id).copied());
                let inner = reader.read_text(tag.name()).map_err(|_| damaged())?;
                if let Some(number) = number {
                    let text = plain(&inner, &mut Numbers::default())?;
                    lines.push((number, text.split_whitespace().collect::<Vec<_>>().join(" ")));
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    lines.sort();
    Ok(lines.into_iter().map(|(number, text)| format!("[{number}] {text}\n")).collect())
}
