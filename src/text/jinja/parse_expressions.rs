//! Parses expressions into the syntax tree, with Jinja2's precedence.

use super::ast::{Binary, CallArgs, Comparison, Expr, FilterCall};
use super::lexer::TokenKind;
use super::parser::Parser;
use super::value::{Text, Value};
use crate::error::Result;

type Parse<'s, T> = fn(&mut Parser<'s>) -> Result<T>;

impl<'s> Parser<'s> {
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
                Some(TokenKind::Name("not")) if matches!(self.peek_second(), Some(TokenKind::Name("in"))) => {
                    self.skip();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.skip();
            self.link()?;
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn chain_of(&mut self, signs: &[(&str, Binary)], operand: Parse<'s, Expr>) -> Result<Expr> {
        let mut left = operand(self)?;
        while let Some((_, binary)) = signs.iter().find(|(sign, _)| self.at_sign(sign)) {
            self.skip();
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
                self.skip();
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
                    self.skip();
                }
                Expr::Const(Value::Text(Text::constant(&whole)))
            }
            Some(TokenKind::Int(n)) => {
                let value = Value::Int(*n);
                self.skip();
                Expr::Const(value)
            }
            Some(TokenKind::Float(f)) => {
                let value = Value::Float(*f);
                self.skip();
                Expr::Const(value)
            }
            Some(TokenKind::Sign("(")) => {
                self.skip();
                let inner = self.nested(|parser| parser.tuple(Self::conditional, &[], true))?;
                self.expect_sign(")")?;
                inner
            }
            Some(TokenKind::Sign("[")) => {
                self.skip();
                Expr::List(self.items("]", Self::expression)?)
            }
            Some(TokenKind::Sign("{")) => {
                self.skip();
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
                    "a call has at most one '*' argument"
                );
                args.star = Some(self.expression()?);
            } else if self.skip_sign("**") {
                crate::ensure!(args.double_star.is_none(), "a call has at most one '**' argument");
                args.double_star = Some(self.expression()?);
            } else if let (Some(TokenKind::Name(name)), Some(TokenKind::Sign("="))) = (self.peek(), self.peek_second())
            {
                let name = (*name).to_owned();
                self.skip();
                self.skip();
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
