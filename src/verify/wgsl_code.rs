//! Tokens and brackets of a WGSL text: the structure that source edits need, without a parser.

use std::collections::BTreeSet;
use std::ops::Range;

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Word,
    Number,
    Sign,
}

/// A token; comments and white space are skipped.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// First byte.
    pub start: usize,
    /// Part of a type, an attribute or a struct: no fault is planted here.
    pub inert: bool,
}

impl Token<'_> {
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// An edit of the text: byte ranges in ascending order, and their replacements.
#[derive(Clone, Debug)]
pub struct Edit {
    /// Name of the fault.
    pub operator: &'static str,
    /// Disjoint replacements.
    pub replacements: Vec<(Range<usize>, String)>,
}

impl Edit {
    pub fn one(operator: &'static str, range: Range<usize>, text: impl Into<String>) -> Self {
        Self { operator, replacements: vec![(range, text.into())] }
    }

    /// The text with the edit applied.
    pub fn apply(&self, text: &str) -> String {
        let (mut out, mut at) = (String::new(), 0);
        for (range, new) in &self.replacements {
            out.push_str(&text[at..range.start]);
            out.push_str(new);
            at = range.end;
        }
        out + &text[at..]
    }
}

/// Operators of more than one character, longest first.
const LONG_SIGNS: &[&str] = &[
    "<<=", ">>=", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "++",
    "--", "->",
];

/// Words that a list of type arguments in angle brackets may follow.
const TEMPLATED: &[&str] = &["array", "vec2", "vec3", "vec4", "var", "ptr", "bitcast", "atomic"];

/// A tokenised text.
pub struct Code<'a> {
    pub text: &'a str,
    pub tokens: Vec<Token<'a>>,
    /// For each bracket the index of its partner; for other tokens their own index.
    partner: Vec<usize>,
    /// Functions that the text declares.
    pub functions: BTreeSet<&'a str>,
}

impl<'a> Code<'a> {
    /// Tokenises a text with balanced brackets; a shader that compiles has them.
    pub fn new(text: &'a str) -> Self {
        let mut tokens = tokenise(text);
        let partner = partners(&tokens);
        mark_inert(&mut tokens, &partner);
        let declared = tokens.windows(2).filter(|w| w[0].text == "fn").map(|w| w[1].text);
        Self { text, functions: declared.collect(), partner, tokens }
    }

    /// The text of a token; empty past the last.
    pub fn at(&self, i: usize) -> &'a str {
        self.tokens.get(i).map_or("", |t| t.text)
    }

    /// The index of the matching bracket, or the index itself.
    pub fn partner(&self, i: usize) -> usize {
        self.partner[i]
    }

    /// The bytes of a non-empty range of tokens.
    pub fn bytes(&self, tokens: Range<usize>) -> Range<usize> {
        self.tokens[tokens.start].start..self.tokens[tokens.end - 1].end()
    }

    /// The source text of a range of tokens, which may be empty.
    pub fn source(&self, tokens: Range<usize>) -> &'a str {
        if tokens.is_empty() { "" } else { &self.text[self.bytes(tokens)] }
    }

    /// The comma-separated arguments of the bracket at `open`.
    pub fn arguments(&self, open: usize) -> Vec<Range<usize>> {
        let (mut found, mut first, mut i) = (Vec::new(), open + 1, open + 1);
        while i < self.partner(open) {
            if self.at(i) == "," && !self.tokens[i].inert {
                found.push(first..i);
                first = i + 1;
            }
            i = self.partner(i).max(i) + 1;
        }
        if first < i {
            found.push(first..i);
        }
        found
    }

    /// Indices of the tokens where a fault may be planted.
    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.tokens.len()).filter(|&i| !self.tokens[i].inert)
    }

    /// Whether the token ends an operand, so that an operator after it is binary.
    pub fn ends_operand(&self, i: usize) -> bool {
        let token = &self.tokens[i];
        match token.kind {
            Kind::Word => token.text != "return",
            Kind::Number => true,
            Kind::Sign => [")", "]"].contains(&token.text),
        }
    }
}

fn tokenise(text: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut at, mut templates): (Vec<Token>, _, usize) = (Vec::new(), 0, 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let opens = c == '<' && tokens.last().is_some_and(|t| TEMPLATED.contains(&t.text));
        let closes = c == '>' && templates > 0;
        let (kind, len) = if c.is_alphabetic() || c == '_' {
            (Kind::Word, rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()))
        } else if c.is_ascii_digit() {
            (Kind::Number, number_len(rest))
        } else if opens || closes {
            templates = if opens { templates + 1 } else { templates - 1 };
            (Kind::Sign, 1)
        } else {
            let long = LONG_SIGNS.iter().find(|s| rest.starts_with(**s));
            (Kind::Sign, long.map_or(c.len_utf8(), |s| s.len()))
        };
        let inert = templates > 0 || opens || closes;
        tokens.push(Token { kind, text: &rest[..len], start: at, inert });
        at += len;
    }
    tokens
}

/// Length of the number literal at the start; an exponent may have a sign.
fn number_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let hex = text.starts_with("0x");
    let part = |i: usize| {
        let exponent = !hex && i > 0 && matches!(bytes[i - 1], b'e' | b'E') && matches!(bytes[i], b'+' | b'-');
        bytes[i].is_ascii_alphanumeric() || bytes[i] == b'.' || exponent
    };
    (0..bytes.len()).find(|&i| !part(i)).unwrap_or(bytes.len())
}

fn partners(tokens: &[Token]) -> Vec<usize> {
    let mut partner: Vec<usize> = (0..tokens.len()).collect();
    let mut open = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => open.push(i),
            ")" | "]" | "}" => {
                let first = open.pop().expect("a shader's brackets are balanced");
                (partner[first], partner[i]) = (i, first);
            }
            _ => {}
        }
    }
    partner
}

/// Marks attributes, struct bodies and function signatures.
fn mark_inert(tokens: &mut [Token], partner: &[usize]) {
    let mut i = 0;
    while i < tokens.len() {
        let find = |sign: &str| (i..tokens.len()).find(|&j| tokens[j].text == sign);
        let end = match tokens[i].text {
            "@" if tokens.get(i + 2).is_some_and(|t| t.text == "(") => partner[i + 2],
            "@" => i + 1,
            "struct" => partner[find("{").expect("a struct has a body")],
            "fn" => find("{").expect("a function has a body"),
            _ => {
                i += 1;
                continue;
            }
        };
        tokens[i..=end].iter_mut().for_each(|t| t.inert = true);
        i = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_attributes_comments_and_heads_are_no_place_for_faults() {
        let text = "@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // a + b\nstruct P { n: u32 }\n\
                    fn f(a: u32) -> u32 { let b = vec4<f32>(1.0e-3) >= x[a >> 1u]; return a; }";
        let code = Code::new(text);
        let live: Vec<&str> = code.live().map(|i| code.at(i)).collect();
        assert_eq!(
            live.join(" "),
            "var x : array ; } let b = vec4 ( 1.0e-3 ) >= x [ a >> 1u ] ; return a ; }".replacen("} ", "", 1)
        );
        assert_eq!(code.functions.iter().copied().collect::<Vec<_>>(), ["f"]);
    }
}
