//! JSON files: a value on each line, or one list of values.

use super::record::{Allowance, Content, Each, Limited, MAX_RECORD_BYTES, Place};
use crate::error::{Error, Result};
use serde::Deserializer;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// Reads a file. One that begins with `[` is a list.
pub fn read(mut file: BufReader<File>, each: Each<'_>) -> Result<()> {
    // Editors on Windows may write a byte order mark at the start, which is not JSON.
    if file.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
        file.consume(3);
    }
    match file.fill_buf()?.trim_ascii_start().first() {
        Some(b'[') => elements(file, each),
        _ => lines(file, each),
    }
}

fn lines(mut file: BufReader<File>, each: Each<'_>) -> Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let n_bytes = (&mut file).take(MAX_RECORD_BYTES + 1).read_until(b'\n', &mut line)? as u64;
        crate::ensure!(n_bytes <= MAX_RECORD_BYTES, "line {number} has more than {MAX_RECORD_BYTES} bytes");
        if n_bytes == 0 {
            break;
        }
        if !line.trim_ascii().is_empty() {
            each(Place::Line(number), Content::Json(&line))?;
        }
    }
    Ok(())
}

fn elements(file: BufReader<File>, each: Each<'_>) -> Result<()> {
    let (file, allowance) = Limited::new(file);
    let mut refused = None;
    let mut json = serde_json::Deserializer::from_reader(file);
    let read = json.deserialize_seq(Elements { each, allowance, refused: &mut refused }).and_then(|()| json.end());
    match refused {
        Some(e) => Err(e),
        None => read.map_err(|e| Error::new(format!("not a list in JSON ({e})"))),
    }
}

/// Passes the elements of a list on, so that the list is never in memory.
struct Elements<'a> {
    each: Each<'a>,
    allowance: Allowance,
    refused: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        for number in 1.. {
            let Some(value) = list.next_element::<Box<RawValue>>()? else { break };
            self.allowance.renew();
            if let Err(e) = (self.each)(Place::Element(number), Content::Json(value.get().as_bytes())) {
                *self.refused = Some(e);
                return Err(A::Error::custom("an element is refused"));
            }
        }
        Ok(())
    }
}
