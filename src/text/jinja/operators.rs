//! Python's operators on values: arithmetic, comparison, containment, subscripts and slices.
//!
//! Each pays for its work and for the size of its result before it starts.

use super::ast::{Binary, Comparison};
use super::budget::Budget;
use super::percent_format;
use super::print::{self, Writer};
use super::value::{Kind, Range, Seq, Text, Value};
use crate::error::{Error, Result};
use std::cmp::Ordering;

fn unsupported(sign: &str, a: &Value, b: &Value) -> Error {
    Error::new(format!("unsupported operand type(s) for {sign}: '{}' and '{}'", a.type_name(), b.type_name()))
}

fn overflow() -> Error {
    Error::new("an integer of the template has more than 38 digits")
}

/// An arithmetic operator.
pub fn binary(operator: Binary, a: &Value, b: &Value, budget: &Budget) -> Result<Value> {
    let (a, b) = (a.defined()?, b.defined()?);
    match (operator, a, b) {
        (Binary::Add, Value::Text(x), Value::Text(y)) => {
            let is_markup = x.is_markup() || y.is_markup();
            let mut out = Writer::new(budget);
            for side in [x, y] {
                match is_markup && !side.is_markup() {
                    true => print::write_escaped(side.as_str(), &mut out)?,
                    false => out.push(side.as_str())?,
                }
            }
            return if is_markup { Ok(Value::Text(Text::markup(out.into_string(), budget)?)) } else { out.finish() };
        }
        (Binary::Add, Value::Text(_), other) => {
            crate::bail!("can only concatenate str (not \"{}\") to str", other.type_name())
        }
        (Binary::Add, Value::Seq(x), Value::Seq(y))
            if x.kind() == y.kind() && matches!(x.kind(), Kind::List | Kind::Tuple) =>
        {
            budget.check_items(x.items().len() + y.items().len())?;
            let items = [x.items(), y.items()].concat();
            return Ok(Value::Seq(Seq::new(x.kind(), items, budget)?));
        }
        (Binary::Multiply, Value::Text(_) | Value::Seq(_), n)
        | (Binary::Multiply, n, Value::Text(_) | Value::Seq(_)) => {
            let repeated = if matches!(a, Value::Text(_) | Value::Seq(_)) { a } else { b };
            let Some(n) = n.as_int() else { return Err(unsupported("*", a, b)) };
            return repeat(repeated, usize::try_from(n.max(0)).unwrap_or(usize::MAX), budget);
        }
        (Binary::Remainder, Value::Text(format), values) => return percent_format::format(format, values, budget),
        _ => {}
    }
    budget.spend(1)?;
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return integers(operator, x, y);
    }
    let (Some(x), Some(y)) = (a.as_float(), b.as_float()) else {
        let sign = match operator {
            Binary::Add => "+",
            Binary::Subtract => "-",
            Binary::Multiply => "*",
            Binary::Divide => "/",
            Binary::FloorDivide => "//",
            Binary::Remainder => "%",
            Binary::Power => "** or pow()",
        };
        return Err(unsupported(sign, a, b));
    };
    floats(operator, x, y).map(Value::Float)
}

fn integers(operator: Binary, x: i128, y: i128) -> Result<Value> {
    let whole = match operator {
        Binary::Add => x.checked_add(y),
        Binary::Subtract => x.checked_sub(y),
        Binary::Multiply => x.checked_mul(y),
        Binary::Divide => return floats(operator, x as f64, y as f64).map(Value::Float),
        Binary::FloorDivide | Binary::Remainder if y == 0 => crate::bail!("integer division or modulo by zero"),
        Binary::FloorDivide => x.checked_div(y).map(|q| q - i128::from(x % y != 0 && (x < 0) != (y < 0))),
        Binary::Remainder => x.checked_rem(y).map(|r| if r != 0 && (r < 0) != (y < 0) { r + y } else { r }),
        Binary::Power if y < 0 => return floats(operator, x as f64, y as f64).map(Value::Float),
        Binary::Power => match x {
            0 | 1 => Some(if y == 0 { 1 } else { x }),
            -1 => Some(if y % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
        },
    };
    whole.map(Value::Int).ok_or_else(overflow)
}

fn floats(operator: Binary, x: f64, y: f64) -> Result<f64> {
    let divides = matches!(operator, Binary::Divide | Binary::FloorDivide | Binary::Remainder);
    crate::ensure!(!divides || y != 0.0, "division by zero");
    Ok(match operator {
        Binary::Add => x + y,
        Binary::Subtract => x - y,
        Binary::Multiply => x * y,
        Binary::Divide => x / y,
        Binary::FloorDivide => (x / y).floor(),
        Binary::Remainder => {
            let r = x % y;
            if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r }
        }
        Binary::Power => x.powf(y),
    })
}

