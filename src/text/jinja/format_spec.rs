//! Python's format specifications, as in `'{:>8.2f}'.format(x)` and `'%8.2f' % x`.

use super::print::{self, Writer};
use super::value::Value;
use crate::error::{Error, Result};

/// Widest field and largest precision.
const MAX_WIDTH: usize = 10_000;

/// Where the padding goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
    Center,
    /// Between the sign and the digits.
    AfterSign,
}

/// A format specification.
#[derive(Clone, Debug)]
pub struct Spec {
    pub fill: char,
    pub align: Option<Align>,
    /// `'+'`, `' '`, or `'-'` for a sign of negative numbers alone.
    pub sign: char,
    /// Whether other bases show their prefix.
    pub alternate: bool,
    pub width: usize,
    /// The sign between groups of digits.
    pub group: Option<char>,
    pub precision: Option<usize>,
    pub kind: Option<char>,
}

impl Default for Spec {
    fn default() -> Self {
        Self { fill: ' ', align: None, sign: '-', alternate: false, width: 0, group: None, precision: None, kind: None }
    }
}

/// The number at the start of a text, with what follows it.
pub fn leading_number(text: &str) -> Result<(Option<usize>, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 {
        return Ok((None, text));
    }
    let n = text[..end].parse().ok().filter(|n| *n <= MAX_WIDTH);
    let n = n.ok_or_else(|| Error::new(format!("a format asks for more than {MAX_WIDTH} characters")))?;
    Ok((Some(n), &text[end..]))
}

impl Spec {
    /// Parses `[[fill]align][sign][#][0][width][,][.precision][type]`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut spec = Self::default();
        let align_of = |c: char| match c {
            '<' => Some(Align::Left),
            '>' => Some(Align::Right),
            '^' => Some(Align::Center),
            '=' => Some(Align::AfterSign),
            _ => None,
        };
        let mut rest = text;
        let mut letters = text.chars();
        let (first, second) = (letters.next(), letters.next());
        if let (Some(fill), Some(align)) = (first, second.and_then(align_of)) {
            (spec.fill, spec.align) = (fill, Some(align));
            rest = letters.as_str();
        } else if let Some(align) = first.and_then(align_of) {
            spec.align = Some(align);
            rest = &text[1..];
        }
        if let Some(sign) = rest.chars().next().filter(|c| "+- ".contains(*c)) {
            spec.sign = sign;
            rest = &rest[1..];
        }
        if let Some(after) = rest.strip_prefix('#') {
            spec.alternate = true;
            rest = after;
        }
        if let Some(after) = rest.strip_prefix('0') {
            if spec.align.is_none() {
                (spec.fill, spec.align) = ('0', Some(Align::AfterSign));
            }
            rest = after;
        }
        let (width, after) = leading_number(rest)?;
        spec.width = width.unwrap_or(0);
        rest = after;
        if let Some(group) = rest.chars().next().filter(|c| ",_".contains(*c)) {
            spec.group = Some(group);
            rest = &rest[1..];
        }
        if let Some(after) = rest.strip_prefix('.') {
            let (precision, after) = leading_number(after)?;
            spec.precision = Some(precision.ok_or_else(|| Error::new("Format specifier missing precision"))?);
            rest = after;
        }
        let mut letters = rest.chars();
        spec.kind = letters.next();
        crate::ensure!(letters.next().is_none(), "Invalid format specifier '{text}'");
        Ok(spec)
    }

    /// Appends a value in this format.
    pub fn write(&self, value: &Value, out: &mut Writer) -> Result<()> {
        match (value.defined()?, self.kind) {
            (Value::Float(f), _) => self.write_float(*f, out),
            (Value::Int(n), Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) => self.write_float(*n as f64, out),
            (Value::Int(n), _) => self.write_int(*n, out),
            (Value::Bool(b), Some(kind)) if kind != 's' => {
                Self { kind: Some(kind), ..self.clone() }.write(&Value::Int(i128::from(*b)), out)
            }
            (_, None | Some('s')) => {
                let text = print::to_text(value, out.budget())?;
                let end = self.precision.map_or(text.as_str().len(), |n| text.byte_of(n));
                self.pad("", &text.as_str()[..end], Align::Left, out)
            }
            (other, Some(kind)) => {
                crate::bail!("Unknown format code '{kind}' for object of type '{}'", other.type_name())
            }
        }
    }

    fn write_int(&self, n: i128, out: &mut Writer) -> Result<()> {
        let size = n.unsigned_abs();
        let (prefix, digits, group) = match self.kind {
            None | Some('d' | 'n' | 'i' | 'u') => ("", size.to_string(), 3),
            Some('x') => ("0x", format!("{size:x}"), 4),
            Some('X') => ("0X", format!("{size:X}"), 4),
            Some('o') => ("0o", format!("{size:o}"), 4),
            Some('b') => ("0b", format!("{size:b}"), 4),
            Some('c') => {
                let c = u32::try_from(n).ok().and_then(char::from_u32);
                let Some(c) = c else { crate::bail!("%c arg not in range(0x110000)") };
                return self.pad("", c.encode_utf8(&mut [0; 4]), Align::Left, out);
            }
            Some(kind) => crate::bail!("Unknown format code '{kind}' for object of type 'int'"),
        };
        let prefix = if self.alternate { prefix } else { "" };
        let digits = format!("{}{digits}", "0".repeat(self.precision.unwrap_or(0).saturating_sub(digits.len())));
        let sign = self.sign_of(n < 0).to_owned() + prefix;
        self.pad(&sign, &grouped(&digits, self.group, group), Align::Right, out)
    }

    fn write_float(&self, f: f64, out: &mut Writer) -> Result<()> {
        let size = f.abs();
        let precision = self.precision.unwrap_or(6);
        let upper = self.kind.is_some_and(char::is_uppercase);
        let digits = match self.kind {
            _ if !f.is_finite() => print::float(size),
            None if self.precision.is_none() => print::float(size),
            Some('f' | 'F') => format!("{size:.precision$}"),
            Some('%') => format!("{:.precision$}%", size * 100.0),
            Some('e' | 'E') => scientific(size, precision),
            None | Some('g' | 'G' | 'n') => general(size, precision.max(1), self.alternate),
            Some(kind) => crate::bail!("Unknown format code '{kind}' for object of type 'float'"),
        };
        let digits = if upper { digits.to_uppercase() } else { digits };
        let (whole, rest) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
        let sign = self.sign_of(f.is_sign_negative() && !f.is_nan());
        self.pad(sign, &(grouped(whole, self.group, 3) + rest), Align::Right, out)
    }

    fn sign_of(&self, negative: bool) -> &'static str {
        match self.sign {
            _ if negative => "-",
            '+' => "+",
            ' ' => " ",
            _ => "",
        }
    }

    /// Appends a sign and a body, padded to the width.
    pub fn pad(&self, sign: &str, body: &str, default: Align, out: &mut Writer) -> Result<()> {
        let missing = self.width.saturating_sub(sign.len() + body.chars().count());
        let align = self.align.unwrap_or(default);
        let (before, between, after) = match align {
            Align::Left => (0, 0, missing),
            Align::Right => (missing, 0, 0),
            Align::Center => (missing / 2, 0, missing - missing / 2),
            Align::AfterSign => (0, missing, 0),
        };
        out.fill(self.fill, before)?;
        out.push(sign)?;
        out.fill(self.fill, between)?;
        out.push(body)?;
        out.fill(self.fill, after)
    }
}

