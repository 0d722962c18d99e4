//! The values of a template: those of Python, immutable, with their memory counted.

use super::budget::{Budget, Held};
use crate::error::Result;
use serde_json::Value as Json;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Deepest nesting of lists. Printing, comparing and dropping recurse that deep.
const MAX_DEPTH: usize = 200;
/// Memory of a text or a list besides its content, in bytes.
const OVERHEAD: usize = 96;
/// Values of a tuple that is the key of a dict.
const MAX_KEY_TUPLE: usize = 16;
/// Memory of an entry of a dict, with its place in the index.
const ENTRY: usize = 160;

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// What a missing name or attribute gives, with the message of the error that its use raises.
    Undefined(Text),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Text),
    Seq(Seq),
    Dict(Dict),
    Range(Range),
    /// A method that is not called yet: the value and the name of its method.
    Method(Arc<(Value, Text)>),
    Object(Object),
}

/// Values that the interpreter keeps itself, as indices. The serial number tells a living one from
/// a later one at the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Namespace(usize),
    Loop(usize, u64),
    LoopCycle(usize, u64),
    LoopChanged(usize, u64),
    /// A macro of the program, with the frame in which it was declared.
    Macro {
        index: usize,
        frame: usize,
        serial: u64,
    },
    Cycler(usize),
    CyclerNext(usize),
    CyclerReset(usize),
    Joiner(usize),
    Function(Function),
}

/// The functions that every template sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    RaiseException,
    StrftimeNow,
}

/// A text.
#[derive(Clone, Debug)]
pub struct Text(Arc<TextInner>);

#[derive(Debug)]
struct TextInner {
    text: Box<str>,
    n_chars: usize,
    is_markup: bool,
    _held: Held,
}

impl Text {
    /// A text that pays for its memory.
    pub fn new(text: impl Into<Box<str>>, budget: &Budget) -> Result<Self> {
        Self::of(text.into(), false, budget)
    }

    /// A text that the filters `safe` and `escape` give: what is added to it is escaped.
    pub fn markup(text: impl Into<Box<str>>, budget: &Budget) -> Result<Self> {
        Self::of(text.into(), true, budget)
    }

    fn of(text: Box<str>, is_markup: bool, budget: &Budget) -> Result<Self> {
        budget.check_text(text.len())?;
        budget.scan(text.len())?;
        let held = budget.hold(OVERHEAD + text.len())?;
        Ok(Self(Arc::new(TextInner { n_chars: text.chars().count(), text, is_markup, _held: held })))
    }

    /// A text of the program itself, which is there before any render.
    pub fn constant(text: &str) -> Self {
        Self(Arc::new(TextInner {
            n_chars: text.chars().count(),
            text: text.into(),
            is_markup: false,
            _held: Held::default(),
        }))
    }

    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether what is added to the text is escaped.
    pub fn is_markup(&self) -> bool {
        self.0.is_markup
    }

    /// Number of characters.
    pub fn n_chars(&self) -> usize {
        self.0.n_chars
    }

