//! The methods of Python's `str`.

use super::args::{Args, flag_or, int_or, required, text_or};
use super::budget::{Budget, MAX_ITEMS};
use super::format_spec::Spec;
use super::operators;
use super::print::{self, Writer, is_printable, is_space};
use super::value::{Text, Value};
use crate::error::{Error, Result};

/// The names of the methods, in order.
pub const NAMES: [&str; 44] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

/// Most characters that `strip` takes.
const MAX_STRIPPED: usize = 1000;

/// Calls `text.name(args)`.
pub fn call(text: &Text, name: &str, args: Args, budget: &Budget) -> Result<Value> {
    let s = text.as_str();
    // Most methods go through the text letter by letter.
    budget.spend(1 + s.len() / 2)?;
    let new = |result: String| Value::text(result, budget);
    let list = |parts: Vec<&str>| {
        budget.check_items(parts.len())?;
        Value::list(parts.into_iter().map(|part| Value::text(part, budget)).collect::<Result<_>>()?, budget)
    };
    match name {
        "upper" => no_args(args, name).and_then(|()| new(s.to_uppercase())),
        "lower" => no_args(args, name).and_then(|()| new(s.to_lowercase())),
        "casefold" => no_args(args, name).and_then(|()| new(s.to_lowercase().replace('ß', "ss"))),
        "capitalize" => no_args(args, name).and_then(|()| new(capitalize(s))),
        "title" => no_args(args, name).and_then(|()| new(title(s))),
        "swapcase" => no_args(args, name).and_then(|()| new(swapcase(s))),
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.bind(name, ["chars"])?;
            Value::text(strip(s, chars, name != "rstrip", name != "lstrip", budget)?, budget)
        }
        "removeprefix" | "removesuffix" => {
            let [part] = args.bind(name, ["part"])?;
            let part = text_or(&part, "part", "")?;
            let rest = if name == "removeprefix" { s.strip_prefix(part) } else { s.strip_suffix(part) };
            Value::text(rest.unwrap_or(s), budget)
        }
        "split" | "rsplit" => {
            let [sep, max] = args.bind(name, ["sep", "maxsplit"])?;
            let max = usize::try_from(int_or(max, "maxsplit", -1)?).unwrap_or(usize::MAX);
            list(split(s, sep.filter(|sep| !matches!(sep, Value::None)), max, name == "rsplit")?)
        }
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"])?;
            list(lines(s, flag_or(&keep, false)).take(MAX_ITEMS + 1).collect())
        }
        "partition" | "rpartition" => {
            let [sep] = args.bind(name, ["sep"])?;
            let sep = text_or(&sep, "sep", "")?;
            crate::ensure!(!sep.is_empty(), "empty separator");
            let cut = if name == "partition" { s.split_once(sep) } else { s.rsplit_once(sep) };
            let parts = match cut {
                Some((before, after)) => [before, sep, after],
                None if name == "partition" => [s, "", ""],
                None => ["", "", s],
            };
            Value::tuple(parts.iter().map(|part| Value::text(*part, budget)).collect::<Result<_>>()?, budget)
        }
        "join" => {
            let [items] = args.bind(name, ["iterable"])?;
            join(s, &required(items, name, "iterable")?.iterate(budget)?, budget)
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let (old, new) = (required(old, name, "old")?, required(new, name, "new")?);
            let count = usize::try_from(int_or(count, "count", -1)?).unwrap_or(usize::MAX);
            replace(s, text_or(&Some(old), "old", "")?, text_or(&Some(new), "new", "")?, count, budget)
        }
        "startswith" | "endswith" => {
            let [part, start, end] = args.bind(name, ["prefix", "start", "end"])?;
            let (window, _) = window(text, start, end)?;
            let is = |part: &Value| match part.as_str() {
                Some(part) if name == "startswith" => Ok(window.starts_with(part)),
                Some(part) => Ok(window.ends_with(part)),
                None => Err(Error::new(format!("{name} needs a str or a tuple of str, not {}", part.type_name()))),
            };
            Ok(Value::Bool(match required(part, name, "prefix")?.defined()? {
                Value::Seq(parts) => {
                    budget.spend(parts.items().len())?;
                    parts.items().iter().map(is).collect::<Result<Vec<_>>>()?.contains(&true)
                }
                part => is(part)?,
            }))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let [part, start, end] = args.bind(name, ["sub", "start", "end"])?;
            let (window, offset) = window(text, start, end)?;
            let part = required(part, name, "sub")?;
            let part = text_of(&part)?;
            let at = if name.starts_with('r') { window.rfind(part) } else { window.find(part) };
            match at {
                Some(at) => Ok(Value::Int((offset + window[..at].chars().count()) as i128)),
                None if name.ends_with("find") => Ok(Value::Int(-1)),
                None => crate::bail!("substring not found"),
            }
        }
        "count" => {
            let [part, start, end] = args.bind(name, ["sub", "start", "end"])?;
            let (window, _) = window(text, start, end)?;
            let part = required(part, name, "sub")?;
            Ok(Value::Int(window.matches(text_of(&part)?).count() as i128))
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let [width, fill] = args.bind(name, ["width", "fillchar"])?;
            let width = usize::try_from(int_or(width, "width", 0)?).unwrap_or(0);
            let mut fill = text_or(&fill, "fillchar", " ")?.chars();
            let (Some(fill), None) = (fill.next(), fill.next()) else {
                crate::bail!("the fill character must be exactly one character long")
            };
            pad(text, name, width, fill, budget)
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"])?;
            let size = usize::try_from(int_or(size, "tabsize", 8)?).unwrap_or(0);
            expand_tabs(s, size, budget)
        }
        "format" => format(s, &args, budget),
        "format_map" => {
            let [map] = args.bind(name, ["mapping"])?;
            let Some(Value::Dict(map)) = map else { crate::bail!("format_map needs a mapping") };
            let named = map.entries().iter().filter_map(|(k, v)| Some((k.as_str()?.to_owned(), v.clone()))).collect();
            format(s, &Args { positional: Vec::new(), named }, budget)
        }
        _ => {
            no_args(args, name)?;
            Ok(Value::Bool(is(s, name)?))
        }
    }
}

