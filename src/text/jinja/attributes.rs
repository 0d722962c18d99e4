//! `value.name` and `value[index]` as Jinja2 looks them up.

use super::budget::Budget;
use super::methods;
use super::operators;
use super::print::{self, Writer};
use super::value::{Kind, Seq, Text, Value};
use crate::error::Result;
use std::sync::Arc;

/// `value.name`: a method, else the item of that name, else undefined.
pub fn attribute(value: &Value, name: &Text, budget: &Budget) -> Result<Value> {
    budget.spend(1)?;
    if methods::has(value.defined()?, name.as_str()) {
        return Ok(Value::Method(Arc::new((value.clone(), name.clone()))));
    }
    match operators::item(value, &Value::Text(name.clone()), budget)? {
        Some(item) => Ok(item),
        None => missing(value, &Value::Text(name.clone()), budget),
    }
}

/// `value[index]`: the item, else the method of that name, else undefined.
pub fn item(value: &Value, index: &Value, budget: &Budget) -> Result<Value> {
    budget.spend(1)?;
    if let Some(item) = operators::item(value, index, budget)? {
        return Ok(item);
    }
    match index {
        Value::Text(name) if methods::has(value, name.as_str()) => {
            Ok(Value::Method(Arc::new((value.clone(), name.clone()))))
        }
        _ => missing(value, index, budget),
    }
}

/// The undefined value of an attribute or an item that is not there.
pub fn missing(value: &Value, index: &Value, budget: &Budget) -> Result<Value> {
    let message = match index {
        Value::Text(name) if matches!(value, Value::None) => format!("'None' has no attribute '{}'", excerpt(name)),
        Value::Text(name) => format!("'{} object' has no attribute '{}'", value.type_name(), excerpt(name)),
        other => {
            let mut index = Writer::new(budget);
            print::write_repr(other, &mut index)?;
            let index = Text::new(index.into_string(), budget)?;
            let of =
                if matches!(value, Value::None) { "None".to_owned() } else { format!("{} object", value.type_name()) };
            format!("{of} has no element {}", excerpt(&index))
        }
    };
    Value::undefined(message, budget)
}

/// The start of a text, for a message.
fn excerpt(text: &Text) -> &str {
    &text.as_str()[..text.byte_of(80)]
}

/// The attribute that `map`, `sort` and their like name: `a.b.0`, or a number. They read it once and
/// look it up in many items.
pub struct Path(Seq);

impl Path {
    /// The attribute that a value names.
    pub fn new(named: &Value, budget: &Budget) -> Result<Self> {
        match named.as_str() {
            Some(parts) => Self::parse(parts, budget),
            None => Ok(Self(Seq::new(Kind::List, vec![named.clone()], budget)?)),
        }
    }

    /// The attribute `a.b.0`.
    pub fn parse(parts: &str, budget: &Budget) -> Result<Self> {
        budget.scan(parts.len())?;
        budget.check_items(parts.split('.').count())?;
        let index = |part: &str| match part.parse::<i128>() {
            Ok(n) if part.bytes().all(|b| b.is_ascii_digit()) => Ok(Value::Int(n)),
            _ => Value::text(part, budget),
        };
        Ok(Self(Seq::new(Kind::List, parts.split('.').map(index).collect::<Result<_>>()?, budget)?))
    }

    /// The attribute of an item.
    pub fn of(&self, value: &Value, budget: &Budget) -> Result<Value> {
        let mut value = value.clone();
        for index in self.0.items() {
            value = item(&value, index, budget)?;
        }
        Ok(value)
    }
}
