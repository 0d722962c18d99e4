//! The functions that every template sees and that need nothing from the interpreter.

use super::args::{Args, required};
use super::budget::Budget;
use super::print;
use super::strftime;
use super::value::{Dict, Function, Range, Value};
use crate::error::{Error, Result};

/// Longest `range`, as in the sandbox of Jinja2.
const MAX_RANGE: usize = 100_000;

/// The function of a name.
pub fn by_name(name: &str) -> Option<Function> {
    Some(match name {
        "range" => Function::Range,
        "dict" => Function::Dict,
        "namespace" => Function::Namespace,
        "cycler" => Function::Cycler,
        "joiner" => Function::Joiner,
        "raise_exception" => Function::RaiseException,
        "strftime_now" => Function::StrftimeNow,
        _ => return None,
    })
}

/// `range(stop)` or `range(start, stop, step)`.
pub fn range(args: Args) -> Result<Value> {
    let numbers: Vec<i128> = args
        .positional
        .iter()
        .map(|value| match value.defined()?.as_int() {
            Some(n) => Ok(n.clamp(-(1 << 60), 1 << 60)),
            None => Err(Error::new(format!("'{}' object cannot be interpreted as an integer", value.type_name()))),
        })
        .collect::<Result<_>>()?;
    crate::ensure!(args.named.is_empty(), "range() takes no keyword arguments");
    let (start, stop, step) = match numbers[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] => (start, stop, step),
        _ => crate::bail!("range expected 1 to 3 arguments, got {}", numbers.len()),
    };
    crate::ensure!(step != 0, "range() arg 3 must not be zero");
    let range = Range { start: start as i64, stop: stop as i64, step: step as i64 };
    crate::ensure!(range.count() <= MAX_RANGE, "Range too big. The sandbox blocks ranges larger than {MAX_RANGE}.");
    Ok(Value::Range(range))
}

/// `dict(pairs, name=value)`.
pub fn dict(args: Args, budget: &Budget) -> Result<Value> {
    crate::ensure!(args.positional.len() <= 1, "dict expected at most 1 argument, got {}", args.positional.len());
    let mut pairs = match args.positional.first() {
        None => Vec::new(),
        Some(Value::Dict(dict)) => dict.entries().to_vec(),
        Some(list) => {
            let pair = |item: Value| match &item.iterate(budget)?[..] {
                [key, value] => Ok((key.clone(), value.clone())),
                other => Err(Error::new(format!("an element of dict() has {} values instead of 2", other.len()))),
            };
            list.defined()?.iterate(budget)?.into_iter().map(pair).collect::<Result<_>>()?
        }
    };
    for (name, value) in args.named {
        pairs.push((Value::text(name, budget)?, value));
    }
    Ok(Value::Dict(Dict::new(pairs, budget)?))
}

/// `raise_exception(message)`: the template's own refusal.
pub fn raise_exception(args: Args, budget: &Budget) -> Result<Value> {
    let [message] = args.bind("raise_exception", ["message"])?;
    let message = required(message, "raise_exception", "message")?;
    crate::bail!("{}", print::to_text(&message, budget)?.as_str())
}

/// `strftime_now(format)`.
pub fn strftime_now(args: Args, budget: &Budget) -> Result<Value> {
    let [format] = args.bind("strftime_now", ["format"])?;
    let format = required(format, "strftime_now", "format")?;
    match format.defined()?.as_str() {
        Some(format) => Value::text(strftime::now(format)?, budget),
        None => crate::bail!("strftime_now needs a string, not '{}'", format.type_name()),
    }
}