fn no_args(args: Args, name: &str) -> Result<()> {
    args.bind::<0>(name, []).map(drop)
}

fn text_of(value: &Value) -> Result<&str> {
    match value.defined()?.as_str() {
        Some(text) => Ok(text),
        None => crate::bail!("must be str, not {}", value.type_name()),
    }
}

/// Answers `isalpha` and its like.
fn is(s: &str, name: &str) -> Result<bool> {
    let all = |test: fn(char) -> bool| !s.is_empty() && s.chars().all(test);
    let cased = |c: char| c.is_uppercase() || c.is_lowercase();
    Ok(match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => s.is_ascii(),
        "isdecimal" | "isdigit" | "isnumeric" => all(char::is_numeric),
        "isidentifier" => !s.starts_with(char::is_numeric) && all(|c| c.is_alphanumeric() || c == '_'),
        "islower" => s.chars().any(cased) && !s.chars().any(char::is_uppercase),
        "isupper" => s.chars().any(cased) && !s.chars().any(char::is_lowercase),
        "isprintable" => s.chars().all(is_printable),
        "isspace" => all(is_space),
        "istitle" => {
            let mut after_letter = false;
            s.chars().any(cased)
                && s.chars().all(|c| {
                    let fits = if after_letter { !c.is_uppercase() } else { !c.is_lowercase() };
                    after_letter = cased(c);
                    fits
                })
        }
        _ => crate::bail!("'str' object has no attribute '{name}'"),
    })
}

/// The first letter in upper case, the others in lower case.
pub fn capitalize(s: &str) -> String {
    let mut letters = s.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &letters.as_str().to_lowercase()
}

fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut after_letter = false;
    for c in s.chars() {
        if after_letter {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        after_letter = c.is_alphabetic();
    }
    out
}

fn swapcase(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        if c.is_uppercase() { out.extend(c.to_lowercase()) } else { out.extend(c.to_uppercase()) }
    }
    out
}

