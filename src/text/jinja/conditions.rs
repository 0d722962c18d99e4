//! Jinja2's tests: what may follow `is`.

use super::args::{Args, required};
use super::ast::Comparison;
use super::budget::Budget;
use super::operators;
use super::print;
use super::value::{Kind, Object, Value};
use crate::error::{Error, Result};

/// Whether `value is name(args)`.
pub fn holds(name: &str, value: &Value, args: Args, budget: &Budget) -> Result<bool> {
    let comparison = match name {
        "eq" | "equalto" | "==" => Some(Comparison::Equal),
        "ne" | "!=" => Some(Comparison::NotEqual),
        "lt" | "lessthan" | "<" => Some(Comparison::Less),
        "le" | "<=" => Some(Comparison::LessOrEqual),
        "gt" | "greaterthan" | ">" => Some(Comparison::Greater),
        "ge" | ">=" => Some(Comparison::GreaterOrEqual),
        "in" => Some(Comparison::In),
        _ => None,
    };
    if let Some(comparison) = comparison {
        let [other] = args.bind(name, ["other"])?;
        return operators::compare(comparison, value, &required(other, name, "other")?, budget);
    }
    if name == "divisibleby" {
        let [by] = args.bind(name, ["num"])?;
        let rest = operators::binary(super::ast::Binary::Remainder, value, &required(by, name, "num")?, budget)?;
        return Ok(!rest.is_true());
    }
    if name == "sameas" {
        let [other] = args.bind(name, ["other"])?;
        return same(value, &required(other, name, "other")?, budget);
    }
    args.bind::<0>(name, [])?;
    let number = |n: i128| match value.defined()?.as_int() {
        Some(value) => Ok::<_, Error>(value.rem_euclid(2) == n),
        None => Ok(matches!(value.as_float(), Some(f) if f.rem_euclid(2.0) == n as f64)),
    };
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.as_float().is_some(),
        "string" => matches!(value, Value::Text(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => match value {
            Value::Seq(seq) => matches!(seq.kind(), Kind::List | Kind::Tuple),
            Value::Text(_) | Value::Dict(_) | Value::Range(_) | Value::Undefined(_) => true,
            _ => false,
        },
        "iterable" => {
            matches!(value, Value::Text(_) | Value::Dict(_) | Value::Range(_) | Value::Undefined(_) | Value::Seq(_))
        }
        "callable" => {
            matches!(value, Value::Method(_) | Value::Undefined(_)) || {
                matches!(value, Value::Object(object) if !matches!(object, Object::Namespace(_) | Object::Cycler(_)))
            }
        }
        "even" => number(0)?,
        "odd" => number(1)?,
        "lower" | "upper" => {
            let text = print::to_text(value, budget)?;
            budget.spend(text.as_str().len() / 4)?;
            let other = if name == "lower" { char::is_uppercase } else { char::is_lowercase };
            text.as_str().chars().any(|c| c.is_lowercase() || c.is_uppercase()) && !text.as_str().chars().any(other)
        }
        "escaped" => false,
        _ => crate::bail!("No test named '{name}'."),
    })
}

/// Python's `is`, as far as a template can rely on it.
fn same(a: &Value, b: &Value, budget: &Budget) -> Result<bool> {
    match (a, b) {
        (Value::Seq(a), Value::Seq(b)) => Ok(a.is(b)),
        (Value::Dict(a), Value::Dict(b)) => Ok(a.is(b)),
        _ => Ok(a.type_name() == b.type_name() && operators::equal(a, b, budget)?),
    }
}
