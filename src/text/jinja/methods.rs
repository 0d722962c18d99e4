//! The methods of Python's values, as the sandbox of transformers allows them.
//!
//! Methods that change a list or a dict are refused, as there.

use super::args::{Args, required};
use super::budget::Budget;
use super::operators;
use super::str_methods;
use super::value::{Dict, Kind, Seq, Text, Value};
use crate::error::Result;

const CHANGE_LISTS: [&str; 8] = ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
const CHANGE_DICTS: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

/// Whether a value has a method of this name.
pub fn has(value: &Value, name: &str) -> bool {
    match value {
        Value::Text(_) => str_methods::NAMES.binary_search(&name).is_ok(),
        Value::Dict(_) => ["get", "items", "keys", "values", "copy"].contains(&name) || CHANGE_DICTS.contains(&name),
        Value::Seq(seq) => match seq.kind() {
            Kind::List => ["index", "count", "copy"].contains(&name) || CHANGE_LISTS.contains(&name),
            Kind::Tuple => ["index", "count"].contains(&name),
            _ => false,
        },
        Value::Range(_) => ["index", "count"].contains(&name),
        Value::Float(_) => name == "is_integer",
        _ => false,
    }
}

/// Calls `value.name(args)` for a method that the value has.
pub fn call(value: &Value, name: &Text, args: Args, budget: &Budget) -> Result<Value> {
    let name = name.as_str();
    match value {
        Value::Text(text) => str_methods::call(text, name, args, budget),
        Value::Dict(dict) if !CHANGE_DICTS.contains(&name) => of_dict(dict, name, args, budget),
        Value::Seq(seq) if !CHANGE_LISTS.contains(&name) => of_list(value, Some(seq), name, args, budget),
        Value::Range(_) => of_list(value, None, name, args, budget),
        Value::Float(f) => {
            args.bind::<0>(name, [])?;
            Ok(Value::Bool(f.fract() == 0.0))
        }
        _ => crate::bail!("access to attribute '{name}' of '{}' object is unsafe", value.type_name()),
    }
}

fn of_dict(dict: &Dict, name: &str, args: Args, budget: &Budget) -> Result<Value> {
    if name == "get" {
        let [key, default] = args.bind(name, ["key", "default"])?;
        let key = required(key, name, "key")?;
        let found = if matches!(key, Value::Undefined(_)) { None } else { dict.get(&key, budget)?.cloned() };
        return Ok(found.or(default).unwrap_or(Value::None));
    }
    args.bind::<0>(name, [])?;
    let entries = dict.entries().iter();
    let (kind, items) = match name {
        "keys" => (Kind::Keys, entries.map(|(key, _)| key.clone()).collect()),
        "values" => (Kind::Values, entries.map(|(_, value)| value.clone()).collect()),
        "items" => {
            let pair = |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()], budget);
            (Kind::Items, entries.map(pair).collect::<Result<_>>()?)
        }
        _ => return Ok(Value::Dict(dict.clone())),
    };
    Ok(Value::Seq(Seq::new(kind, items, budget)?))
}

fn of_list(value: &Value, seq: Option<&Seq>, name: &str, args: Args, budget: &Budget) -> Result<Value> {
    if let ("copy", Some(seq)) = (name, seq) {
        args.bind::<0>(name, [])?;
        return Ok(Value::Seq(seq.clone()));
    }
    let [wanted] = args.bind(name, ["value"])?;
    let wanted = required(wanted, name, "value")?;
    let mut n = 0;
    for (i, item) in value.iterate(budget)?.iter().enumerate() {
        if operators::equal(item, &wanted, budget)? {
            if name == "index" {
                return Ok(Value::Int(i as i128));
            }
            n += 1;
        }
    }
    crate::ensure!(name == "count", "the value is not in the {}", value.type_name());
    Ok(Value::Int(n))
}