/// The text without white space, or without some characters, at its ends.
fn strip<'s>(s: &'s str, chars: Option<Value>, start: bool, end: bool, budget: &Budget) -> Result<&'s str> {
    let mut chars: Option<Vec<char>> = match &chars {
        None | Some(Value::None) => None,
        Some(chars) => Some(text_of(chars)?.chars().take(MAX_STRIPPED + 1).collect()),
    };
    if let Some(chars) = &mut chars {
        crate::ensure!(chars.len() <= MAX_STRIPPED, "strip takes at most {MAX_STRIPPED} characters");
        budget.spend(chars.len())?;
        chars.sort_unstable();
    }
    let strips = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.binary_search(&c).is_ok());
    let s = if start { s.trim_start_matches(strips) } else { s };
    Ok(if end { s.trim_end_matches(strips) } else { s })
}

/// The parts of a text, at most one more than a list may have.
fn split(s: &str, sep: Option<Value>, max: usize, from_end: bool) -> Result<Vec<&str>> {
    let limit = max.min(MAX_ITEMS).saturating_add(1);
    if let Some(sep) = sep {
        let sep = text_of(&sep)?;
        crate::ensure!(!sep.is_empty(), "empty separator");
        if from_end {
            let mut parts: Vec<&str> = s.rsplitn(limit, sep).collect();
            parts.reverse();
            return Ok(parts);
        }
        return Ok(s.splitn(limit, sep).collect());
    }
    let mut parts = Vec::new();
    let mut rest = if from_end { s.trim_end_matches(is_space) } else { s.trim_start_matches(is_space) };
    while !rest.is_empty() && parts.len() <= MAX_ITEMS {
        let cut = match parts.len() < max {
            false => None,
            true if from_end => rest.rfind(is_space),
            true => rest.find(is_space),
        };
        match cut {
            None => {
                parts.push(if from_end { rest.trim_start_matches(is_space) } else { rest });
                break;
            }
            Some(at) if from_end => {
                let after = at + rest[at..].chars().next().map_or(0, char::len_utf8);
                parts.push(&rest[after..]);
                rest = rest[..at].trim_end_matches(is_space);
            }
            Some(at) => {
                parts.push(&rest[..at]);
                rest = rest[at..].trim_start_matches(is_space);
            }
        }
    }
    if from_end {
        parts.reverse();
    }
    parts.retain(|part| !part.is_empty());
    Ok(parts)
}

/// The lines of a text, by all line ends that Python knows.
pub fn lines(s: &str, keep_ends: bool) -> impl Iterator<Item = &str> {
    let mut rest = s;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_end = |c| matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
        let Some(at) = rest.find(is_end) else { return Some(std::mem::take(&mut rest)) };
        let len = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        let line = &rest[..at + if keep_ends { len } else { 0 }];
        rest = &rest[at + len..];
        Some(line)
    })
}

/// The part of a text between two places, and the number of characters before it.
fn window(text: &Text, start: Option<Value>, end: Option<Value>) -> Result<(&str, usize)> {
    let len = text.n_chars() as i128;
    let clamp = |n: i128| if n < 0 { (n + len).max(0) } else { n.min(len) };
    let start = clamp(int_or(start.filter(|v| !matches!(v, Value::None)), "start", 0)?);
    let end = clamp(int_or(end.filter(|v| !matches!(v, Value::None)), "end", len)?).max(start);
    Ok((&text.as_str()[text.byte_of(start as usize)..text.byte_of(end as usize)], start as usize))
}

fn join(separator: &str, items: &[Value], budget: &Budget) -> Result<Value> {
    let mut out = Writer::new(budget);
    for (i, item) in items.iter().enumerate() {
        let Some(text) = item.as_str() else {
            crate::bail!("sequence item {i}: expected str instance, {} found", item.type_name());
        };
        out.push(if i > 0 { separator } else { "" })?;
        out.push(text)?;
    }
    out.finish()
}