    /// The byte at which a character starts, or the end of the text.
    pub fn byte_of(&self, char_index: usize) -> usize {
        let text = self.as_str();
        if self.n_chars() == text.len() {
            return char_index.min(text.len());
        }
        text.char_indices().nth(char_index).map_or(text.len(), |(at, _)| at)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl std::hash::Hash for Text {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// What Python would call a sequence of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    List,
    Tuple,
    Keys,
    Values,
    Items,
    /// What `map`, `select` and their like give. It can be gone through once.
    Generator,
}

/// A list, a tuple or the like.
#[derive(Clone, Debug)]
pub struct Seq(Arc<SeqInner>);

#[derive(Debug)]
struct SeqInner {
    kind: Kind,
    items: Vec<Value>,
    depth: usize,
    /// How many items of a generator are used.
    used: AtomicUsize,
    _held: Held,
}

impl Seq {
    /// A sequence that pays for its memory. Fails if it is nested too deeply.
    pub fn new(kind: Kind, items: Vec<Value>, budget: &Budget) -> Result<Self> {
        budget.check_items(items.len())?;
        budget.spend(1 + items.len())?;
        let depth = 1 + items.iter().map(Value::depth).max().unwrap_or(0);
        check_depth(depth)?;
        let held = budget.hold(OVERHEAD + items.capacity() * size_of::<Value>())?;
        Ok(Self(Arc::new(SeqInner { kind, items, depth, used: AtomicUsize::new(0), _held: held })))
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// All items, those of a generator included that were used.
    pub fn items(&self) -> &[Value] {
        &self.0.items
    }

    /// The next `n` items; a generator does not give them again.
    pub fn take(&self, n: usize) -> &[Value] {
        let items = self.items();
        if self.kind() != Kind::Generator {
            return &items[..n.min(items.len())];
        }
        let from = self.0.used.fetch_add(n.min(items.len()), Ordering::Relaxed).min(items.len());
        &items[from..from.saturating_add(n).min(items.len())]
    }

    /// Whether two handles refer to one sequence.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A dict in the order of insertion.
#[derive(Clone, Debug)]
pub struct Dict(Arc<DictInner>);

#[derive(Debug)]
struct DictInner {
    entries: Vec<(Value, Value)>,
    index: HashMap<Key, usize>,
    depth: usize,
    _held: Held,
}

/// A hashable value; equal values of different types are one key, as in Python.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    None,
    Int(i128),
    Float(u64),
    Text(Text),
    Tuple(Vec<Key>),
}

impl Key {
    /// The key of a value. Fails for a value that Python cannot hash, and for a long or nested
    /// tuple, which would take time or memory out of proportion.
    pub fn of(value: &Value, budget: &Budget) -> Result<Self> {
        Ok(match value {
            Value::None => Self::None,
            Value::Bool(b) => Self::Int(i128::from(*b)),
            Value::Int(n) => Self::Int(*n),
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 1e30 => Self::Int(*f as i128),
            Value::Float(f) => Self::Float(f.to_bits()),
            Value::Text(text) => {
                budget.scan(text.as_str().len())?;
                Self::Text(text.clone())
            }
            Value::Seq(seq) if seq.kind() == Kind::Tuple => {
                crate::ensure!(
                    seq.0.depth == 1 && seq.items().len() <= MAX_KEY_TUPLE,
                    "a tuple as a key of a dict may have {MAX_KEY_TUPLE} plain values at most"
                );
                Self::Tuple(seq.items().iter().map(|item| Self::of(item, budget)).collect::<Result<_>>()?)
            }
            other => crate::bail!("unhashable type: '{}'", other.type_name()),
        })
    }
}

impl Dict {
    /// A dict that pays for its memory. Of equal keys the last value counts, at the first place.
    pub fn new(pairs: Vec<(Value, Value)>, budget: &Budget) -> Result<Self> {
        budget.check_items(pairs.len())?;
        budget.spend(1 + pairs.len())?;
        let held = budget.hold(OVERHEAD + pairs.len() * ENTRY)?;
        let depth = 1 + pairs.iter().map(|(key, value)| key.depth().max(value.depth())).max().unwrap_or(0);
        check_depth(depth)?;
        let mut entries: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
        let mut index = HashMap::with_capacity(pairs.len());
        for (key, value) in pairs {
            match *index.entry(Key::of(&key, budget)?).or_insert(entries.len()) {
                at if at < entries.len() => entries[at].1 = value,
                _ => entries.push((key, value)),
            }
        }
        Ok(Self(Arc::new(DictInner { entries, index, depth, _held: held })))
    }

    pub fn entries(&self) -> &[(Value, Value)] {
        &self.0.entries
    }

    /// The value of a key. Fails for a key that Python cannot hash.
    pub fn get(&self, key: &Value, budget: &Budget) -> Result<Option<&Value>> {
        Ok(self.0.index.get(&Key::of(key, budget)?).map(|at| &self.0.entries[*at].1))
    }

    /// Whether two handles refer to one dict.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

fn check_depth(depth: usize) -> Result<()> {
    crate::ensure!(depth <= MAX_DEPTH, "the template nests lists more than {MAX_DEPTH} deep");
    Ok(())
}

/// The numbers of `range(start, stop, step)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: i64,
    pub stop: i64,
    pub step: i64,
}

impl Range {
    /// How many numbers there are.
    pub fn count(&self) -> usize {
        let (low, high) = if self.step > 0 { (self.start, self.stop) } else { (self.stop, self.start) };
        (high.saturating_sub(low).max(0) as u64).div_ceil(self.step.unsigned_abs()) as usize
    }

    /// The number at a place below `count`.
    pub fn at(&self, i: usize) -> i128 {
        i128::from(self.start) + i128::from(self.step) * i as i128
    }
}

impl Value {
    /// A text that pays for its memory.
    pub fn text(text: impl Into<Box<str>>, budget: &Budget) -> Result<Self> {
        Ok(Self::Text(Text::new(text, budget)?))
    }

    /// A list that pays for its memory.
    pub fn list(items: Vec<Value>, budget: &Budget) -> Result<Self> {
        Ok(Self::Seq(Seq::new(Kind::List, items, budget)?))
    }

    /// A tuple that pays for its memory.
    pub fn tuple(items: Vec<Value>, budget: &Budget) -> Result<Self> {
        Ok(Self::Seq(Seq::new(Kind::Tuple, items, budget)?))
    }

    /// A sequence that can be gone through once.
    pub fn generator(items: Vec<Value>, budget: &Budget) -> Result<Self> {
        Ok(Self::Seq(Seq::new(Kind::Generator, items, budget)?))
    }

    /// An undefined value; any use but printing and testing raises `message`.
    pub fn undefined(message: impl Into<Box<str>>, budget: &Budget) -> Result<Self> {
        Ok(Self::Undefined(Text::new(message, budget)?))
    }

    /// The value of some JSON.
    pub fn from_json(json: &Json, budget: &Budget) -> Result<Self> {
        Ok(match json {
            Json::Null => Self::None,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Self::Int(n.into()),
                (None, Some(n)) => Self::Int(n.into()),
                _ => Self::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::text(text.as_str(), budget)?,
            Json::Array(items) => {
                let items: Vec<Value> = items.iter().map(|v| Self::from_json(v, budget)).collect::<Result<_>>()?;
                Self::list(items, budget)?
            }
            Json::Object(map) => {
                let pair = |(key, value): (&String, &Json)| {
                    Ok((Self::text(key.as_str(), budget)?, Self::from_json(value, budget)?))
                };
                Self::Dict(Dict::new(map.iter().map(pair).collect::<Result<_>>()?, budget)?)
            }
        })
    }

    /// How deep lists are nested in this value; 0 for a plain one.
    pub fn depth(&self) -> usize {
        match self {
            Self::Seq(seq) => seq.0.depth,
            Self::Dict(dict) => dict.0.depth,
            Self::Method(method) => method.0.depth() + 1,
            _ => 0,
        }
    }

    /// Python's name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Seq(seq) => match seq.kind() {
                Kind::List => "list",
                Kind::Tuple => "tuple",
                Kind::Keys => "dict_keys",
                Kind::Values => "dict_values",
                Kind::Items => "dict_items",
                Kind::Generator => "generator",
            },
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::Method(_) => "builtin_function_or_method",
            Self::Object(object) => match object {
                Object::Namespace(_) => "Namespace",
                Object::Loop(..) => "LoopContext",
                Object::Macro { .. } => "Macro",
                Object::Cycler(_) => "Cycler",
                Object::Joiner(_) => "Joiner",
                Object::LoopCycle(..) | Object::LoopChanged(..) | Object::CyclerNext(_) | Object::CyclerReset(_) => {
                    "method"
                }
                Object::Function(_) => "function",
            },
        }
    }

