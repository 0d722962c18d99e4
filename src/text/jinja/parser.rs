//! The parser's place in the tokens of a template, with limits on nesting and on chains of operators.
//!
//! The parser is recursive. It counts how deeply expressions and statements lie in each other, and
//! how long a chain of operators is, so that neither it nor the interpreter overflows the stack.

use super::ast::{Macro, Name};
use super::lexer::{Token, TokenKind};
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

impl<'s> Parser<'s> {
    /// A parser at the first token.
    pub fn new(tokens: Vec<Token<'s>>) -> Self {
        Self { tokens, at: 0, nesting: 0, chain: 0, names: Vec::new(), known_names: HashMap::new(), macros: Vec::new() }
    }

    /// The next token, if there is one.
    pub fn peek(&self) -> Option<&TokenKind<'s>> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    /// The token after the next one.
    pub fn peek_second(&self) -> Option<&TokenKind<'s>> {
        self.tokens.get(self.at + 1).map(|token| &token.kind)
    }

    /// Drops the next token.
    pub fn skip(&mut self) {
        self.at += 1;
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
            Some(TokenKind::Text(_)) => "a string".to_owned(),
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

    pub fn link(&mut self) -> Result<()> {
        self.chain += 1;
        crate::ensure!(self.chain <= MAX_CHAIN, "a tag chains more than {MAX_CHAIN} operations");
        Ok(())
    }
}
