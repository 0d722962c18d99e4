//! Jinja2's filters by name.

use super::args::{Args, flag_or};
use super::budget::Budget;
use super::json;
use super::list_filters;
use super::text_filters;
use super::value::Value;
use crate::error::Result;

/// `value | name(args)`.
pub fn apply(name: &str, value: &Value, args: Args, budget: &Budget) -> Result<Value> {
    budget.enter()?;
    budget.spend(args.positional.len() + args.named.len())?;
    let result = by_name(name, value, args, budget);
    budget.leave();
    result
}

fn by_name(name: &str, value: &Value, args: Args, budget: &Budget) -> Result<Value> {
    match name {
        "default" | "d" => {
            let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
            let missing = matches!(value, Value::Undefined(_)) || (flag_or(&boolean, false) && !value.is_true());
            return if missing { default.map_or_else(|| Value::text("", budget), Ok) } else { Ok(value.clone()) };
        }
        "tojson" => return json::to_json(value, args, budget),
        _ => {}
    }
    // Both take the arguments, so the second needs its own.
    if let Some(result) = list_filters::apply(name, value, args.clone(), budget, apply)? {
        return Ok(result);
    }
    match text_filters::apply(name, value, args, budget)? {
        Some(result) => Ok(result),
        None => crate::bail!("No filter named '{name}'."),
    }
}
