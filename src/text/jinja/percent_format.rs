//! Python's `format % values`.

use super::budget::Budget;
use super::format_spec::{Align, Spec, leading_number};
use super::print::{self, Writer};
use super::value::{Kind, Text, Value};
use crate::error::{Error, Result};

/// The text of `format % values`.
pub fn format(format: &Text, values: &Value, budget: &Budget) -> Result<Value> {
    let is_tuple = matches!(values, Value::Seq(seq) if seq.kind() == Kind::Tuple);
    let mut positional = match values {
        Value::Seq(seq) if is_tuple => seq.items().iter(),
        one => std::slice::from_ref(one).iter(),
    };
    let mut next = || positional.next().ok_or_else(|| Error::new("not enough arguments for format string"));
    let mut out = Writer::new(budget);
    let mut rest = format.as_str();
    let mut uses_names = false;
    while let Some((before, after)) = rest.split_once('%') {
        out.push(before)?;
        rest = after;
        let mut named = None;
        if let Some(after) = rest.strip_prefix('(') {
            let (name, after) = after.split_once(')').ok_or_else(|| Error::new("incomplete format key"))?;
            let Value::Dict(dict) = values else { crate::bail!("format requires a mapping") };
            let value = dict.get(&Value::text(name, budget)?, budget)?;
            named = Some(value.ok_or_else(|| Error::new(format!("the format names the missing key '{name}'")))?);
            uses_names = true;
            rest = after;
        }
        let mut spec = Spec::default();
        let flags = rest.len() - rest.trim_start_matches(['-', '+', ' ', '#', '0']).len();
        for flag in rest[..flags].chars() {
            match flag {
                '-' => (spec.align, spec.fill) = (Some(Align::Left), ' '),
                '0' if spec.align.is_none() => (spec.align, spec.fill) = (Some(Align::AfterSign), '0'),
                '+' => spec.sign = '+',
                ' ' if spec.sign != '+' => spec.sign = ' ',
                '#' => spec.alternate = true,
                _ => {}
            }
        }
        rest = &rest[flags..];
        crate::ensure!(!rest.contains('*') || !rest.starts_with('*'), "a width from an argument is not supported");
        let (width, after) = leading_number(rest)?;
        spec.width = width.unwrap_or(0);
        rest = after;
        if let Some(after) = rest.strip_prefix('.') {
            let (precision, after) = leading_number(after)?;
            spec.precision = Some(precision.unwrap_or(0));
            rest = after;
        }
        rest = rest.trim_start_matches(['l', 'h', 'L']);
        let kind = rest.chars().next().ok_or_else(|| Error::new("incomplete format"))?;
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push("%")?;
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => next()?,
        };
        write(&mut spec, kind, value, &mut out)?;
    }
    out.push(rest)?;
    let unused = positional.next().is_some();
    crate::ensure!(
        !unused || uses_names || (!is_tuple && matches!(values, Value::Dict(_) | Value::Seq(_))),
        "not all arguments converted during string formatting"
    );
    out.finish()
}

fn write(spec: &mut Spec, kind: char, value: &Value, out: &mut Writer) -> Result<()> {
    spec.kind = Some(kind);
    match kind {
        's' | 'r' | 'a' => {
            let mut text = Writer::new(out.budget());
            if kind == 's' {
                print::write_str(value, &mut text)?
            } else {
                print::write_repr(value, &mut text)?
            }
            let text = Text::new(text.into_string(), out.budget())?;
            let end = spec.precision.map_or(text.as_str().len(), |n| text.byte_of(n));
            if spec.align == Some(Align::AfterSign) {
                (spec.align, spec.fill) = (None, ' ');
            }
            spec.pad("", &text.as_str()[..end], Align::Right, out)
        }
        'c' if value.as_str().is_some() => {
            let text = value.as_str().unwrap_or_default();
            crate::ensure!(text.chars().count() == 1, "%c requires int or char");
            spec.pad("", text, Align::Right, out)
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'c' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let whole = "diu".contains(kind);
            let number = match value.defined()? {
                Value::Bool(b) => Value::Int(i128::from(*b)),
                Value::Float(f) if whole && f.is_finite() => Value::Int(f.trunc() as i128),
                Value::Int(_) | Value::Float(_) => value.clone(),
                other => crate::bail!("%{kind} format: a number is required, not {}", other.type_name()),
            };
            spec.write(&number, out)
        }
        _ => crate::bail!("unsupported format character '{kind}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_filled_as_in_python() {
        let budget = Budget::default();
        let text = |s: &str| Value::text(s, &budget).unwrap();
        let fill = |format_: &str, values: &Value| {
            let filled = format(&Text::constant(format_), values, &budget)?;
            Ok::<_, Error>(filled.as_str().unwrap().to_owned())
        };
        let pair = Value::tuple(vec![text("a"), Value::Int(3)], &budget).unwrap();
        assert_eq!(fill("%s-%05d%%", &pair).unwrap(), "a-00003%");
        assert_eq!(fill("%r|%x", &pair).unwrap(), "'a'|3");
        assert_eq!(fill("%-5s|%+.1f", &pair).unwrap(), "a    |+3.0");
        assert_eq!(fill("%s", &Value::list(vec![Value::None], &budget).unwrap()).unwrap(), "[None]");
        for (format_, values) in
            [("%s %s %s", &pair), ("%s", &pair), ("%d", &text("a")), ("%", &pair), ("%999999999d", &pair)]
        {
            assert!(fill(format_, values).is_err(), "{format_}");
        }
    }
}
