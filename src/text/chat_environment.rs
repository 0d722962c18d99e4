//! The Jinja environment of chat templates: minijinja with the functions and filters that
//! transformers adds.
//!
//! It adds block trimming, Python's string and list methods, `raise_exception`, `strftime_now`,
//! `tojson` with Python's separators, and the `{% generation %}` block. minijinja lacks that block,
//! so this file rewrites it. Templates are untrusted, so their steps and their output are bounded.
//! Only [`super::chat_template`] uses this file.

use super::chat_filters;
use crate::error::{Context, Result};
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::io;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// Steps that a template may take. A conversation of thousands of turns takes a few hundred
/// thousand.
const FUEL: u64 = 20_000_000;
/// Longest output of a template in bytes.
const MAX_OUTPUT_BYTES: usize = 32 << 20;

/// An environment with the settings of transformers.
pub fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_fuel(Some(FUEL));
    chat_filters::install(&mut env);
    env.add_function("raise_exception", |message: String| -> std::result::Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", |format: &str| strftime(format, now_s()));
    env.add_filter("tojson", to_json);
    env
}

/// Most words, numbers and signs in one tag. minijinja parses expressions recursively, and this
/// limit keeps it from overflowing the stack.
const MAX_TAG_TOKENS: usize = 1000;
/// Most `elif` tags in a template, for the same reason.
const MAX_ELIF: usize = 250;

/// Rejects templates with tags too long to parse safely, and `raw` blocks, because they could hide
/// such tags.
pub fn check_tags(source: &str) -> Result<()> {
    let n_elif = source.matches("elif").count();
    crate::ensure!(n_elif <= MAX_ELIF, "the template has {n_elif} elif tags; at most {MAX_ELIF} are supported");
    let mut rest = source;
    while let Some(open) = rest.find('{') {
        rest = &rest[open + 1..];
        match rest.as_bytes().first() {
            Some(b'#') => rest = rest.split_once("#}").map_or("", |(_, after)| after),
            Some(b'{') => rest = check_tag(&rest[1..], "}}")?,
            Some(b'%') => rest = check_tag(&rest[1..], "%}")?,
            _ => {}
        }
    }
    Ok(())
}

/// Counts the tokens of the tag at the start, each string as one, and returns the text after the
/// tag.
fn check_tag<'a>(tag: &'a str, end: &str) -> Result<&'a str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let name = tag.trim_start_matches(['-', '+']).trim_start();
    let is_raw = name.strip_prefix("raw").is_some_and(|rest| !rest.starts_with(is_word));
    crate::ensure!(!is_raw, "raw blocks are not supported: write braces as strings");
    let (mut n, mut in_word, mut n_open) = (0, false, 0);
    let mut letters = tag.char_indices();
    while let Some((at, c)) = letters.next() {
        if n_open == 0 && tag[at..].starts_with(end) {
            return Ok(&tag[at + end.len()..]);
        }
        match c {
            '(' | '[' | '{' => n_open += 1,
            ')' | ']' | '}' => n_open -= 1,
            '\'' | '"' => {
                while let Some((_, inner)) = letters.next().filter(|(_, inner)| *inner != c) {
                    if inner == '\\' {
                        letters.next();
                    }
                }
            }
            _ => {}
        }
        n += usize::from(!(c.is_whitespace() || in_word && is_word(c)));
        in_word = is_word(c);
        crate::ensure!(n <= MAX_TAG_TOKENS, "a tag has more than {MAX_TAG_TOKENS} words and signs");
    }
    Ok("")
}

