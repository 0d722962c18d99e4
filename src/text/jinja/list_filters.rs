//! Jinja2's filters of lists and dicts.

use super::args::{Args, flag_or, int_or, required, text_or};
use super::attributes::Path;
use super::budget::Budget;
use super::conditions;
use super::operators;
use super::print::{self, Writer};
use super::str_methods;
use super::value::{Key, Kind, Value};
use crate::error::{Error, Result};
use std::cmp::Ordering;
use std::collections::HashSet;

/// Applies a filter by its name, for `map`.
pub type Apply = fn(&str, &Value, Args, &Budget) -> Result<Value>;

/// Applies a filter of lists or dicts; `None` if there is none of this name.
pub fn apply(name: &str, value: &Value, args: Args, budget: &Budget, filter: Apply) -> Result<Option<Value>> {
    Ok(Some(match name {
        "length" | "count" => {
            args.bind::<0>(name, [])?;
            Value::Int(value.len()? as i128)
        }
        "first" => {
            args.bind::<0>(name, [])?;
            let first = match value {
                Value::Seq(seq) => seq.take(1).first().cloned(),
                Value::Text(_) | Value::Range(_) => operators::item(value, &Value::Int(0), budget)?,
                other => other.iterate(budget)?.into_iter().next(),
            };
            first.map_or_else(|| Value::undefined("No first item, sequence was empty.", budget), Ok)?
        }
        "last" => {
            args.bind::<0>(name, [])?;
            let last = match value {
                Value::Seq(seq) if seq.kind() == Kind::Generator => {
                    crate::bail!("'generator' object is not reversible")
                }
                Value::Text(_) | Value::Range(_) => operators::item(value, &Value::Int(-1), budget)?,
                other => other.iterate(budget)?.pop(),
            };
            last.map_or_else(|| Value::undefined("No last item, sequence was empty.", budget), Ok)?
        }
        "list" => {
            args.bind::<0>(name, [])?;
            Value::list(value.iterate(budget)?, budget)?
        }
        "join" => {
            let [separator, attribute] = args.bind(name, ["d", "attribute"])?;
            let separator = separator.map_or_else(|| Value::text("", budget), Ok)?;
            let attribute = path(attribute.as_ref(), budget)?;
            let mut out = Writer::new(budget);
            for (i, item) in value.iterate(budget)?.iter().enumerate() {
                if i > 0 {
                    print::write_str(&separator, &mut out)?;
                }
                print::write_str(&of(item, attribute.as_ref(), budget)?, &mut out)?;
            }
            out.finish()?
        }
        "reverse" => {
            args.bind::<0>(name, [])?;
            if let Value::Text(text) = value {
                budget.spend(text.as_str().len() / 4)?;
                return Ok(Some(Value::text(text.as_str().chars().rev().collect::<String>(), budget)?));
            }
            let mut items = value.iterate(budget)?;
            items.reverse();
            Value::generator(items, budget)?
        }
        "sum" => {
            let [attribute, start] = args.bind(name, ["attribute", "start"])?;
            let mut sum = start.unwrap_or(Value::Int(0));
            let attribute = path(attribute.filter(|a| !matches!(a, Value::None)).as_ref(), budget)?;
            for item in value.iterate(budget)? {
                let item = of(&item, attribute.as_ref(), budget)?;
                sum = operators::binary(super::ast::Binary::Add, &sum, &item, budget)?;
            }
            sum
        }
        "min" | "max" => {
            let [case, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
            let sorted = sorted(value, attribute, flag_or(&case, false), name == "max", budget)?;
            match sorted.into_iter().next() {
                Some(item) => item,
                None => Value::undefined("No aggregated item, sequence was empty.", budget)?,
            }
        }
        "sort" => {
            let [reverse, case, attribute] = args.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            Value::list(sorted(value, attribute, flag_or(&case, false), flag_or(&reverse, false), budget)?, budget)?
        }
        "dictsort" => dict_sort(value, args, budget)?,
        "unique" => {
            let [case, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
            let (paths, case) = (sort_paths(attribute.as_ref(), budget)?, flag_or(&case, false));
            let items = value.iterate(budget)?;
            let _held = budget.hold(items.len() * 2 * size_of::<Key>())?;
            let mut seen = HashSet::new();
            let mut kept = Vec::new();
            for item in items {
                if seen.insert(Key::of(&sort_key(&item, &paths, case, budget)?.remove(0), budget)?) {
                    kept.push(item);
                }
            }
            Value::generator(kept, budget)?
        }
        "groupby" => group_by(value, args, budget)?,
        "batch" => {
            let [size, fill] = args.bind(name, ["linecount", "fill_with"])?;
            let size = usize::try_from(int_or(size, "linecount", 0)?).unwrap_or(0);
            crate::ensure!(size > 0, "batch needs a size above 0");
            let items = value.iterate(budget)?;
            let row = |row: &[Value]| padded(row.to_vec(), size, fill.as_ref(), budget);
            Value::generator(items.chunks(size).map(row).collect::<Result<_>>()?, budget)?
        }
        "slice" => {
            let [n, fill] = args.bind(name, ["slices", "fill_with"])?;
            let n = usize::try_from(int_or(n, "slices", 0)?).unwrap_or(0);
            crate::ensure!(n > 0, "slice needs a number of slices above 0");
            budget.check_items(n)?;
            let items = value.iterate(budget)?;
            let (each, longer) = (items.len() / n, items.len() % n);
            let mut rest = &items[..];
            let mut rows = Vec::new();
            for i in 0..n {
                let (row, after) = rest.split_at(each + usize::from(i < longer));
                let size = if i >= longer { each + usize::from(longer > 0) } else { 0 };
                rows.push(padded(row.to_vec(), size, fill.as_ref(), budget)?);
                rest = after;
            }
            Value::generator(rows, budget)?
        }
        "items" => {
            args.bind::<0>(name, [])?;
            let pairs = match value {
                Value::Undefined(_) => Vec::new(),
                Value::Dict(dict) => {
                    let pair = |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()], budget);
                    dict.entries().iter().map(pair).collect::<Result<_>>()?
                }
                _ => crate::bail!("Can only get item pairs from a mapping."),
            };
            Value::generator(pairs, budget)?
        }
        "map" => map(value, args, budget, filter)?,
        "select" | "reject" => {
            let wanted = name == "select";
            choose(value, args, budget, |item| Ok(item.clone()), wanted)?
        }
        "selectattr" | "rejectattr" => {
            let mut args = args;
            crate::ensure!(!args.positional.is_empty(), "{name} needs the name of an attribute");
            let path = Path::new(&args.positional.remove(0), budget)?;
            choose(value, args, budget, |item| path.of(item, budget), name == "selectattr")?
        }
        _ => return Ok(None),
    }))
}

