//! Parses expressions into the syntax tree, with Jinja2's precedence.
//!
//! The parser is recursive. It counts how deeply expressions and statements lie in each other, and
//! how long a chain of operators is, so that neither it nor the interpreter overflows the stack.

use super::ast::{Binary, CallArgs, Comparison, Expr, FilterCall, Macro, Name};
use super::lexer::{Token, TokenKind};
use super::value::{Text, Value};
use crate::error::Result;
use std::collections::HashMap;

/// Expressions and statements inside each other.
const MAX_NESTING: usize = 150;
/// Operators, filters, attributes and calls in one tag.
const MAX_CHAIN: usize = 1000;

/// The parser's place in the tokens, and what it has found.
pub struct Parser<'s> {
    tokens: Vec<Token<'s>>,
    at: usize,
    nesting: usize,
    chain: usize,
    pub names: Vec<String>,
    known_names: HashMap<&'s str, Name>,
    pub macros: Vec<Macro>,
}

type Parse<'s, T> = fn(&mut Parser<'s>) -> Result<T>;

impl<'s> Parser<'s> {
    /// A parser at the first token.
    pub fn new(tokens: Vec<Token<'s>>) -> Self {
        Self { tokens, at: 0, nesting: 0, chain: 0, names: Vec::new(), known_names: HashMap::new(), macros: Vec::new() }
    }