    /// Whether Python counts the value as true.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Float(f) => *f != 0.0,
            Self::Text(text) => !text.as_str().is_empty(),
            Self::Seq(seq) => seq.kind() == Kind::Generator || !seq.items().is_empty(),
            Self::Dict(dict) => !dict.entries().is_empty(),
            Self::Range(range) => range.count() > 0,
            Self::Method(_) | Self::Object(_) => true,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// The integer; `True` and `False` are 1 and 0.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Bool(b) => Some(i128::from(*b)),
            _ => None,
        }
    }

    /// The number as a float.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(f) => Some(*f),
            other => other.as_int().map(|n| n as f64),
        }
    }

    /// The value, or the error that the use of an undefined one raises.
    pub fn defined(&self) -> Result<&Self> {
        match self {
            Self::Undefined(message) => crate::bail!("{}", message.as_str()),
            other => Ok(other),
        }
    }

    /// The items that a loop over the value goes through. Uses a generator up.
    pub fn iterate(&self, budget: &Budget) -> Result<Vec<Value>> {
        let items = match self {
            Self::Undefined(_) => Vec::new(),
            Self::Seq(seq) => {
                budget.spend(seq.items().len())?;
                seq.take(usize::MAX).to_vec()
            }
            Self::Dict(dict) => {
                budget.spend(dict.entries().len())?;
                dict.entries().iter().map(|(key, _)| key.clone()).collect()
            }
            Self::Text(text) => {
                budget.check_items(text.n_chars())?;
                let mut buffer = [0; 4];
                text.as_str()
                    .chars()
                    .map(|c| Self::text(&*c.encode_utf8(&mut buffer), budget))
                    .collect::<Result<_>>()?
            }
            Self::Range(range) => {
                budget.spend(range.count())?;
                (0..range.count()).map(|i| Self::Int(range.at(i))).collect()
            }
            other => crate::bail!("'{}' object is not iterable", other.type_name()),
        };
        Ok(items)
    }

    /// Python's `len`.
    pub fn len(&self) -> Result<usize> {
        Ok(match self {
            Self::Undefined(_) => 0,
            Self::Text(text) => text.n_chars(),
            Self::Seq(seq) if seq.kind() != Kind::Generator => seq.items().len(),
            Self::Dict(dict) => dict.entries().len(),
            Self::Range(range) => range.count(),
            other => crate::bail!("object of type '{}' has no len()", other.type_name()),
        })
    }
}
