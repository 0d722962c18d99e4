//! Jinja2's filters of texts and numbers.

use super::args::{Args, flag_or, int_or, required, text_or};
use super::budget::Budget;
use super::percent_format;
use super::print::{self, Writer};
use super::str_methods;
use super::value::{Dict, Text, Value};
use crate::error::{Error, Result};

/// Applies a filter of texts or numbers; `None` if there is none of this name.
pub fn apply(name: &str, value: &Value, args: Args, budget: &Budget) -> Result<Option<Value>> {
    let text = || print::to_text(value, budget);
    let method = |method: &str, args: Args| str_methods::call(&text()?, method, args, budget);
    Ok(Some(match name {
        "upper" | "lower" | "capitalize" => method(name, args)?,
        "trim" => method("strip", args)?,
        "title" => {
            args.bind::<0>(name, [])?;
            let text = text()?;
            budget.spend(text.as_str().len())?;
            Value::text(title(text.as_str()), budget)?
        }
        "string" => {
            args.bind::<0>(name, [])?;
            Value::Text(text()?)
        }
        "safe" => {
            args.bind::<0>(name, [])?;
            Value::Text(Text::markup(text()?.as_str(), budget)?)
        }
        "escape" | "e" | "forceescape" => {
            args.bind::<0>(name, [])?;
            let text = text()?;
            if text.is_markup() && name != "forceescape" {
                return Ok(Some(Value::Text(text)));
            }
            let mut out = Writer::new(budget);
            print::write_escaped(text.as_str(), &mut out)?;
            Value::Text(Text::markup(out.into_string(), budget)?)
        }
        "urlencode" => {
            args.bind::<0>(name, [])?;
            url_encode(text()?.as_str(), budget)?
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let (old, new) = (required(old, name, "old")?, required(new, name, "new")?);
            let (old, new) = (print::to_text(&old, budget)?, print::to_text(&new, budget)?);
            let count = int_or(count.filter(|count| !matches!(count, Value::None)), "count", -1)?;
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            str_methods::replace(text()?.as_str(), old.as_str(), new.as_str(), count, budget)?
        }
        "center" => {
            let [width] = args.bind(name, ["width"])?;
            let width = usize::try_from(int_or(width, "width", 80)?).unwrap_or(0);
            str_methods::pad(&text()?, "center", width, ' ', budget)?
        }
        "indent" => indent(&text()?, args, budget)?,
        "wordcount" => {
            args.bind::<0>(name, [])?;
            let text = text()?;
            budget.spend(text.as_str().len() / 4)?;
            let words = text.as_str().split(|c: char| !(c.is_alphanumeric() || c == '_'));
            Value::Int(words.filter(|word| !word.is_empty()).count() as i128)
        }
        "wordwrap" => word_wrap(&text()?, args, budget)?,
        "truncate" => truncate(&text()?, args, budget)?,
        "format" => {
            let values = match args.named.is_empty() {
                true => Value::tuple(args.positional, budget)?,
                false => {
                    crate::ensure!(args.positional.is_empty(), "format takes values with names or without, not both");
                    let pair = |(name, value): (String, Value)| Ok((Value::text(name, budget)?, value));
                    Value::Dict(Dict::new(args.named.into_iter().map(pair).collect::<Result<_>>()?, budget)?)
                }
            };
            percent_format::format(&text()?, &values, budget)?
        }
        "abs" => {
            args.bind::<0>(name, [])?;
            match (value.defined()?.as_int(), value) {
                (Some(n), _) => Value::Int(n.checked_abs().unwrap_or(n)),
                (None, Value::Float(f)) => Value::Float(f.abs()),
                _ => crate::bail!("bad operand type for abs(): '{}'", value.type_name()),
            }
        }
        "int" => {
            let [default, base] = args.bind(name, ["default", "base"])?;
            let base = int_or(base, "base", 10)?;
            to_int(value, base).map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int)
        }
        "float" => {
            let [default] = args.bind(name, ["default"])?;
            to_float(value).map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float)
        }
        "round" => round(value, args)?,
        _ => return Ok(None),
    }))
}

