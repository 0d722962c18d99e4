//! Prints values as Python does: `str`, `repr`, and floats in the fewest digits that identify them.

use super::budget::Budget;
use super::value::{Kind, Object, Range, Text, Value};
use crate::error::Result;

/// Whether Python takes a character for white space.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// A text that grows within the budget.
pub struct Writer<'b> {
    text: String,
    budget: &'b Budget,
}

impl<'b> Writer<'b> {
    /// An empty text.
    pub fn new(budget: &'b Budget) -> Self {
        Self { text: String::new(), budget }
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: &str) -> Result<()> {
        self.budget.scan(piece.len())?;
        self.budget.check_text(self.text.len() + piece.len())?;
        self.text.push_str(piece);
        Ok(())
    }

    /// Appends a character `n` times.
    pub fn fill(&mut self, c: char, n: usize) -> Result<()> {
        let bytes = n.saturating_mul(c.len_utf8());
        self.budget.check_text(self.text.len().saturating_add(bytes))?;
        self.budget.scan(bytes)?;
        self.text.extend(std::iter::repeat_n(c, n));
        Ok(())
    }

    /// The budget that the text grows in.
    pub fn budget(&self) -> &'b Budget {
        self.budget
    }

    /// The text as a string.
    pub fn into_string(self) -> String {
        self.text
    }

    /// The text as a value.
    pub fn finish(self) -> Result<Value> {
        Value::text(self.text, self.budget)
    }
}

/// Appends `str(value)`.
pub fn write_str(value: &Value, out: &mut Writer) -> Result<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Text(text) => out.push(text.as_str()),
        other => write_repr(other, out),
    }
}

/// `str(value)` as a text; a text stays as it is.
pub fn to_text(value: &Value, budget: &Budget) -> Result<Text> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        other => {
            let mut out = Writer::new(budget);
            write_str(other, &mut out)?;
            Text::new(out.into_string(), budget)
        }
    }
}

/// Appends `repr(value)`.
pub fn write_repr(value: &Value, out: &mut Writer) -> Result<()> {
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Int(n) => out.push(&n.to_string()),
        Value::Float(f) => out.push(&float(*f)),
        Value::Text(text) => write_quoted(text.as_str(), out),
        Value::Seq(seq) => {
            let items = seq.items();
            let (open, close) = match seq.kind() {
                Kind::List => ("[", "]"),
                Kind::Tuple if items.len() == 1 => ("(", ",)"),
                Kind::Tuple => ("(", ")"),
                Kind::Keys => ("dict_keys([", "])"),
                Kind::Values => ("dict_values([", "])"),
                Kind::Items => ("dict_items([", "])"),
                Kind::Generator => return out.push("<generator object>"),
            };
            out.push(open)?;
            for (i, item) in items.iter().enumerate() {
                out.push(if i > 0 { ", " } else { "" })?;
                write_repr(item, out)?;
            }
            out.push(close)
        }
        Value::Dict(dict) => {
            out.push("{")?;
            for (i, (key, value)) in dict.entries().iter().enumerate() {
                out.push(if i > 0 { ", " } else { "" })?;
                write_repr(key, out)?;
                out.push(": ")?;
                write_repr(value, out)?;
            }
            out.push("}")
        }
        Value::Range(Range { start, stop, step: 1 }) => out.push(&format!("range({start}, {stop})")),
        Value::Range(Range { start, stop, step }) => out.push(&format!("range({start}, {stop}, {step})")),
        Value::Method(method) => {
            out.push(&format!("<built-in method {} of {} object>", method.1.as_str(), method.0.type_name()))
        }
        Value::Object(Object::Function(function)) => out.push(&format!("<function {function:?}>")),
        Value::Object(_) => out.push(&format!("<{}>", value.type_name())),
    }
}

/// Appends a text in quotes, with escapes for what cannot be printed.
fn write_quoted(text: &str, out: &mut Writer) -> Result<()> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.budget().spend(text.len() / 2)?;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(quote);
    for c in text.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\\' => quoted.push_str("\\\\"),
            c if c == quote => quoted.extend(['\\', c]),
            c if is_printable(c) => quoted.push(c),
            c if u32::from(c) < 0x100 => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x10000 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push(quote);
    out.push(&quoted)
}

/// Appends a text with the signs of HTML escaped.
pub fn write_escaped(s: &str, out: &mut Writer) -> Result<()> {
    for piece in s.split_inclusive(['&', '<', '>', '\'', '"']) {
        let (body, sign) = match piece.chars().next_back() {
            Some('&') => (&piece[..piece.len() - 1], "&amp;"),
            Some('<') => (&piece[..piece.len() - 1], "&lt;"),
            Some('>') => (&piece[..piece.len() - 1], "&gt;"),
            Some('\'') => (&piece[..piece.len() - 1], "&#39;"),
            Some('"') => (&piece[..piece.len() - 1], "&#34;"),
            _ => (piece, ""),
        };
        out.push(body)?;
        out.push(sign)?;
    }
    Ok(())
}

/// Whether `repr` shows a character as it is.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // A first character of a text may also be escaped for combining with the quote before it.
    let mut letters = [0; 5];
    letters[0] = b'a';
    let n = 1 + c.encode_utf8(&mut letters[1..]).len();
    let pair = std::str::from_utf8(&letters[..n]).expect("two encoded characters are UTF-8");
    pair.escape_debug().nth(1) == Some(c)
}

/// `repr` of a float.
pub fn float(f: f64) -> String {
    if f.is_nan() {
        return "nan".to_owned();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{f:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if f != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{f}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_python() {
        for (f, text) in [
            (1.0, "1.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e15, "1000000000000000.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-0.0, "-0.0"),
            (1e300, "1e+300"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float(f), text);
        }
    }

    #[test]
    fn texts_are_quoted_as_in_python() {
        let budget = Budget::default();
        for (text, quoted) in [
            ("it's", "\"it's\""),
            ("it's \"so\"", "'it\\'s \"so\"'"),
            ("a\n\t\\\u{7f}\u{a0}é日🦙", "'a\\n\\t\\\\\\x7f\\xa0é日🦙'"),
            ("\u{200b}e\u{301}\u{e000}", "'\\u200be\u{301}\\ue000'"),
        ] {
            let mut out = Writer::new(&budget);
            write_repr(&Value::text(text, &budget).unwrap(), &mut out).unwrap();
            assert_eq!(out.into_string(), quoted);
        }
    }
}