/// Digits with a sign between groups, from the right.
fn grouped(digits: &str, sign: Option<char>, size: usize) -> String {
    let Some(sign) = sign else { return digits.to_owned() };
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(size) {
            out.push(sign);
        }
        out.push(c);
    }
    out
}

/// A float with an exponent of two digits at least.
fn scientific(f: f64, precision: usize) -> String {
    let text = format!("{f:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// A float with so many significant digits, without trailing zeros.
fn general(f: f64, precision: usize, keep_zeros: bool) -> String {
    let with_exponent = scientific(f, precision - 1);
    let exponent: i64 = with_exponent.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let trim = |digits: &str| match digits.contains('.') && !keep_zeros {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if exponent < -4 || exponent >= precision as i64 {
        let (digits, exponent) = with_exponent.split_once('e').unwrap_or((&with_exponent, "+00"));
        return trim(digits) + "e" + exponent;
    }
    let decimals = usize::try_from(precision as i64 - 1 - exponent).unwrap_or(0);
    trim(&format!("{f:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::jinja::budget::Budget;

    #[test]
    fn numbers_and_texts_are_formatted_as_in_python() {
        let budget = Budget::default();
        let write = |spec: &str, value: &Value| {
            let mut out = Writer::new(&budget);
            Spec::parse(spec).and_then(|spec| spec.write(value, &mut out)).map(|()| out.into_string())
        };
        for (spec, n, text) in [
            ("05d", 42, "00042"),
            ("+,d", 1_234_567, "+1,234,567"),
            ("#x", 255, "0xff"),
            ("^7", 42, "  42   "),
            ("*<5", -1, "-1***"),
            ("=+6", 7, "+    7"),
            (".2f", 3, "3.00"),
            ("b", 5, "101"),
        ] {
            assert_eq!(write(spec, &Value::Int(n)).unwrap(), text, "{spec}");
        }
        for (spec, f, text) in [
            (".2f", 2.5, "2.50"),
            ("8.3f", -1.5, "  -1.500"),
            (".3e", 12345.678, "1.235e+04"),
            ("g", 0.00001234, "1.234e-05"),
            (".3g", 1234.5, "1.23e+03"),
            (".1%", 0.256, "25.6%"),
            ("", 1.5, "1.5"),
            (",.1f", 12345.67, "12,345.7"),
        ] {
            assert_eq!(write(spec, &Value::Float(f)).unwrap(), text, "{spec}");
        }
        assert_eq!(write(">5.2", &Value::text("abc", &budget).unwrap()).unwrap(), "   ab");
        assert!(write("999999999d", &Value::Int(1)).is_err());
        assert!(write("d", &Value::text("a", &budget).unwrap()).is_err());
    }
}
