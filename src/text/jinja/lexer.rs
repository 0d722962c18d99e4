//! Cuts a template into tokens, with the white-space control that transformers sets.
//!
//! A block tag takes the newline after it (`trim_blocks`) and the spaces before it on its line
//! (`lstrip_blocks`). One newline at the end of the template is dropped.

use super::print::is_space;
use crate::error::Result;

/// A token, with its line (from 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Token<'s> {
    pub kind: TokenKind<'s>,
    pub line: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind<'s> {
    /// Text between tags.
    Data(&'s str),
    PrintBegin,
    PrintEnd,
    BlockBegin,
    BlockEnd,
    Name(&'s str),
    Text(String),
    Int(i128),
    Float(f64),
    Sign(&'static str),
}

/// Signs, the longer ones first.
const SIGNS: [&str; 25] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",",
];

/// The template with the line ends of Unix and without the last one, as the lexer expects it.
pub fn normalize(source: &str) -> String {
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

/// The tokens of a normalized template.
pub fn tokens(source: &str) -> Result<Vec<Token<'_>>> {
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new() };
    lexer.run().map_err(|e| e.context(format!("line {}", lexer.line)))?;
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    tokens: Vec<Token<'s>>,
}

/// The white-space control of a tag's begin or end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    Default,
    Strip,
    Keep,
}