/// Rewrites `{% generation %}` … `{% endgeneration %}` so that the template writes a marker at the
/// start and the end of the block's content. The outermost tags keep the white-space control of the
/// original tags.
pub fn mark_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let (before, tag) = rest.split_at(open);
        out.push_str(before);
        let Some(end) = tag[2..].find("%}").map(|end| end + 2) else {
            rest = tag;
            break;
        };
        let inner = &tag[2..end];
        let left = if inner.starts_with(['-', '+']) { &inner[..1] } else { "" };
        let right =
            if inner.len() > left.len() && inner.ends_with(['-', '+']) { &inner[inner.len() - 1..] } else { "" };
        match inner[left.len()..inner.len() - right.len()].trim() {
            "generation" => {
                out.push_str(&format!("{{%{left} if true %}}{{{{ generation_start_ }}}}{{% if true {right}%}}"));
            }
            "endgeneration" => {
                out.push_str(&format!("{{%{left} endif %}}{{{{ generation_end_ }}}}{{% endif {right}%}}"));
            }
            _ => out.push_str(&tag[..end + 2]),
        }
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    out
}

/// Two characters that mark the assistant's text while a template runs.
pub struct Markers {
    start: char,
    end: char,
}

impl Markers {
    /// Picks two private-use characters that occur in none of the texts.
    pub fn absent_from<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> Self {
        let mut free = ('\u{F0000}'..='\u{FFFFD}').filter(|c| !texts.clone().any(|text| text.contains(*c)));
        let mut next = || free.next().expect("no conversation holds all 65,534 private-use characters");
        Self { start: next(), end: next() }
    }

    /// Template variables that hold the markers.
    pub fn values(&self) -> Value {
        minijinja::context! { generation_start_ => self.start.to_string(), generation_end_ => self.end.to_string() }
    }

    /// Removes the markers. Returns the text and the byte ranges that they enclosed.
    pub fn take_out(&self, marked: &str) -> Result<(String, Vec<Range<usize>>)> {
        let mut text = String::with_capacity(marked.len());
        let (mut spans, mut open) = (Vec::new(), None);
        for piece in marked.split_inclusive([self.start, self.end]) {
            let (body, marker) = match piece.chars().next_back() {
                Some(c) if c == self.start || c == self.end => (&piece[..piece.len() - c.len_utf8()], Some(c)),
                _ => (piece, None),
            };
            text.push_str(body);
            match (marker, open) {
                (None, _) => {}
                (Some(c), None) if c == self.start => open = Some(text.len()),
                (Some(c), Some(start)) if c == self.end => {
                    spans.push(start..text.len());
                    open = None;
                }
                _ => crate::bail!("the chat template has nested or unbalanced {{% generation %}} blocks"),
            }
        }
        Ok((text, spans))
    }
}

/// An output buffer with a size limit.
#[derive(Default)]
pub struct Bounded(Vec<u8>);

