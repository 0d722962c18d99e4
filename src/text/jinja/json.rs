//! `tojson` as transformers defines it: Python's `json.dumps` without HTML escapes.

use super::args::{Args, flag_or};
use super::budget::Budget;
use super::operators;
use super::print::{self, Writer};
use super::value::{Kind, Value};
use crate::error::{Error, Result};

struct Style {
    ascii: bool,
    /// What one level is indented by.
    indent: Option<String>,
    comma: String,
    colon: String,
    sort: bool,
}

/// The filter `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub fn to_json(value: &Value, args: Args, budget: &Budget) -> Result<Value> {
    let [ascii, indent, separators, sort] =
        args.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Text(text)) => Some(text.as_str().to_owned()),
        Some(other) => match other.as_int() {
            Some(n) if n <= 1000 => Some(" ".repeat(usize::try_from(n).unwrap_or(0))),
            _ => crate::bail!("the indent of tojson must be a string or an integer up to 1000"),
        },
    };
    let (comma, colon) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(Value::Seq(pair)) => match pair.items() {
            [Value::Text(comma), Value::Text(colon)] => (comma.as_str().to_owned(), colon.as_str().to_owned()),
            _ => crate::bail!("the separators of tojson must be two strings"),
        },
        Some(_) => crate::bail!("the separators of tojson must be two strings"),
    };
    let style = Style { ascii: flag_or(&ascii, false), indent, comma, colon, sort: flag_or(&sort, false) };
    let mut out = Writer::new(budget);
    style.write(value, 0, &mut out)?;
    out.finish()
}

impl Style {
    fn write(&self, value: &Value, level: usize, out: &mut Writer) -> Result<()> {
        match value {
            Value::None => out.push("null"),
            Value::Bool(b) => out.push(if *b { "true" } else { "false" }),
            Value::Int(n) => out.push(&n.to_string()),
            Value::Float(f) => out.push(&float(*f)),
            Value::Text(text) => self.text(text.as_str(), out),
            Value::Seq(seq) if matches!(seq.kind(), Kind::List | Kind::Tuple) => {
                let items = seq.items();
                self.enclosed(["[", "]"], items.len(), level, out, |i, out| self.write(&items[i], level + 1, out))
            }
            Value::Dict(dict) => {
                let mut entries: Vec<&(Value, Value)> = dict.entries().iter().collect();
                if self.sort {
                    let budget = out.budget();
                    let compare =
                        |(a, _): &(Value, Value), (b, _): &(Value, Value)| operators::sort_order(a, b, budget);
                    let places = operators::sorted_places(dict.entries(), compare, budget)?;
                    entries = places.into_iter().map(|i| &dict.entries()[i]).collect();
                }
                self.enclosed(["{", "}"], entries.len(), level, out, |i, out| {
                    let (key, value) = entries[i];
                    self.text(&key_text(key)?, out)?;
                    out.push(&self.colon)?;
                    self.write(value, level + 1, out)
                })
            }
            other => crate::bail!("Object of type {} is not JSON serializable", other.type_name()),
        }
    }

    fn enclosed<'b>(
        &self,
        [open, close]: [&str; 2],
        n: usize,
        level: usize,
        out: &mut Writer<'b>,
        mut item: impl FnMut(usize, &mut Writer<'b>) -> Result<()>,
    ) -> Result<()> {
        out.push(open)?;
        for i in 0..n {
            out.push(if i > 0 { &self.comma } else { "" })?;
            self.new_line(level + 1, out)?;
            item(i, out)?;
        }
        if n > 0 {
            self.new_line(level, out)?;
        }
        out.push(close)
    }

    fn new_line(&self, level: usize, out: &mut Writer) -> Result<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.push("\n")?;
        (0..level).try_for_each(|_| out.push(indent))
    }

    fn text(&self, text: &str, out: &mut Writer) -> Result<()> {
        out.budget().spend(text.len() / 4)?;
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('"');
        for c in text.chars() {
            match c {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\u{8}' => quoted.push_str("\\b"),
                '\u{c}' => quoted.push_str("\\f"),
                c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
                c if self.ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        quoted.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        out.push(&quoted)
    }
}

fn float(f: f64) -> String {
    match f {
        f if f.is_nan() => "NaN".to_owned(),
        f if f.is_infinite() => if f > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        f => print::float(f),
    }
}

fn key_text(key: &Value) -> Result<std::borrow::Cow<'_, str>> {
    Ok(match key {
        Value::Text(text) => text.as_str().into(),
        Value::Int(n) => n.to_string().into(),
        Value::Float(f) => float(*f).into(),
        Value::Bool(b) => if *b { "true" } else { "false" }.into(),
        Value::None => "null".into(),
        other => {
            let name = other.type_name();
            return Err(Error::new(format!("keys must be str, int, float, bool or None, not {name}")));
        }
    })
}