fn title(s: &str) -> String {
    let starts_word = |c: char| print::is_space(c) || "-({[<".contains(c);
    let mut out = String::with_capacity(s.len());
    for piece in s.split_inclusive(starts_word) {
        let sign = piece.chars().next_back().filter(|c| starts_word(*c));
        let word = &piece[..piece.len() - sign.map_or(0, char::len_utf8)];
        out.push_str(&str_methods::capitalize(word));
        out.extend(sign);
    }
    out
}

fn url_encode(s: &str, budget: &Budget) -> Result<Value> {
    let mut out = Writer::new(budget);
    for byte in s.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => {
                out.push(char::from(byte).encode_utf8(&mut [0; 4]))?;
            }
            _ => out.push(&format!("%{byte:02X}"))?,
        }
    }
    out.finish()
}

fn indent(text: &Text, args: Args, budget: &Budget) -> Result<Value> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
    let margin = match &width {
        Some(Value::Text(text)) => text.as_str().to_owned(),
        _ => {
            let width = usize::try_from(int_or(width, "width", 4)?).unwrap_or(0);
            budget.check_text(width)?;
            " ".repeat(width)
        }
    };
    let (first, blank) = (flag_or(&first, false), flag_or(&blank, false));
    let mut out = Writer::new(budget);
    budget.spend(text.as_str().len() / 4)?;
    let ended = text.as_str().to_owned() + "\n";
    for (i, line) in str_methods::lines(&ended, false).enumerate() {
        let wanted = if i == 0 { first } else { blank || !line.is_empty() };
        out.push(if i > 0 { "\n" } else { "" })?;
        out.push(if wanted { &margin } else { "" })?;
        out.push(line)?;
    }
    out.finish()
}

fn truncate(text: &Text, args: Args, budget: &Budget) -> Result<Value> {
    let [length, kill_words, end, leeway] = args.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let end = text_or(&end, "end", "...")?.to_owned();
    let length = usize::try_from(int_or(length, "length", 255)?).unwrap_or(0);
    let leeway = usize::try_from(int_or(leeway, "leeway", 5)?).unwrap_or(0);
    let n_end = end.chars().count();
    crate::ensure!(length >= n_end, "truncate needs a length of at least {n_end}");
    if text.n_chars() <= length.saturating_add(leeway) {
        return Ok(Value::Text(text.clone()));
    }
    let cut = &text.as_str()[..text.byte_of(length - n_end)];
    let kept = if flag_or(&kill_words, false) { cut } else { cut.rsplit_once(' ').map_or(cut, |(before, _)| before) };
    Value::text(kept.to_owned() + &end, budget)
}

fn word_wrap(text: &Text, args: Args, budget: &Budget) -> Result<Value> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, break_words, wrap, hyphens] = args.bind("wordwrap", names)?;
    let width = usize::try_from(int_or(width, "width", 79)?).unwrap_or(0);
    crate::ensure!(width > 0, "wordwrap needs a width above 0");
    let wrap = text_or(&wrap, "wrapstring", "\n")?.to_owned();
    let (break_words, hyphens) = (flag_or(&break_words, true), flag_or(&hyphens, true));
    let bytes = text.as_str().len();
    budget.spend(4 * bytes)?;
    // The chunks of a line, and its letters with their places.
    let _held = budget.hold(40 * bytes)?;
    let mut out = Writer::new(budget);
    for (i, line) in str_methods::lines(text.as_str(), false).enumerate() {
        out.push(if i > 0 { &wrap } else { "" })?;
        let mut n = 0;
        let mut chunks = chunks(line, hyphens);
        chunks.reverse();
        while !chunks.is_empty() {
            let row = wrapped_row(&mut chunks, width, break_words, n == 0);
            if !row.is_empty() {
                out.push(if n > 0 { &wrap } else { "" })?;
                out.push(&row)?;
                n += 1;
            }
        }
    }
    out.finish()
}