fn control(text: &str) -> Control {
    match text.as_bytes().first() {
        Some(b'-') => Control::Strip,
        Some(b'+') => Control::Keep,
        _ => Control::Default,
    }
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn advance(&mut self, n_bytes: usize) {
        let passed = &self.rest()[..n_bytes];
        self.line += passed.bytes().filter(|b| *b == b'\n').count() as u32;
        self.at += n_bytes;
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.advance(rest.len() - rest.trim_start_matches(is_space).len());
    }

    fn push(&mut self, kind: TokenKind<'s>) {
        self.tokens.push(Token { kind, line: self.line });
    }

    /// Whether what comes next stands at the start of a line.
    fn line_starts(&self) -> bool {
        self.at == 0 || self.source.as_bytes()[self.at - 1] == b'\n'
    }

    fn run(&mut self) -> Result<()> {
        while self.at < self.source.len() {
            let rest = self.rest();
            let tag = rest
                .match_indices('{')
                .map(|(at, _)| at)
                .find(|at| matches!(rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')));
            let Some(tag) = tag else {
                self.push(TokenKind::Data(rest));
                return Ok(());
            };
            let sign = control(&rest[tag + 2..]);
            let kind = rest.as_bytes()[tag + 1];
            self.data(tag, sign, kind != b'{');
            let begin = 2 + usize::from(sign != Control::Default);
            match kind {
                b'#' => self.comment(begin)?,
                b'%' => match raw_begin(&rest[tag + begin..]) {
                    Some((len, strip)) => {
                        self.advance(begin + len);
                        self.raw(strip)?;
                    }
                    None => {
                        self.push(TokenKind::BlockBegin);
                        self.advance(begin);
                        self.tag(true)?;
                    }
                },
                _ => {
                    self.push(TokenKind::PrintBegin);
                    self.advance(begin);
                    self.tag(false)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the text before a tag, without the white space that the tag removes.
    fn data(&mut self, n_bytes: usize, sign: Control, is_block: bool) {
        let text = &self.rest()[..n_bytes];
        let kept = match sign {
            Control::Strip => text.trim_end_matches(is_space),
            Control::Default if is_block => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let blank = text[line..].chars().all(is_space);
                if blank && (line > 0 || self.line_starts()) { &text[..line] } else { text }
            }
            _ => text,
        };
        if !kept.is_empty() {
            self.push(TokenKind::Data(kept));
        }
        self.advance(n_bytes);
    }

    fn comment(&mut self, begin: usize) -> Result<()> {
        let text = &self.rest()[begin..];
        let Some((text, _)) = text.split_once("#}") else { crate::bail!("a comment has no end: '#}}' is missing") };
        let sign = text.strip_suffix(['-', '+']).map_or(Control::Default, |before| control(&text[before.len()..]));
        self.advance(begin + text.len() + 2);
        self.after_tag(sign);
        Ok(())
    }

    /// Removes the white space after the end of a block tag.
    fn after_tag(&mut self, sign: Control) {
        match sign {
            Control::Strip => self.skip_spaces(),
            Control::Default if self.rest().starts_with('\n') => self.advance(1),
            _ => {}
        }
    }

    /// The content and the end of a raw block.
    fn raw(&mut self, strip: bool) -> Result<()> {
        if strip {
            self.skip_spaces();
        }
        let rest = self.rest();
        for (at, _) in rest.match_indices("{%") {
            let sign = control(&rest[at + 2..]);
            let inner = &rest[at + 2 + usize::from(sign != Control::Default)..];
            let after =
                inner.trim_start_matches(is_space).strip_prefix("endraw").map(|s| s.trim_start_matches(is_space));
            let Some(after) = after else { continue };
            let end = control(after);
            let Some(after) = after[usize::from(end != Control::Default)..].strip_prefix("%}") else { continue };
            self.data(at, sign, true);
            self.advance(rest.len() - at - after.len());
            self.after_tag(end);
            return Ok(());
        }
        crate::bail!("a raw block has no end: {{% endraw %}} is missing")
    }

    /// The tokens of a tag, up to its end.
    fn tag(&mut self, is_block: bool) -> Result<()> {
        let end = if is_block { "%}" } else { "}}" };
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            self.skip_spaces();
            let rest = self.rest();
            if rest.is_empty() {
                return Ok(()); // the parser misses the end
            }
            let sign = control(rest);
            let signed = sign == Control::Strip || (is_block && sign == Control::Keep);
            if open.is_empty() && rest[usize::from(signed)..].starts_with(end) {
                self.push(if is_block { TokenKind::BlockEnd } else { TokenKind::PrintEnd });
                self.advance(2 + usize::from(signed));
                match is_block {
                    true => self.after_tag(sign),
                    false if signed => self.skip_spaces(),
                    false => {}
                }
                return Ok(());
            }
            let first = rest.chars().next().expect("the rest is not empty");
            if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphabetic() || first == '_' {
                let name = &rest[..rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())];
                self.push(TokenKind::Name(name));
                self.advance(name.len());
            } else if first == '\'' || first == '"' {
                self.text(first)?;
            } else {
                let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) else {
                    crate::bail!("unexpected character '{first}'");
                };
                self.balance(sign, &mut open)?;
                self.push(TokenKind::Sign(sign));
                self.advance(sign.len());
            }
        }
    }

    fn balance(&self, sign: &'static str, open: &mut Vec<&'static str>) -> Result<()> {
        match sign {
            "{" => open.push("}"),
            "[" => open.push("]"),
            "(" => open.push(")"),
            "}" | "]" | ")" => match open.pop() {
                None => crate::bail!("unexpected '{sign}'"),
                Some(wanted) => crate::ensure!(wanted == sign, "unexpected '{sign}', expected '{wanted}'"),
            },
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let digits = |text: &str, is_digit: fn(&char) -> bool| {
            let mut end = 0;
            for (at, c) in text.char_indices() {
                match c {
                    '_' if text[at + 1..].starts_with(|c: char| is_digit(&c)) && at > 0 => {}
                    c if is_digit(&c) => end = at + 1,
                    _ => break,
                }
            }
            end
        };
        let decimal = |text: &str| digits(text, char::is_ascii_digit);
        let radix = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => Some((16, digits(&rest[2..], char::is_ascii_hexdigit))),
            Some("0o") => Some((8, digits(&rest[2..], |c| ('0'..='7').contains(c)))),
            Some("0b") => Some((2, digits(&rest[2..], |c| ('0'..='1').contains(c)))),
            _ => None,
        };
        let too_large = || crate::error::Error::new("an integer is too large");
        if let Some((radix, len)) = radix.filter(|(_, len)| *len > 0) {
            let n = i128::from_str_radix(&rest[2..2 + len].replace('_', ""), radix).map_err(|_| too_large())?;
            self.push(TokenKind::Int(n));
            self.advance(2 + len);
            return Ok(());
        }
        let whole = decimal(rest);
        let mut len = whole;
        let after_dot = self.at > 0 && self.source.as_bytes()[self.at - 1] == b'.';
        if !after_dot {
            if rest[len..].starts_with('.') {
                let fraction = decimal(&rest[len + 1..]);
                len += if fraction > 0 { 1 + fraction } else { 0 };
            }
            if let Some(exponent) = rest[len..].strip_prefix(['e', 'E']) {
                let sign = usize::from(exponent.starts_with(['+', '-']));
                let n = decimal(&exponent[sign..]);
                len += if n > 0 { 1 + sign + n } else { 0 };
            }
        }
        let number = rest[..len].replace('_', "");
        self.push(match len == whole {
            true => TokenKind::Int(number.parse().map_err(|_| too_large())?),
            false => TokenKind::Float(number.parse().map_err(|_| too_large())?),
        });
        self.advance(len);
        Ok(())
    }

    fn text(&mut self, quote: char) -> Result<()> {
        let rest = self.rest();
        let mut out = String::new();
        let mut letters = rest[1..].char_indices();
        while let Some((at, c)) = letters.next() {
            if c == quote {
                self.push(TokenKind::Text(out));
                self.advance(at + 2);
                return Ok(());
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            let Some((_, escape)) = letters.next() else { break };
            let (skip, piece) = unescape(escape, letters.as_str())?;
            match piece {
                Some(c) => out.push(c),
                None if escape == '\n' => {}
                None => out.extend(['\\', escape]),
            }
            for _ in 0..skip {
                letters.next();
            }
        }
        crate::bail!("a string has no end: {quote} is missing")
    }
}

/// The length of `raw` and the end of its tag at the start of `text`, and whether it strips.
fn raw_begin(text: &str) -> Option<(usize, bool)> {
    let after = text.trim_start_matches(is_space).strip_prefix("raw")?.trim_start_matches(is_space);
    let strip = after.starts_with('-');
    let after = after[usize::from(strip)..].strip_prefix("%}")?;
    Some((text.len() - after.len(), strip))
}

/// The character that an escape in a text stands for, with the number of characters it takes from
/// `rest`. `None` for what is no escape.
fn unescape(escape: char, rest: &str) -> Result<(usize, Option<char>)> {
    let code = |digits: &str, radix: u32| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
    let hex = |n: usize| match rest.get(..n).and_then(|digits| code(digits, 16)) {
        Some(c) => Ok((n, Some(c))),
        None => crate::bail!("the escape \\{escape} in a string needs {n} hexadecimal digits of a character"),
    };
    Ok(match escape {
        'n' => (0, Some('\n')),
        't' => (0, Some('\t')),
        'r' => (0, Some('\r')),
        'a' => (0, Some('\u{7}')),
        'b' => (0, Some('\u{8}')),
        'f' => (0, Some('\u{c}')),
        'v' => (0, Some('\u{b}')),
        '\\' | '\'' | '"' => (0, Some(escape)),
        'x' => hex(2)?,
        'u' => hex(4)?,
        'U' => hex(8)?,
        'N' => crate::bail!("the escape \\N in a string is not supported: write \\u and the number"),
        '0'..='7' => {
            let more = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
            (more, code(&format!("{escape}{}", &rest[..more]), 8))
        }
        _ => (0, None),
    })
}

#[cfg(test)]
#[path = "lexer_tests.rs"]
mod tests;
