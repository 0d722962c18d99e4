//! Evaluates expressions of a template.

use super::args::Args;
use super::ast::{CallArgs, Expr, FilterCall, Name};
use super::attributes;
use super::budget::Budget;
use super::conditions;
use super::filters;
use super::methods;
use super::operators;
use super::value::{Dict, Object, Text, Value};
use crate::error::Result;

/// The services of the interpreter that expressions use.
pub trait Scope {
    /// The value of a name.
    fn variable(&self, name: Name) -> Result<Value>;
    /// An attribute of one of the interpreter's objects, if it has it.
    fn attribute(&self, object: Object, name: &str) -> Result<Option<Value>>;
    /// Calls one of the interpreter's objects.
    fn call(&mut self, object: Object, args: Args) -> Result<Value>;
}

/// The value of an expression.
pub fn evaluate(expr: &Expr, scope: &mut dyn Scope, budget: &Budget) -> Result<Value> {
    budget.enter()?;
    let value = by_kind(expr, scope, budget)?;
    budget.leave();
    Ok(value)
}

fn by_kind(expr: &Expr, scope: &mut dyn Scope, budget: &Budget) -> Result<Value> {
    let mut value_of = |expr: &Expr| evaluate(expr, scope, budget);
    Ok(match expr {
        Expr::Const(value) => value.clone(),
        Expr::Name(name) => scope.variable(*name)?,
        Expr::List(items) => Value::list(items.iter().map(value_of).collect::<Result<_>>()?, budget)?,
        Expr::Tuple(items) => Value::tuple(items.iter().map(value_of).collect::<Result<_>>()?, budget)?,
        Expr::Dict(pairs) => {
            let pair = |(key, value): &(Expr, Expr)| Ok((value_of(key)?, value_of(value)?));
            Value::Dict(Dict::new(pairs.iter().map(pair).collect::<Result<_>>()?, budget)?)
        }
        Expr::Attribute(of, name) => {
            let of = value_of(of)?;
            attribute(&of, name, scope, budget)?
        }
        Expr::Item(parts) => {
            let (of, index) = (value_of(&parts.0)?, value_of(&parts.1)?);
            match (&of, &index) {
                (Value::Object(_), Value::Text(name)) => attribute(&of, name, scope, budget)?,
                _ => attributes::item(&of, &index, budget)?,
            }
        }
        Expr::Slice(parts) => {
            let (of, [start, end, step]) = &**parts;
            let of = value_of(of)?;
            let mut bound = |bound: &Option<Expr>| bound.as_ref().map(&mut value_of).transpose();
            operators::slice(&of, [bound(start)?, bound(end)?, bound(step)?], budget)?
        }
        Expr::Not(value) => Value::Bool(!value_of(value)?.is_true()),
        Expr::Negative(value) => operators::signed(true, &value_of(value)?)?,
        Expr::Positive(value) => operators::signed(false, &value_of(value)?)?,
        Expr::Binary(operator, sides) => {
            let (a, b) = (value_of(&sides.0)?, value_of(&sides.1)?);
            operators::binary(*operator, &a, &b, budget)?
        }
        Expr::And(sides) => {
            let a = value_of(&sides.0)?;
            if a.is_true() { value_of(&sides.1)? } else { a }
        }
        Expr::Or(sides) => {
            let a = value_of(&sides.0)?;
            if a.is_true() { a } else { value_of(&sides.1)? }
        }
        Expr::Concat(parts) => {
            let parts: Vec<Value> = parts.iter().map(value_of).collect::<Result<_>>()?;
            operators::concat(&parts, budget)?
        }
        Expr::Compare(first, rest) => {
            let mut left = value_of(first)?;
            let mut holds = true;
            for (comparison, right) in rest {
                let right = value_of(right)?;
                holds = operators::compare(*comparison, &left, &right, budget)?;
                left = right;
                if !holds {
                    break;
                }
            }
            Value::Bool(holds)
        }
        Expr::If(parts) => {
            let (condition, then, otherwise) = &**parts;
            match (value_of(condition)?.is_true(), otherwise) {
                (true, _) => value_of(then)?,
                (false, Some(otherwise)) => value_of(otherwise)?,
                (false, None) => {
                    let message = "the inline if-expression evaluated to false and no else section was defined.";
                    Value::undefined(message, budget)?
                }
            }
        }
        Expr::Filter(of, call) => {
            let of = value_of(of)?;
            filter(of, call, scope, budget)?
        }
        Expr::Test(of, call) => {
            let of = value_of(of)?;
            let args = arguments(&call.args, scope, budget)?;
            Value::Bool(conditions::holds(&call.name, &of, args, budget)?)
        }
        Expr::Call(callee, args) => {
            let callee = value_of(callee)?;
            let args = arguments(args, scope, budget)?;
            call(&callee, args, scope, budget)?
        }
    })
}

fn attribute(of: &Value, name: &Text, scope: &mut dyn Scope, budget: &Budget) -> Result<Value> {
    let Value::Object(object) = of else { return attributes::attribute(of, name, budget) };
    match scope.attribute(*object, name.as_str())? {
        Some(value) => Ok(value),
        None => attributes::missing(of, &Value::Text(name.clone()), budget),
    }
}

/// Calls a value.
pub fn call(callee: &Value, args: Args, scope: &mut dyn Scope, budget: &Budget) -> Result<Value> {
    match callee.defined()? {
        Value::Method(method) => methods::call(&method.0, &method.1, args, budget),
        Value::Object(object) => scope.call(*object, args),
        other => crate::bail!("'{}' object is not callable", other.type_name()),
    }
}

/// The values of a call's arguments.
pub fn arguments(args: &CallArgs, scope: &mut dyn Scope, budget: &Budget) -> Result<Args> {
    let mut values = Args::default();
    for arg in &args.positional {
        values.positional.push(evaluate(arg, scope, budget)?);
    }
    for (name, arg) in &args.named {
        values.named.push((name.clone(), evaluate(arg, scope, budget)?));
    }
    if let Some(more) = &args.star {
        values.positional.extend(evaluate(more, scope, budget)?.iterate(budget)?);
    }
    if let Some(more) = &args.double_star {
        let more = evaluate(more, scope, budget)?;
        let Value::Dict(dict) = more.defined()? else { crate::bail!("the argument after ** must be a mapping") };
        budget.spend(dict.entries().len())?;
        for (key, value) in dict.entries() {
            let Some(name) = key.as_str() else { crate::bail!("keywords must be strings") };
            budget.scan(name.len())?;
            values.named.push((name.to_owned(), value.clone()));
        }
    }
    Ok(values)
}

/// Applies a filter to a value.
pub fn filter(value: Value, call: &FilterCall, scope: &mut dyn Scope, budget: &Budget) -> Result<Value> {
    let args = arguments(&call.args, scope, budget)?;
    filters::apply(&call.name, &value, args, budget)
}