fn repeat(value: &Value, n: usize, budget: &Budget) -> Result<Value> {
    match value {
        Value::Text(text) => {
            let bytes = text.as_str().len().saturating_mul(n);
            budget.check_text(bytes)?;
            budget.scan(bytes)?;
            let n = if bytes == 0 { 0 } else { n };
            Value::text(text.as_str().repeat(n), budget)
        }
        Value::Seq(seq) if matches!(seq.kind(), Kind::List | Kind::Tuple) => {
            budget.check_items(seq.items().len().saturating_mul(n))?;
            let n = if seq.items().is_empty() { 0 } else { n };
            let items: Vec<Value> = std::iter::repeat_n(seq.items(), n).flatten().cloned().collect();
            Ok(Value::Seq(Seq::new(seq.kind(), items, budget)?))
        }
        other => Err(unsupported("*", other, &Value::Int(0))),
    }
}

/// `-value` or `+value`.
pub fn signed(negative: bool, value: &Value) -> Result<Value> {
    Ok(match (value.defined()?.as_int(), value) {
        (Some(n), _) => Value::Int(if negative { n.checked_neg().ok_or_else(overflow)? } else { n }),
        (None, Value::Float(f)) => Value::Float(if negative { -f } else { *f }),
        _ => crate::bail!("bad operand type for unary {}: '{}'", if negative { '-' } else { '+' }, value.type_name()),
    })
}

/// A comparison, or containment.
pub fn compare(comparison: Comparison, a: &Value, b: &Value, budget: &Budget) -> Result<bool> {
    Ok(match comparison {
        Comparison::Equal => equal(a, b, budget)?,
        Comparison::NotEqual => !equal(a, b, budget)?,
        Comparison::In => contains(b, a, budget)?,
        Comparison::NotIn => !contains(b, a, budget)?,
        ordered => {
            let sign = match ordered {
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
                Comparison::Greater => ">",
                _ => ">=",
            };
            let order = order(a, b, sign, budget)?;
            match ordered {
                Comparison::Less => order == Some(Ordering::Less),
                Comparison::LessOrEqual => order.is_some_and(Ordering::is_le),
                Comparison::Greater => order == Some(Ordering::Greater),
                _ => order.is_some_and(Ordering::is_ge),
            }
        }
    })
}

/// Python's `==`.
pub fn equal(a: &Value, b: &Value, budget: &Budget) -> Result<bool> {
    budget.spend(1)?;
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Text(x), Value::Text(y)) => {
            budget.scan(x.as_str().len().min(y.as_str().len()))?;
            x.as_str() == y.as_str()
        }
        (Value::Seq(x), Value::Seq(y)) => {
            let alike = x.kind() == y.kind() && matches!(x.kind(), Kind::List | Kind::Tuple | Kind::Keys | Kind::Items);
            x.is(y) || alike && x.items().len() == y.items().len() && all_equal(x.items(), y.items(), budget)?
        }
        (Value::Dict(x), Value::Dict(y)) => {
            x.is(y)
                || x.entries().len() == y.entries().len() && {
                    let mut same = true;
                    for (key, value) in x.entries() {
                        budget.spend(1)?;
                        same = match y.get(key, budget)? {
                            Some(other) => equal(value, other, budget)?,
                            None => false,
                        };
                        if !same {
                            break;
                        }
                    }
                    same
                }
        }
        (Value::Range(x), Value::Range(y)) => {
            let n = x.count();
            n == y.count() && (n == 0 || x.at(0) == y.at(0) && x.at(n - 1) == y.at(n - 1))
        }
        (Value::Object(x), Value::Object(y)) => x == y,
        _ => match (a.as_int(), b.as_int()) {
            (Some(x), Some(y)) => x == y,
            _ => matches!((a.as_float(), b.as_float()), (Some(x), Some(y)) if x == y),
        },
    })
}