/// Words and the spaces between them; a word may be cut after a hyphen between letters.
fn chunks(line: &str, hyphens: bool) -> Vec<&str> {
    let mut chunks = Vec::new();
    let mut start = 0;
    let letters: Vec<(usize, char)> = line.char_indices().collect();
    for pair in letters.windows(2) {
        let ((_, a), (at, b)) = (pair[0], pair[1]);
        let word = &line[start..at];
        let after_hyphen = hyphens
            && a == '-'
            && b.is_alphabetic()
            && word.trim_end_matches('-').ends_with(char::is_alphabetic)
            && word.trim_end_matches('-').len() + 1 == word.len();
        if print::is_space(a) != print::is_space(b) || after_hyphen {
            chunks.push(word);
            start = at;
        }
    }
    if start < line.len() {
        chunks.push(&line[start..]);
    }
    chunks
}

/// The next row of at most `width` letters, from chunks in reverse order.
fn wrapped_row(chunks: &mut Vec<&str>, width: usize, break_words: bool, is_first: bool) -> String {
    let is_blank = |chunk: &str| chunk.chars().all(print::is_space);
    if !is_first && chunks.last().is_some_and(|chunk| is_blank(chunk)) {
        chunks.pop();
    }
    let mut row: Vec<&str> = Vec::new();
    let mut n = 0;
    while let Some(chunk) = chunks.last() {
        let len = chunk.chars().count();
        if n + len > width {
            break;
        }
        n += len;
        row.extend(chunks.pop());
    }
    if let Some(chunk) = chunks.last().copied().filter(|chunk| chunk.chars().count() > width) {
        if break_words {
            let cut = chunk.char_indices().nth(width - n).map_or(chunk.len(), |(at, _)| at);
            row.push(&chunk[..cut]);
            chunks.pop();
            chunks.push(&chunk[cut..]);
        } else if row.is_empty() {
            row.extend(chunks.pop());
        }
    }
    if row.last().is_some_and(|chunk| is_blank(chunk)) {
        row.pop();
    }
    row.concat()
}

/// Python's `int(value)`; for a text also of a float, as the filter has it.
fn to_int(value: &Value, base: i128) -> Option<i128> {
    match value {
        Value::Float(f) if f.is_finite() => Some(f.trunc() as i128),
        Value::Text(text) => {
            let text = text.as_str().trim_matches(print::is_space);
            let (negative, digits) = match text.strip_prefix('-') {
                Some(digits) => (true, digits),
                None => (false, text.strip_prefix('+').unwrap_or(text)),
            };
            let digits = digits.get(..2).map(str::to_ascii_lowercase).map_or(digits, |prefix| match (base, &*prefix) {
                (16, "0x") | (8, "0o") | (2, "0b") => &digits[2..],
                _ => digits,
            });
            let radix = u32::try_from(base).ok().filter(|base| (2..=36).contains(base))?;
            let n = match digits.starts_with(['+', '-']) {
                true => None,
                false => i128::from_str_radix(&digits.replace('_', ""), radix).ok(),
            };
            n.map(|n| if negative { -n } else { n })
                .or_else(|| text.parse::<f64>().ok().filter(|f| f.is_finite()).map(|f| f.trunc() as i128))
        }
        other => other.as_int(),
    }
}

fn to_float(value: &Value) -> Option<f64> {
    match value {
        Value::Text(text) => text.as_str().trim_matches(print::is_space).parse().ok(),
        other => other.as_float(),
    }
}

fn round(value: &Value, args: Args) -> Result<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"])?;
    let precision = int_or(precision, "precision", 0)?;
    let places = usize::try_from(precision).ok().filter(|n| *n <= 300);
    let places = places.ok_or_else(|| Error::new("round needs a precision from 0 to 300"))?;
    let method = text_or(&method, "method", "common")?;
    if let (Some(n), "common") = (value.defined()?.as_int(), method) {
        return Ok(Value::Int(n));
    }
    let Some(f) = value.as_float() else { crate::bail!("type {} cannot be rounded", value.type_name()) };
    let scale = 10f64.powi(places as i32);
    Ok(Value::Float(match method {
        "common" if f.is_finite() => format!("{f:.places$}").parse().unwrap_or(f),
        "common" => f,
        "ceil" => (f * scale).ceil() / scale,
        "floor" => (f * scale).floor() / scale,
        other => crate::bail!("round knows the methods common, ceil and floor, not '{other}'"),
    }))
}