impl Bounded {
    /// The text written so far.
    pub fn text(self) -> Result<String> {
        String::from_utf8(self.0).map_err(|e| e.utf8_error()).context("reading the rendered template")
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other(format!("the output of the chat template exceeds {MAX_OUTPUT_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes `", "` and `": "` between values, as Python's `json.dumps` does.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}

/// The `tojson` filter of transformers: no HTML escapes, non-ASCII letters unchanged. It supports
/// the option `indent`; `ensure_ascii` must be false.
fn to_json(value: &Value, options: Kwargs) -> std::result::Result<Value, Error> {
    let refuse = |what: &str| Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: {what} is not supported")));
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return refuse("ensure_ascii=true");
    }
    let indent = options.get::<Option<usize>>("indent")?;
    options.assert_all_used()?;
    let mut out = Bounded::default();
    let written = match indent {
        Some(n) if n <= 64 => {
            let spaces = vec![b' '; n];
            value.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(&spaces)))
        }
        Some(_) => return refuse("an indent above 64"),
        None => value.serialize(&mut Serializer::with_formatter(&mut out, PythonFormatter)),
    };
    written.map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(Value::from(String::from_utf8_lossy(&out.0).into_owned()))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Formats a time, in seconds since 1970 (UTC), like C's `strftime`. Supports the letters that
/// templates use.
fn strftime(format: &str, seconds: u64) -> std::result::Result<String, Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (month_name, day_name) = (MONTHS[month - 1], DAYS[(days % 7) as usize]);
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(c) = letters.next() {
        let piece = match (c, if c == '%' { letters.next() } else { None }) {
            ('%', Some('Y')) => year.to_string(),
            ('%', Some('y')) => format!("{:02}", year % 100),
            ('%', Some('m')) => format!("{month:02}"),
            ('%', Some('d')) => format!("{day:02}"),
            ('%', Some('B')) => month_name.to_owned(),
            ('%', Some('b' | 'h')) => month_name[..3].to_owned(),
            ('%', Some('A')) => day_name.to_owned(),
            ('%', Some('a')) => day_name[..3].to_owned(),
            ('%', Some('H')) => format!("{:02}", second / 3600),
            ('%', Some('M')) => format!("{:02}", second / 60 % 60),
            ('%', Some('S')) => format!("{:02}", second % 60),
            ('%', Some('F')) => format!("{year}-{month:02}-{day:02}"),
            ('%', Some('%')) => "%".to_owned(),
            ('%', other) => {
                let letter = other.map(String::from).unwrap_or_default();
                let message = format!("strftime_now: the format %{letter} is not supported");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
            (plain, _) => plain.to_string(),
        };
        out.push_str(&piece);
    }
    Ok(out)
}

/// Year, month (1…12) and day (1…31) of a day number; day 0 is 1970-01-01.
fn date(mut days: u64) -> (u64, usize, u64) {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_strftime_does() {
        let leap_day = 1_709_210_096; // date -u -d @1709210096
        assert_eq!(strftime("%d %b %Y, %A %H:%M:%S %y%%", leap_day).unwrap(), "29 Feb 2024, Thursday 12:34:56 24%");
        assert_eq!(strftime("%F", 0).unwrap(), "1970-01-01");
        assert_eq!(strftime("%F %a", 1_767_225_599).unwrap(), "2025-12-31 Wed");
        assert!(strftime("%Q", 0).is_err());
    }

    #[test]
    fn json_is_written_as_python_does() {
        let env = environment();
        let render = |source: &str| {
            let value = serde_json::json!({"b": [1, 2.5, null, true], "a": "<é \"x\">", "e": {}, "l": []});
            env.render_str(source, minijinja::context! { v => value }).unwrap()
        };
        assert_eq!(render("{{ v|tojson }}"), r#"{"b": [1, 2.5, null, true], "a": "<é \"x\">", "e": {}, "l": []}"#);
        assert!(render("{{ v|tojson(indent=2) }}").starts_with("{\n  \"b\": [\n    1,\n"));
        assert!(env.render_str("{{ 1|tojson(ensure_ascii=true) }}", ()).is_err());
    }

    #[test]
    fn tags_that_could_overflow_the_stack_are_refused() {
        let refused = |source: &str| check_tags(source).expect_err(source).to_string();
        for chain in [
            "{{ a".to_owned() + &".b".repeat(5000),
            "{% if ".to_owned() + &"not ".repeat(5000),
            "{{ '%}' ".to_owned() + &"~'}}'".repeat(5000),
        ] {
            assert!(refused(&chain).contains("words and signs"));
        }
        assert!(refused(&"{% if a %}{% elif b %}".repeat(300)).contains("elif"));
        assert!(refused("{%- raw -%}{{ ' {% endraw %}").contains("raw"));
        check_tags(&"{{ '} %} \\' }}' ~ {'a': {'b': 1}}['a'] }}{# {{ #}{% if raws %}x{% endif %}".repeat(2000))
            .unwrap();
    }

    #[test]
    fn a_tag_without_room_for_a_name_stays_as_it_is() {
        for source in ["{{%}sa{%", "{%}", "{%-%}", "{%", "{%%}"] {
            assert_eq!(mark_generation(source), source);
        }
    }

    #[test]
    fn runaway_templates_are_stopped() {
        let env = environment();
        let nested = "{% for a in range(9000) %}{% for b in range(9000) %}{% endfor %}{% endfor %}";
        assert_eq!(env.render_str(nested, ()).unwrap_err().kind(), ErrorKind::OutOfFuel);
    }
}
