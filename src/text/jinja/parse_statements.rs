//! Parses a template's statements into the syntax tree.

use super::ast::{Expr, FilterCall, For, Macro, Name, Program, Statement, StatementKind, Target};
use super::lexer::{self, TokenKind};
use super::parser::Parser;
use crate::error::Result;

/// Parses a template. Fails with the line of a mistake.
pub fn parse(source: &str) -> Result<Program> {
    let source = lexer::normalize(source);
    let mut parser = Parser::new(lexer::tokens(&source)?);
    let loop_name = parser.name("loop");
    let parsed = body(&mut parser, &[]);
    let line = parser.line();
    let (body, _) = parsed.map_err(|e| e.context(format!("line {line}")))?;
    let has_generation = parser.mentioned_since(0, "generation").is_some();
    Ok(Program { body, macros: parser.macros, names: parser.names, loop_name, has_generation })
}

type Statements = Vec<Statement>;

/// Statements up to a block that starts with one of the words in `ends`; returns that word, with
/// the block's end still to come. Without `ends`, up to the end of the template.
fn body<'s>(parser: &mut Parser<'s>, ends: &[&str]) -> Result<(Statements, &'s str)> {
    let mut statements = Vec::new();
    loop {
        let line = parser.line();
        parser.start_tag();
        let kind = match parser.next() {
            None if ends.is_empty() => return Ok((statements, "")),
            None => crate::bail!("the template ends before {{% {} %}}", ends.join(" %} or {% ")),
            Some(TokenKind::Data(text)) => StatementKind::Text(text.to_owned()),
            Some(TokenKind::PrintBegin) => {
                let value = parser.tuple(Parser::expression, &[], false)?;
                match parser.next() {
                    Some(TokenKind::PrintEnd) => StatementKind::Print(value),
                    _ => crate::bail!("expected '}}}}' at the end of an expression"),
                }
            }
            Some(TokenKind::BlockBegin) => {
                let word = parser.expect_name()?;
                if ends.contains(&word) {
                    return Ok((statements, word));
                }
                statement(parser, word)?
            }
            Some(_) => crate::bail!("expected text or a tag"),
        };
        statements.push(Statement { line, kind });
    }
}

fn block_end(parser: &mut Parser) -> Result<()> {
    match parser.peek() {
        Some(TokenKind::BlockEnd) => {
            parser.next();
            Ok(())
        }
        _ => Err(parser.unexpected("'%}'")),
    }
}

/// The end of a tag, the statements after it, and the tag `end` that ends them.
fn enclosed(parser: &mut Parser, end: &str) -> Result<Statements> {
    block_end(parser)?;
    let (statements, _) = parser.nested(|parser| body(parser, &[end]))?;
    if end == "endblock" && !matches!(parser.peek(), Some(TokenKind::BlockEnd)) {
        parser.expect_name()?;
    }
    block_end(parser)?;
    Ok(statements)
}

fn statement(parser: &mut Parser, word: &str) -> Result<StatementKind> {
    Ok(match word {
        "for" => StatementKind::For(Box::new(for_loop(parser)?)),
        "if" => branches(parser)?,
        "set" => {
            let target = target(parser, true)?;
            if parser.skip_sign("=") {
                let value = parser.tuple(Parser::expression, &[], false)?;
                block_end(parser)?;
                return Ok(StatementKind::Set(target, value));
            }
            let mut filters = Vec::new();
            while parser.skip_sign("|") {
                filters.push(parser.filter_call()?);
            }
            StatementKind::SetBlock(target, filters, enclosed(parser, "endset")?)
        }
        "with" => {
            let mut values = Vec::new();
            while !matches!(parser.peek(), Some(TokenKind::BlockEnd)) {
                if !values.is_empty() {
                    parser.expect_sign(",")?;
                }
                let target = target(parser, false)?;
                parser.expect_sign("=")?;
                values.push((target, parser.expression()?));
            }
            StatementKind::With(values, enclosed(parser, "endwith")?)
        }
        "filter" => {
            let mut filters: Vec<FilterCall> = vec![parser.filter_call()?];
            while parser.skip_sign("|") {
                filters.push(parser.filter_call()?);
            }
            StatementKind::FilterBlock(filters, enclosed(parser, "endfilter")?)
        }
        "block" => {
            parser.expect_name()?;
            while parser.skip_word("scoped") || parser.skip_word("required") {}
            StatementKind::Scope(enclosed(parser, "endblock")?)
        }
        "macro" => {
            let name = parser.expect_name()?;
            let params = signature(parser)?;
            StatementKind::Macro(macro_of(parser, name, params, "endmacro")?)
        }
        "call" => {
            let params = if parser.at_sign("(") { signature(parser)? } else { Vec::new() };
            let call = parser.expression()?;
            crate::ensure!(matches!(call, Expr::Call(..)), "a call block needs a call");
            StatementKind::CallBlock(call, macro_of(parser, "caller", params, "endcall")?)
        }
        "generation" => StatementKind::Generation(enclosed(parser, "endgeneration")?),
        "break" => {
            block_end(parser)?;
            StatementKind::Break
        }
        "continue" => {
            block_end(parser)?;
            StatementKind::Continue
        }
        "print" => {
            let value = parser.tuple(Parser::expression, &[], false)?;
            block_end(parser)?;
            StatementKind::Print(value)
        }
        "extends" | "include" | "import" | "from" => {
            crate::bail!("{{% {word} %}} is not supported: a chat template has no other templates beside it")
        }
        _ => crate::bail!("encountered unknown tag '{word}'"),
    })
}