    /// The next token, if there is one.
    pub fn peek(&self) -> Option<&TokenKind<'s>> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    /// Takes the next token.
    pub fn next(&mut self) -> Option<TokenKind<'s>> {
        let token = self.tokens.get(self.at)?.kind.clone();
        self.at += 1;
        Some(token)
    }

    /// The line of the next token.
    pub fn line(&self) -> u32 {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        token.map_or(1, |token| token.line)
    }

    /// Whether the next token is this sign.
    pub fn at_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(TokenKind::Sign(s)) if *s == sign)
    }

    /// Takes the sign if it comes next.
    pub fn skip_sign(&mut self, sign: &str) -> bool {
        let found = self.at_sign(sign);
        self.at += usize::from(found);
        found
    }

    /// Whether the next token is this word.
    pub fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(TokenKind::Name(name)) if *name == word)
    }

    /// Takes the word if it comes next.
    pub fn skip_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        self.at += usize::from(found);
        found
    }

    /// Takes the sign, or fails.
    pub fn expect_sign(&mut self, sign: &str) -> Result<()> {
        if self.skip_sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("'{sign}'"))) }
    }

    /// Takes a name, or fails.
    pub fn expect_name(&mut self) -> Result<&'s str> {
        match self.peek() {
            Some(TokenKind::Name(name)) => {
                let name = *name;
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// The error about the next token.
    pub fn unexpected(&self, expected: &str) -> crate::error::Error {
        let found = match self.peek() {
            None => "the end of the template".to_owned(),
            Some(TokenKind::Data(_)) => "text".to_owned(),
            Some(TokenKind::PrintBegin) => "'{{'".to_owned(),
            Some(TokenKind::PrintEnd) => "'}}'".to_owned(),
            Some(TokenKind::BlockBegin) => "'{%'".to_owned(),
            Some(TokenKind::BlockEnd) => "'%}'".to_owned(),
            Some(TokenKind::Name(name)) => format!("'{name}'"),
            Some(TokenKind::Text(_)) => "a quoted text".to_owned(),
            Some(TokenKind::Int(_) | TokenKind::Float(_)) => "a number".to_owned(),
            Some(TokenKind::Sign(sign)) => format!("'{sign}'"),
        };
        crate::error::Error::new(format!("unexpected {found}, expected {expected}"))
    }

    /// The number of a name.
    pub fn name(&mut self, name: &'s str) -> Name {
        let next = self.names.len() as Name;
        let number = *self.known_names.entry(name).or_insert(next);
        if number == next {
            self.names.push(name.to_owned());
        }
        number
    }

    /// Parses something that lies in something else.
    pub fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.nesting += 1;
        crate::ensure!(self.nesting <= MAX_NESTING, "the template nests its parts more than {MAX_NESTING} deep");
        let parsed = parse(self)?;
        self.nesting -= 1;
        Ok(parsed)
    }

    /// The place of the next token.
    pub fn place(&self) -> usize {
        self.at
    }

    /// The number of `word` if it occurs between `place` and the next token.
    pub fn mentioned_since(&mut self, place: usize, word: &'static str) -> Option<Name> {
        let found = self.tokens[place..self.at].iter().any(|token| token.kind == TokenKind::Name(word));
        found.then(|| self.name(word))
    }

    /// Starts a tag, in which chains are counted anew.
    pub fn start_tag(&mut self) {
        self.chain = 0;
    }

    fn link(&mut self) -> Result<()> {
        self.chain += 1;
        crate::ensure!(self.chain <= MAX_CHAIN, "a tag chains more than {MAX_CHAIN} operations");
        Ok(())
    }

    /// An expression, with a conditional.
    pub fn expression(&mut self) -> Result<Expr> {
        self.nested(Self::conditional)
    }

    fn conditional(&mut self) -> Result<Expr> {
        let mut value = self.or()?;
        while self.skip_word("if") {
            self.link()?;
            let condition = self.or()?;
            let otherwise = if self.skip_word("else") { Some(self.nested(Self::conditional)?) } else { None };
            value = Expr::If(Box::new((condition, value, otherwise)));
        }
        Ok(value)
    }

    /// An expression without a conditional.
    pub fn or(&mut self) -> Result<Expr> {
        let mut left = self.and()?;
        while self.skip_word("or") {
            self.link()?;
            left = Expr::Or(Box::new((left, self.and()?)));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut left = self.not()?;
        while self.skip_word("and") {
            self.link()?;
            left = Expr::And(Box::new((left, self.not()?)));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_word("not") {
            return Ok(Expr::Not(Box::new(self.nested(Self::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Some(TokenKind::Sign("==")) => Comparison::Equal,
                Some(TokenKind::Sign("!=")) => Comparison::NotEqual,
                Some(TokenKind::Sign("<")) => Comparison::Less,
                Some(TokenKind::Sign("<=")) => Comparison::LessOrEqual,
                Some(TokenKind::Sign(">")) => Comparison::Greater,
                Some(TokenKind::Sign(">=")) => Comparison::GreaterOrEqual,
                Some(TokenKind::Name("in")) => Comparison::In,
                Some(TokenKind::Name("not"))
                    if matches!(self.tokens.get(self.at + 1), Some(Token { kind: TokenKind::Name("in"), .. })) =>
                {
                    self.at += 1;
                    Comparison::NotIn
                }
                _ => break,
            };
            self.at += 1;
            self.link()?;
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn chain_of(&mut self, signs: &[(&str, Binary)], operand: Parse<'s, Expr>) -> Result<Expr> {
        let mut left = operand(self)?;
        while let Some((_, binary)) = signs.iter().find(|(sign, _)| self.at_sign(sign)) {
            self.at += 1;
            self.link()?;
            left = Expr::Binary(*binary, Box::new((left, operand(self)?)));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Expr> {
        self.chain_of(&[("+", Binary::Add), ("-", Binary::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.at_sign("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_sign("~") {
            self.link()?;
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Result<Expr> {
        let signs =
            [("*", Binary::Multiply), ("/", Binary::Divide), ("//", Binary::FloorDivide), ("%", Binary::Remainder)];
        self.chain_of(&signs, Self::power)
    }

    fn power(&mut self) -> Result<Expr> {
        self.chain_of(&[("**", Binary::Power)], Self::signed_and_filtered)
    }

    fn signed_and_filtered(&mut self) -> Result<Expr> {
        let value = self.signed()?;
        self.filtered(value)
    }

    fn signed(&mut self) -> Result<Expr> {
        let value = if self.skip_sign("-") {
            Expr::Negative(Box::new(self.nested(Self::signed)?))
        } else if self.skip_sign("+") {
            Expr::Positive(Box::new(self.nested(Self::signed)?))
        } else {
            self.primary()?
        };
        self.postfix(value)
    }

    /// A literal, a name, or something in brackets.
    fn primary(&mut self) -> Result<Expr> {
        Ok(match self.peek() {
            Some(TokenKind::Name(name)) => {
                let name = *name;
                self.at += 1;
                match name {
                    "true" | "True" => Expr::Const(Value::Bool(true)),
                    "false" | "False" => Expr::Const(Value::Bool(false)),
                    "none" | "None" => Expr::Const(Value::None),
                    name => Expr::Name(self.name(name)),
                }
            }
            Some(TokenKind::Text(_)) => {
                let mut whole = String::new();
                while let Some(TokenKind::Text(part)) = self.peek() {
                    whole.push_str(part);
                    self.at += 1;
                }
                Expr::Const(Value::Text(Text::constant(&whole)))
            }
            Some(TokenKind::Int(n)) => {
                let value = Value::Int(*n);
                self.at += 1;
                Expr::Const(value)
            }
            Some(TokenKind::Float(f)) => {
                let value = Value::Float(*f);
                self.at += 1;
                Expr::Const(value)
            }
            Some(TokenKind::Sign("(")) => {
                self.at += 1;
                let inner = self.nested(|parser| parser.tuple(Self::conditional, &[], true))?;
                self.expect_sign(")")?;
                inner
            }
            Some(TokenKind::Sign("[")) => {
                self.at += 1;
                Expr::List(self.items("]", Self::expression)?)
            }
            Some(TokenKind::Sign("{")) => {
                self.at += 1;
                Expr::Dict(self.items("}", |parser| {
                    let key = parser.expression()?;
                    parser.expect_sign(":")?;
                    Ok((key, parser.expression()?))
                })?)
            }
            _ => return Err(self.unexpected("an expression")),
        })
    }

    /// Items between commas, up to the closing sign.
    fn items<T>(&mut self, close: &str, item: Parse<'s, T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.skip_sign(close) {
            if !items.is_empty() {
                self.expect_sign(",")?;
                if self.skip_sign(close) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// One expression, or a tuple without brackets. It ends before the words in `ends`.
    pub fn tuple(&mut self, item: Parse<'s, Expr>, ends: &[&str], may_be_empty: bool) -> Result<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            let at_end = matches!(self.peek(), Some(TokenKind::PrintEnd | TokenKind::BlockEnd | TokenKind::Sign(")")))
                || ends.iter().any(|word| self.at_word(word));
            if at_end {
                break;
            }
            items.push(item(self)?);
            if !self.skip_sign(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            Some(only) if !is_tuple => Ok(only),
            Some(last) => {
                items.push(last);
                Ok(Expr::Tuple(items))
            }
            None if may_be_empty => Ok(Expr::Tuple(items)),
            None => Err(self.unexpected("an expression")),
        }
    }

    /// The attributes, subscripts and calls after a value.
    fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            if self.skip_sign(".") {
                value = match self.next() {
                    Some(TokenKind::Name(name)) => Expr::Attribute(Box::new(value), Text::constant(name)),
                    Some(TokenKind::Int(n)) => Expr::Item(Box::new((value, Expr::Const(Value::Int(n))))),
                    _ => crate::bail!("expected a name or a number after '.'"),
                };
            } else if self.skip_sign("[") {
                value = self.subscript(value)?;
            } else if self.skip_sign("(") {
                value = Expr::Call(Box::new(value), Box::new(self.call_args()?));
            } else {
                return Ok(value);
            }
            self.link()?;
        }
    }

    fn subscript(&mut self, value: Expr) -> Result<Expr> {
        let mut slice: [Option<Expr>; 3] = [None, None, None];
        let mut part = 0;
        let mut items = Vec::new();
        while !self.skip_sign("]") {
            if self.skip_sign(":") {
                part += 1;
                crate::ensure!(part < 3 && items.is_empty(), "a slice has at most a start, an end and a step");
            } else if !items.is_empty() || (part == 0 && slice[0].is_some()) {
                self.expect_sign(",")?;
                items.extend(slice[0].take());
                if !self.at_sign("]") {
                    items.push(self.expression()?);
                }
            } else {
                crate::ensure!(slice[part].is_none(), "expected ':' or ']' in a subscript");
                slice[part] = Some(self.expression()?);
            }
        }
        Ok(match (part, items.is_empty(), slice) {
            (0, true, [Some(index), ..]) => Expr::Item(Box::new((value, index))),
            (0, false, _) => Expr::Item(Box::new((value, Expr::Tuple(items)))),
            (0, ..) => crate::bail!("expected an expression in a subscript"),
            (_, _, slice) => Expr::Slice(Box::new((value, slice))),
        })
    }

    /// The arguments of a call after its `(`.
    fn call_args(&mut self) -> Result<CallArgs> {
        let mut args = CallArgs::default();
        let mut first = true;
        while !self.skip_sign(")") {
            if !first {
                self.expect_sign(",")?;
                if self.skip_sign(")") {
                    break;
                }
            }
            first = false;
            if self.skip_sign("*") {
                crate::ensure!(
                    args.star.is_none() && args.double_star.is_none(),
                    "a call has one '*' argument at most"
                );
                args.star = Some(self.expression()?);
            } else if self.skip_sign("**") {
                crate::ensure!(args.double_star.is_none(), "a call has one '**' argument at most");
                args.double_star = Some(self.expression()?);
            } else if let (Some(TokenKind::Name(name)), Some(Token { kind: TokenKind::Sign("="), .. })) =
                (self.peek(), self.tokens.get(self.at + 1))
            {
                let name = (*name).to_owned();
                self.at += 2;
                args.named.push((name, self.expression()?));
            } else {
                crate::ensure!(
                    args.named.is_empty() && args.star.is_none() && args.double_star.is_none(),
                    "an argument without a name follows one with a name"
                );
                args.positional.push(self.expression()?);
            }
        }
        Ok(args)
    }

    /// The filters, tests and calls after a value.
    fn filtered(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            if self.skip_sign("|") {
                value = Expr::Filter(Box::new(value), Box::new(self.filter_call()?));
            } else if self.skip_word("is") {
                value = self.test(value)?;
            } else if self.skip_sign("(") {
                value = Expr::Call(Box::new(value), Box::new(self.call_args()?));
            } else {
                return Ok(value);
            }
            self.link()?;
        }
    }

    /// The name and the arguments of a filter.
    pub fn filter_call(&mut self) -> Result<FilterCall> {
        let name = self.dotted_name()?;
        let args = if self.skip_sign("(") { self.call_args()? } else { CallArgs::default() };
        Ok(FilterCall { name, args })
    }

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.expect_name()?.to_owned();
        while self.skip_sign(".") {
            name = name + "." + self.expect_name()?;
        }
        Ok(name)
    }

    fn test(&mut self, value: Expr) -> Result<Expr> {
        let negated = self.skip_word("not");
        let name = self.dotted_name()?;
        let has_argument = match self.peek() {
            Some(TokenKind::Text(_) | TokenKind::Int(_) | TokenKind::Float(_) | TokenKind::Sign("[" | "{")) => true,
            Some(TokenKind::Name(word)) => !["else", "or", "and", "if", "recursive"].contains(word),
            _ => false,
        };
        let mut args = CallArgs::default();
        if self.skip_sign("(") {
            args = self.call_args()?;
        } else if has_argument {
            crate::ensure!(!self.at_word("is"), "tests cannot be chained with 'is'");
            let argument = self.primary()?;
            args.positional.push(self.postfix(argument)?);
        }
        let test = Expr::Test(Box::new(value), Box::new(FilterCall { name, args }));
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }
}