fn path(attribute: Option<&Value>, budget: &Budget) -> Result<Option<Path>> {
    attribute.map(|attribute| Path::new(attribute, budget)).transpose()
}

/// The item, or one of its attributes.
fn of(item: &Value, attribute: Option<&Path>, budget: &Budget) -> Result<Value> {
    attribute.map_or_else(|| Ok(item.clone()), |attribute| attribute.of(item, budget))
}

fn padded(mut row: Vec<Value>, size: usize, fill: Option<&Value>, budget: &Budget) -> Result<Value> {
    if let Some(fill) = fill.filter(|fill| !matches!(fill, Value::None)) {
        budget.check_items(size)?;
        budget.spend(size)?;
        row.resize(size.max(row.len()), fill.clone());
    }
    Value::list(row, budget)
}

/// The attributes by which items are sorted: `a,b.c`, or a number. None for the items themselves.
fn sort_paths(attribute: Option<&Value>, budget: &Budget) -> Result<Vec<Path>> {
    match attribute {
        None | Some(Value::None) => Ok(Vec::new()),
        Some(Value::Text(names)) => names.as_str().split(',').map(|name| Path::parse(name, budget)).collect(),
        Some(other) => Ok(vec![Path::new(other, budget)?]),
    }
}

/// The values that sort an item; texts are in lower case unless the case matters.
fn sort_key(item: &Value, paths: &[Path], case: bool, budget: &Budget) -> Result<Vec<Value>> {
    let values = match paths {
        [] => vec![item.clone()],
        paths => paths.iter().map(|path| path.of(item, budget)).collect::<Result<_>>()?,
    };
    let lower = |value: Value| match (&value, case) {
        (Value::Text(text), false) => str_methods::call(text, "lower", Args::default(), budget),
        _ => Ok(value),
    };
    values.into_iter().map(lower).collect()
}

fn sorted(value: &Value, attribute: Option<Value>, case: bool, reverse: bool, budget: &Budget) -> Result<Vec<Value>> {
    let items = value.iterate(budget)?;
    let _held = budget.hold(items.len() * 4 * size_of::<Value>())?;
    let paths = sort_paths(attribute.as_ref(), budget)?;
    let keyed = items.into_iter().map(|item| Ok((sort_key(&item, &paths, case, budget)?, item)));
    let keyed: Vec<(Vec<Value>, Value)> = keyed.collect::<Result<_>>()?;
    let compare = |(a, _): &(Vec<Value>, Value), (b, _): &(Vec<Value>, Value)| {
        keys_in_order(a, b, budget).map(|order| if reverse { order.reverse() } else { order })
    };
    let places = operators::sorted_places(&keyed, compare, budget)?;
    Ok(places.into_iter().map(|i| keyed[i].1.clone()).collect())
}