fn for_loop(parser: &mut Parser) -> Result<For> {
    let target = target(parser, false)?;
    crate::ensure!(parser.skip_word("in"), "expected 'in' after the names of a loop");
    let iter = parser.tuple(Parser::or, &["recursive"], false)?;
    let condition = if parser.skip_word("if") { Some(parser.expression()?) } else { None };
    let recursive = parser.skip_word("recursive");
    block_end(parser)?;
    let (body_, end) = parser.nested(|parser| body(parser, &["endfor", "else"]))?;
    let otherwise = match end {
        "else" => enclosed(parser, "endfor")?,
        _ => {
            block_end(parser)?;
            Vec::new()
        }
    };
    Ok(For { target, iter, condition, recursive, body: body_, otherwise })
}

/// An `if` with its `elif` and `else`. They are a list, so that many of them do not recurse.
fn branches(parser: &mut Parser) -> Result<StatementKind> {
    let mut branches = Vec::new();
    loop {
        let condition = parser.tuple(Parser::or, &[], false)?;
        block_end(parser)?;
        let (statements, end) = parser.nested(|parser| body(parser, &["elif", "else", "endif"]))?;
        branches.push((condition, statements));
        parser.start_tag();
        match end {
            "elif" => {}
            "else" => return Ok(StatementKind::If(branches, enclosed(parser, "endif")?)),
            _ => {
                block_end(parser)?;
                return Ok(StatementKind::If(branches, Vec::new()));
            }
        }
    }
}

/// What `set`, `for` or `with` assigns to.
fn target(parser: &mut Parser, with_namespace: bool) -> Result<Target> {
    let mut targets = Vec::new();
    let mut is_tuple = false;
    loop {
        if parser.skip_sign("(") {
            let inner = parser.nested(|parser| target(parser, with_namespace))?;
            parser.expect_sign(")")?;
            targets.push(inner);
        } else {
            let name = parser.expect_name()?;
            let reserved = ["true", "false", "none", "True", "False", "None"].contains(&name);
            crate::ensure!(!reserved, "cannot assign to '{name}'");
            let number = parser.name(name);
            targets.push(match with_namespace && parser.skip_sign(".") {
                true => Target::Attribute(number, parser.expect_name()?.to_owned()),
                false => Target::Name(number),
            });
        }
        if !parser.skip_sign(",") {
            break;
        }
        is_tuple = true;
        if parser.at_sign("=") || parser.at_word("in") {
            break;
        }
    }
    Ok(match targets.pop() {
        Some(only) if !is_tuple => only,
        last => {
            targets.extend(last);
            Target::Tuple(targets)
        }
    })
}

type Params = Vec<(Name, Option<Expr>)>;

/// The parameters of a macro, with their defaults.
fn signature(parser: &mut Parser) -> Result<Params> {
    parser.expect_sign("(")?;
    let mut params: Params = Vec::new();
    while !parser.skip_sign(")") {
        if !params.is_empty() {
            parser.expect_sign(",")?;
            if parser.skip_sign(")") {
                break;
            }
        }
        let name = parser.expect_name()?;
        let name = parser.name(name);
        let default = if parser.skip_sign("=") { Some(parser.expression()?) } else { None };
        let in_order = default.is_some() || params.last().is_none_or(|(_, default)| default.is_none());
        crate::ensure!(in_order, "a parameter without a default follows one with a default");
        params.push((name, default));
    }
    Ok(params)
}

/// Parses the body of a macro and returns the macro's number.
fn macro_of<'s>(parser: &mut Parser<'s>, name: &'s str, params: Params, end: &str) -> Result<usize> {
    let start = parser.place();
    let body = enclosed(parser, end)?;
    let [caller, varargs, kwargs] = ["caller", "varargs", "kwargs"].map(|word| parser.mentioned_since(start, word));
    let declared = parser.name(name);
    parser.macros.push(Macro { name: name.to_owned(), declared, params, body, caller, varargs, kwargs });
    Ok(parser.macros.len() - 1)
}
