//! `strftime_now`: the local time in the format of C's `strftime`, as Python's `datetime` writes it.

use chrono::format::{Item, StrftimeItems};
use chrono::{Local, NaiveDateTime};

use crate::error::{Error, Result};
use std::fmt::Write;

/// Longest format in bytes. Each of its letters writes a few.
const MAX_FORMAT: usize = 10_000;

/// The local time now.
pub fn now(format: &str) -> Result<String> {
    strftime(format, Local::now().naive_local())
}

/// A time without a zone in a format.
fn strftime(format: &str, time: NaiveDateTime) -> Result<String> {
    crate::ensure!(format.len() <= MAX_FORMAT, "strftime_now takes a format of at most {MAX_FORMAT} bytes");
    let format = for_chrono(format, time);
    let items: Vec<Item> = StrftimeItems::new(&format).collect();
    let unknown = || Error::new(format!("strftime_now does not know a letter of the format '{format}'"));
    if items.contains(&Item::Error) {
        return Err(unknown());
    }
    // Fails for letters that need a zone. `to_string` would panic.
    let mut out = String::new();
    write!(out, "{}", time.format_with_items(items.into_iter())).map_err(|_| unknown())?;
    Ok(out)
}

/// The format with the letters that chrono reads otherwise replaced: `%f` is in microseconds, and
/// a time without a zone has neither name nor offset.
fn for_chrono(format: &str, time: NaiveDateTime) -> String {
    let mut out = String::with_capacity(format.len());
    let mut letters = format.chars();
    while let Some(c) = letters.next() {
        match (c, if c == '%' { letters.clone().next() } else { None }) {
            ('%', Some('f')) => out.push_str(&format!("{:06}", time.and_utc().timestamp_subsec_micros())),
            ('%', Some('Z' | 'z')) => {}
            ('%', Some('s')) => {
                out.push_str(&time.and_local_timezone(Local).earliest().map_or(0, |t| t.timestamp()).to_string())
            }
            ('%', Some('%')) => out.push_str("%%"),
            (c, _) => {
                out.push(c);
                continue;
            }
        }
        letters.next();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_does() {
        let time = chrono::DateTime::from_timestamp(1_709_210_096, 7_000).unwrap().naive_utc();
        for (format, text) in [
            ("%d %b %Y, %A %H:%M:%S %y%%", "29 Feb 2024, Thursday 12:34:56 24%"),
            ("%-d %B|%j|%I %p|%U %W %V|%w %u", "29 February|060|12 PM|08 09 09|4 4"),
            ("%F %T|%D|%R|%e|%f|%Z%z", "2024-02-29 12:34:56|02/29/24|12:34|29|000007|"),
            ("%c|%x|%X|%C|%G", "Thu Feb 29 12:34:56 2024|02/29/24|12:34:56|20|2024"),
            ("日 %a", "日 Thu"),
        ] {
            assert_eq!(strftime(format, time).unwrap(), text, "{format}");
        }
        for format in ["%Q", "%", "%+", "%:z", "%::z", "%:::z", "%#z"] {
            assert!(strftime(format, time).is_err(), "{format}");
        }
    }
}
