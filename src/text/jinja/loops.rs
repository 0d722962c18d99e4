//! The state of a `for` loop, and the attributes of its variable `loop`.

use super::ast::For;
use super::budget::{Budget, Held};
use super::operators;
use super::value::{Object, Value};
use crate::error::Result;

/// A running loop.
pub struct Loop<'t> {
    pub node: &'t For,
    pub items: Vec<Value>,
    /// The place of the current item.
    pub at: usize,
    /// How many loops of this node run around this one, by recursion.
    pub depth: usize,
    /// The frame around the loop.
    pub frame: usize,
    pub serial: u64,
    /// The values that `loop.changed` saw last.
    seen: Option<(Vec<Value>, Held)>,
    _held: Held,
}

impl<'t> Loop<'t> {
    /// A loop over some items, before its first one.
    pub fn new(
        node: &'t For,
        items: Vec<Value>,
        depth: usize,
        frame: usize,
        serial: u64,
        budget: &Budget,
    ) -> Result<Self> {
        let held = budget.hold(items.capacity() * size_of::<Value>())?;
        Ok(Self { node, items, at: 0, depth, frame, serial, seen: None, _held: held })
    }

    /// `loop.name`; `index` is the loop's place among the running ones.
    pub fn attribute(&self, name: &str, index: usize, budget: &Budget) -> Result<Option<Value>> {
        let (at, len) = (self.at, self.items.len());
        let number = |n: usize| Value::Int(n as i128);
        let neighbour = |i: Option<usize>, which: &str| match i.and_then(|i| self.items.get(i)) {
            Some(item) => Ok(item.clone()),
            None => Value::undefined(format!("there is no {which} item"), budget),
        };
        Ok(Some(match name {
            "index" => number(at + 1),
            "index0" => number(at),
            "revindex" => number(len - at),
            "revindex0" => number(len - at - 1),
            "first" => Value::Bool(at == 0),
            "last" => Value::Bool(at + 1 == len),
            "length" => number(len),
            "depth" => number(self.depth + 1),
            "depth0" => number(self.depth),
            "previtem" => neighbour(at.checked_sub(1), "previous")?,
            "nextitem" => neighbour(Some(at + 1), "next")?,
            "cycle" => Value::Object(Object::LoopCycle(index, self.serial)),
            "changed" => Value::Object(Object::LoopChanged(index, self.serial)),
            _ => return Ok(None),
        }))
    }

    /// `loop.cycle(*values)`.
    pub fn cycle(&self, values: &[Value]) -> Result<Value> {
        crate::ensure!(!values.is_empty(), "no items for cycling given");
        Ok(values[self.at % values.len()].clone())
    }

    /// `loop.changed(*values)`: whether the values differ from those of the last call.
    pub fn changed(&mut self, values: Vec<Value>, budget: &Budget) -> Result<bool> {
        let same = match &self.seen {
            Some((seen, _)) if seen.len() == values.len() => {
                let mut same = true;
                for (a, b) in seen.iter().zip(&values) {
                    same = same && operators::equal(a, b, budget)?;
                }
                same
            }
            _ => false,
        };
        let held = budget.hold(values.capacity() * size_of::<Value>())?;
        self.seen = Some((values, held));
        Ok(!same)
    }
}