/// The text with at most `count` occurrences of `old` replaced, as `str.replace` does.
pub fn replace(s: &str, old: &str, new: &str, count: usize, budget: &Budget) -> Result<Value> {
    let n = s.matches(old).count().min(count);
    let bytes = s.len().saturating_add(n.saturating_mul(new.len()));
    budget.check_text(bytes)?;
    budget.scan(bytes)?;
    Value::text(s.replacen(old, new, n), budget)
}

/// The text padded to a width.
pub fn pad(text: &Text, how: &str, width: usize, fill: char, budget: &Budget) -> Result<Value> {
    let missing = width.saturating_sub(text.n_chars());
    let mut s = text.as_str();
    let mut out = Writer::new(budget);
    let (before, after) = match how {
        "ljust" => (0, missing),
        "center" => {
            let left = missing / 2 + (missing & width & 1);
            (left, missing - left)
        }
        _ => (missing, 0),
    };
    if how == "zfill" && s.starts_with(['+', '-']) {
        out.push(&s[..1])?;
        s = &s[1..];
    }
    out.fill(if how == "zfill" { '0' } else { fill }, before)?;
    out.push(s)?;
    out.fill(fill, after)?;
    out.finish()
}

fn expand_tabs(s: &str, size: usize, budget: &Budget) -> Result<Value> {
    let mut out = Writer::new(budget);
    let mut column = 0;
    for piece in s.split_inclusive(['\t', '\n', '\r']) {
        let body = piece.strip_suffix('\t').unwrap_or(piece);
        out.push(body)?;
        column = if piece.ends_with(['\n', '\r']) { 0 } else { column + body.chars().count() };
        if body.len() < piece.len() && size > 0 {
            let n = size - column % size;
            out.fill(' ', n)?;
            column += n;
        }
    }
    out.finish()
}

/// `text.format(args)`: fields by place or name, with items, conversions and formats.
fn format(s: &str, args: &Args, budget: &Budget) -> Result<Value> {
    let mut out = Writer::new(budget);
    let mut rest = s;
    let mut next = 0;
    while let Some(at) = rest.find(['{', '}']) {
        out.push(&rest[..at])?;
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push(brace)?;
            rest = after;
            continue;
        }
        crate::ensure!(brace == "{", "Single '}}' encountered in format string");
        let (field, after) = rest.split_once('}').ok_or_else(|| Error::new("expected '}' before end of string"))?;
        crate::ensure!(!field.contains('{'), "a format within a format is not supported");
        rest = after;
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (field, conversion) = field.split_once('!').unwrap_or((field, ""));
        let name = &field[..field.find(['.', '[']).unwrap_or(field.len())];
        let mut value = match name.parse::<usize>() {
            Ok(place) => args.positional.get(place).cloned(),
            Err(_) if name.is_empty() => {
                next += 1;
                args.positional.get(next - 1).cloned()
            }
            Err(_) => args.named.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()),
        }
        .ok_or_else(|| Error::new(format!("the format names the missing argument '{name}'")))?;
        for part in field[name.len()..].split_inclusive(']').filter(|part| !part.is_empty()) {
            let index = part.strip_prefix('[').and_then(|part| part.strip_suffix(']'));
            let index = index.ok_or_else(|| Error::new(format!("the format field '{field}' is not supported")))?;
            let index = index.parse().map_or_else(|_| Value::text(index, budget), |n| Ok(Value::Int(n)))?;
            value = operators::item(&value, &index, budget)?
                .ok_or_else(|| Error::new(format!("the format field '{field}' names a missing item")))?;
        }
        if conversion == "r" || conversion == "s" {
            let mut text = Writer::new(budget);
            if conversion == "r" {
                print::write_repr(&value, &mut text)?
            } else {
                print::write_str(&value, &mut text)?
            }
            value = text.finish()?;
        } else {
            crate::ensure!(conversion.is_empty(), "the conversion '!{conversion}' is not supported");
        }
        match (spec, &value) {
            ("", Value::Undefined(_)) => {}
            (spec, value) => Spec::parse(spec)?.write(value, &mut out)?,
        }
    }
    out.push(rest)?;
    out.finish()
}

#[cfg(test)]
#[path = "str_methods_tests.rs"]
mod tests;