fn all_equal(a: &[Value], b: &[Value], budget: &Budget) -> Result<bool> {
    for (x, y) in a.iter().zip(b) {
        if !equal(x, y, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The order of two values; `None` for NaN. Fails for values that Python cannot order.
pub fn order(a: &Value, b: &Value, sign: &str, budget: &Budget) -> Result<Option<Ordering>> {
    budget.spend(1)?;
    let (a, b) = (a.defined()?, b.defined()?);
    match (a, b) {
        (Value::Text(x), Value::Text(y)) => {
            budget.scan(x.as_str().len().min(y.as_str().len()))?;
            return Ok(Some(x.as_str().cmp(y.as_str())));
        }
        (Value::Seq(x), Value::Seq(y)) if x.kind() == y.kind() && matches!(x.kind(), Kind::List | Kind::Tuple) => {
            for (x, y) in x.items().iter().zip(y.items()) {
                if !equal(x, y, budget)? {
                    return order(x, y, sign, budget);
                }
            }
            return Ok(Some(x.items().len().cmp(&y.items().len())));
        }
        _ => {}
    }
    match (a.as_int(), b.as_int()) {
        (Some(x), Some(y)) => Ok(Some(x.cmp(&y))),
        _ => match (a.as_float(), b.as_float()) {
            (Some(x), Some(y)) => Ok(x.partial_cmp(&y)),
            _ => {
                crate::bail!("'{sign}' not supported between instances of '{}' and '{}'", a.type_name(), b.type_name())
            }
        },
    }
}

/// The places of the items in order, equal ones as they were. Unlike with `sort_by`, the comparison
/// may fail, and one that contradicts itself does no harm.
pub fn sorted_places<T>(
    items: &[T],
    compare: impl Fn(&T, &T) -> Result<Ordering>,
    budget: &Budget,
) -> Result<Vec<usize>> {
    let _held = budget.hold(items.len() * 2 * size_of::<usize>())?;
    let is_before = |a: &usize, b: &usize| Ok::<_, Error>(compare(&items[*a], &items[*b])?.is_lt());
    let mut places: Vec<usize> = (0..items.len()).collect();
    let mut n = 1;
    while n < places.len() {
        let mut merged = Vec::with_capacity(places.len());
        for pair in places.chunks(2 * n) {
            let (mut left, mut right) = pair.split_at(n.min(pair.len()));
            let in_order = match (left.last(), right.first()) {
                (Some(last), Some(first)) => !is_before(first, last)?,
                _ => true,
            };
            while let (false, [a, left_rest @ ..], [b, right_rest @ ..]) = (in_order, left, right) {
                if is_before(b, a)? {
                    merged.push(*b);
                    right = right_rest;
                } else {
                    merged.push(*a);
                    left = left_rest;
                }
            }
            merged.extend(left);
            merged.extend(right);
        }
        places = merged;
        n *= 2;
    }
    Ok(places)
}

/// The order of two values for sorting, where NaN has no place.
pub fn sort_order(a: &Value, b: &Value, budget: &Budget) -> Result<Ordering> {
    order(a, b, "<", budget)?.ok_or_else(|| Error::new("cannot order nan"))
}

/// Python's `item in container`.
pub fn contains(container: &Value, item: &Value, budget: &Budget) -> Result<bool> {
    match container {
        Value::Undefined(_) => Ok(false),
        Value::Text(text) => {
            let Some(part) = item.defined()?.as_str() else {
                crate::bail!("'in <string>' requires string as left operand, not {}", item.type_name());
            };
            budget.scan(text.as_str().len())?;
            Ok(text.as_str().contains(part))
        }
        Value::Dict(dict) => Ok(dict.get(item, budget)?.is_some()),
        Value::Seq(seq) => {
            for other in seq.take(usize::MAX) {
                if equal(other, item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Range(range) => {
            budget.spend(range.count())?;
            Ok(item.as_int().is_some_and(|n| (0..range.count()).any(|i| range.at(i) == n)))
        }
        other => crate::bail!("argument of type '{}' is not iterable", other.type_name()),
    }
}

/// The element of a sequence at a place, which counts from the end if it is negative.
fn place(index: i128, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i128 } else { index };
    usize::try_from(index).ok().filter(|i| *i < len)
}

/// `value[index]` as Python has it: `None` where it raises an `IndexError`, a `KeyError` or a
/// `TypeError`.
pub fn item(value: &Value, index: &Value, budget: &Budget) -> Result<Option<Value>> {
    match (value.defined()?, index) {
        (Value::Dict(dict), key) if !matches!(key, Value::Undefined(_)) => {
            Ok(dict.get(key, budget).ok().flatten().cloned())
        }
        (Value::Seq(seq), index) if matches!(seq.kind(), Kind::List | Kind::Tuple) => {
            Ok(index.as_int().and_then(|n| place(n, seq.items().len())).map(|i| seq.items()[i].clone()))
        }
        (Value::Range(range), index) => {
            Ok(index.as_int().and_then(|n| place(n, range.count())).map(|i| Value::Int(range.at(i))))
        }
        (Value::Text(text), index) => {
            let Some(i) = index.as_int().and_then(|n| place(n, text.n_chars())) else { return Ok(None) };
            budget.scan(if text.n_chars() == text.as_str().len() { 0 } else { text.as_str().len() })?;
            let from = &text.as_str()[text.byte_of(i)..];
            let len = from.chars().next().map_or(0, char::len_utf8);
            Ok(Some(Value::text(&from[..len], budget)?))
        }
        _ => Ok(None),
    }
}

/// `value[start:end:step]`.
pub fn slice(value: &Value, bounds: [Option<Value>; 3], budget: &Budget) -> Result<Value> {
    let len = match value.defined()? {
        Value::Text(_) | Value::Range(_) => value.len()?,
        Value::Seq(seq) if matches!(seq.kind(), Kind::List | Kind::Tuple) => seq.items().len(),
        other => crate::bail!("'{}' object cannot be sliced", other.type_name()),
    } as i128;
    let bound = |value: &Option<Value>| match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => match value.defined()?.as_int() {
            Some(n) => Ok(Some(n.clamp(-(1 << 62), 1 << 62))),
            None => Err(Error::new("slice indices must be integers or None")),
        },
    };
    let [start, end, step] = &bounds;
    let (start, end, step) = (bound(start)?, bound(end)?, bound(step)?.unwrap_or(1));
    crate::ensure!(step != 0, "slice step cannot be zero");
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |n: Option<i128>, default: i128| match n {
        None => default,
        Some(n) if n < 0 => (n + len).clamp(low, high),
        Some(n) => n.clamp(low, high),
    };
    let start = clamp(start, if step > 0 { low } else { high });
    let end = clamp(end, if step > 0 { high } else { low });
    let n =
        if step > 0 { (end - start + step - 1).div_euclid(step) } else { (start - end - step - 1).div_euclid(-step) };
    let n = usize::try_from(n.max(0)).unwrap_or(0);
    budget.spend(n)?;
    let places = (0..n).map(|i| (start + step * i as i128) as usize);
    match value {
        Value::Text(text) => {
            let source = text.as_str();
            budget.scan(source.len())?;
            if step == 1 {
                let start = start as usize;
                return Value::text(&source[text.byte_of(start)..text.byte_of(start + n)], budget);
            }
            let _held = budget.hold(4 * source.len())?;
            let letters: Vec<char> = source.chars().collect();
            Value::text(places.map(|i| letters[i]).collect::<String>(), budget)
        }
        Value::Range(range) => {
            let at = |i: i128| {
                let number = i128::from(range.start) + i128::from(range.step) * i;
                number.clamp(i64::MIN.into(), i64::MAX.into()) as i64
            };
            let step = range.step.saturating_mul(step as i64);
            Ok(Value::Range(Range { start: at(start), stop: at(end), step }))
        }
        Value::Seq(seq) => {
            let items = places.map(|i| seq.items()[i].clone()).collect();
            Ok(Value::Seq(Seq::new(seq.kind(), items, budget)?))
        }
        _ => Ok(Value::None),
    }
}

/// The values printed one after the other: `a ~ b`.
pub fn concat(values: &[Value], budget: &Budget) -> Result<Value> {
    let mut out = Writer::new(budget);
    for value in values {
        print::write_str(value, &mut out)?;
    }
    out.finish()
}