fn keys_in_order(a: &[Value], b: &[Value], budget: &Budget) -> Result<Ordering> {
    for (a, b) in a.iter().zip(b) {
        match operators::sort_order(a, b, budget)? {
            Ordering::Equal => {}
            order => return Ok(order),
        }
    }
    Ok(Ordering::Equal)
}

fn dict_sort(value: &Value, args: Args, budget: &Budget) -> Result<Value> {
    let [case, by, reverse] = args.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let Value::Dict(dict) = value.defined()? else { crate::bail!("dictsort needs a mapping") };
    let by = match text_or(&by, "by", "key")? {
        "key" => 0,
        "value" => 1,
        _ => crate::bail!("You can only sort by either \"key\" or \"value\""),
    };
    let pair = |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()], budget);
    let pairs = Value::list(dict.entries().iter().map(pair).collect::<Result<_>>()?, budget)?;
    let sorted = sorted(&pairs, Some(Value::Int(by)), flag_or(&case, false), flag_or(&reverse, false), budget)?;
    Value::list(sorted, budget)
}

fn group_by(value: &Value, args: Args, budget: &Budget) -> Result<Value> {
    let [attribute, default, case] = args.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let attribute = required(attribute, "groupby", "attribute")?;
    let (path, case) = (Path::new(&attribute, budget)?, flag_or(&case, false));
    let key = |item: &Value| match path.of(item, budget)? {
        Value::Undefined(_) if default.is_some() => Ok::<_, Error>(default.clone().unwrap_or(Value::None)),
        key => Ok(key),
    };
    let keyed = value.iterate(budget)?.into_iter().map(|item| Value::tuple(vec![key(&item)?, item], budget));
    let keyed = Value::list(keyed.collect::<Result<_>>()?, budget)?;
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    let first = sort_paths(Some(&Value::Int(0)), budget)?;
    for pair in sorted(&keyed, Some(Value::Int(0)), case, false, budget)? {
        let plain = sort_key(&pair, &first, case, budget)?.remove(0);
        let Value::Seq(pair) = pair else { continue };
        let [key, item] = pair.items() else { continue };
        match groups.last_mut() {
            Some((last, _, items)) if operators::equal(last, &plain, budget)? => items.push(item.clone()),
            _ => groups.push((plain, key.clone(), vec![item.clone()])),
        }
    }
    let group =
        |(_, key, items): (Value, Value, Vec<Value>)| Value::tuple(vec![key, Value::list(items, budget)?], budget);
    Value::list(groups.into_iter().map(group).collect::<Result<_>>()?, budget)
}

fn map(value: &Value, mut args: Args, budget: &Budget, filter: Apply) -> Result<Value> {
    // Jinja2 takes `None` and the like for an empty list here.
    if !value.is_true() {
        return Value::generator(Vec::new(), budget);
    }
    let items = value.iterate(budget)?;
    let mapped: Vec<Value> = if args.positional.is_empty() {
        let [attribute, default] = args.bind("map", ["attribute", "default"])?;
        let attribute = required(attribute, "map", "attribute")?;
        let path = Path::new(&attribute, budget)?;
        let get = |item: &Value| match (path.of(item, budget)?, &default) {
            (Value::Undefined(_), Some(default)) => Ok(default.clone()),
            (value, _) => Ok(value),
        };
        items.iter().map(get).collect::<Result<_>>()?
    } else {
        let name = args.positional.remove(0);
        let name = name.as_str().ok_or_else(|| Error::new("map needs the name of a filter"))?;
        items.iter().map(|item| filter(name, item, args.clone(), budget)).collect::<Result<_>>()?
    };
    Value::generator(mapped, budget)
}

/// The items for which a test of `part` holds, or for which it does not.
fn choose(
    value: &Value,
    mut args: Args,
    budget: &Budget,
    part: impl Fn(&Value) -> Result<Value>,
    wanted: bool,
) -> Result<Value> {
    // As in `map`.
    if !value.is_true() {
        return Value::generator(Vec::new(), budget);
    }
    let test = if args.positional.is_empty() { None } else { Some(args.positional.remove(0)) };
    let test = match &test {
        None => None,
        Some(test) => Some(test.as_str().ok_or_else(|| Error::new("a filter needs the name of a test"))?),
    };
    let mut kept = Vec::new();
    for item in value.iterate(budget)? {
        let part = part(&item)?;
        let holds = match test {
            None => part.is_true(),
            Some(test) => conditions::holds(test, &part, args.clone(), budget)?,
        };
        if holds == wanted {
            kept.push(item);
        }
    }
    Value::generator(kept, budget)
}
