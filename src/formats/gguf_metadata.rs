//! Key-value metadata of a GGUF file, with typed getters whose errors name the key and the value.
//!
//! This file knows no keys: `checkpoint` reads the model's configuration from the metadata and
//! `text` the tokenizer. `gguf_parse` parses the bytes.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// A metadata value. Integers and floats are widened to 64 bits.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    U64(u64),
    I64(i64),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Vec<Value>),
}

impl Value {
    /// Describes the value for error messages.
    pub fn describe(&self) -> String {
        match self {
            Value::U64(v) => format!("the integer {v}"),
            Value::I64(v) => format!("the integer {v}"),
            Value::F64(v) => format!("the number {v}"),
            Value::Bool(v) => format!("{v}"),
            Value::String(v) => format!("the string {:?}", v.chars().take(60).collect::<String>()),
            Value::Array(v) => format!("an array of {} values", v.len()),
        }
    }

    fn as_u64(&self) -> Option<u64> {
        match self {
            Value::U64(v) => Some(*v),
            Value::I64(v) => u64::try_from(*v).ok(),
            _ => None,
        }
    }

    fn as_i64(&self) -> Option<i64> {
        match self {
            Value::I64(v) => Some(*v),
            Value::U64(v) => i64::try_from(*v).ok(),
            _ => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        match self {
            Value::F64(v) => Some(*v),
            Value::U64(v) => Some(*v as f64),
            Value::I64(v) => Some(*v as f64),
            _ => None,
        }
    }

    fn as_str(&self) -> Option<&str> {
        if let Value::String(v) = self { Some(v) } else { None }
    }

    fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(v) = self { Some(*v) } else { None }
    }
}

/// All key-value pairs of a file, sorted by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// Adds a pair and returns whether the key is new.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> bool {
        self.0.insert(key.into(), value).is_none()
    }

    /// The value of a key, if there is one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Whether the key exists. The typed getters below fail if it does not.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// All pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The value as a non-negative integer.
    pub fn u64(&self, key: &str) -> Result<u64> {
        self.one(key, "a non-negative integer", Value::as_u64)
    }

    /// The value as an integer, stored in any integer type.
    pub fn i64(&self, key: &str) -> Result<i64> {
        self.one(key, "an integer", Value::as_i64)
    }

    /// The value as a number, stored as an integer or a float.
    pub fn f64(&self, key: &str) -> Result<f64> {
        self.one(key, "a number", Value::as_f64)
    }

    /// The value as a boolean.
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.one(key, "true or false", Value::as_bool)
    }

    /// The value as a string.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.one(key, "a string", Value::as_str)
    }

    /// The value as an array of strings.
    pub fn strings(&self, key: &str) -> Result<Vec<&str>> {
        self.many(key, "strings", Value::as_str)
    }

    /// The value as an array of integers.
    pub fn i64s(&self, key: &str) -> Result<Vec<i64>> {
        self.many(key, "integers", Value::as_i64)
    }

    /// The value as an array of numbers.
    pub fn f64s(&self, key: &str) -> Result<Vec<f64>> {
        self.many(key, "numbers", Value::as_f64)
    }

    fn required(&self, key: &str) -> Result<&Value> {
        self.get(key).ok_or_else(|| Error::new(format!("GGUF metadata has no key '{key}'")))
    }

    fn one<'a, T>(&'a self, key: &str, expected: &str, cast: impl Fn(&'a Value) -> Option<T>) -> Result<T> {
        let value = self.required(key)?;
        cast(value).ok_or_else(|| {
            Error::new(format!("GGUF metadata key '{key}': expected {expected}, found {}", value.describe()))
        })
    }

    fn many<'a, T>(&'a self, key: &str, expected: &str, cast: impl Fn(&'a Value) -> Option<T>) -> Result<Vec<T>> {
        let wrong = |found: String| {
            Error::new(format!("GGUF metadata key '{key}': expected an array of {expected}, found {found}"))
        };
        let value = self.required(key)?;
        let Value::Array(values) = value else { return Err(wrong(value.describe())) };
        values
            .iter()
            .enumerate()
            .map(|(i, v)| cast(v).ok_or_else(|| wrong(format!("{} at index {i}", v.describe()))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        let mut m = Metadata::default();
        m.insert("n", Value::U64(7));
        m.insert("minus", Value::I64(-7));
        m.insert("eps", Value::F64(1e-5));
        m.insert("name", Value::String("llama".into()));
        m.insert("flag", Value::Bool(true));
        m.insert("mixed", Value::Array(vec![Value::U64(1), Value::String("x".into())]));
        m.insert("ids", Value::Array(vec![Value::I64(-1), Value::U64(2)]));
        m
    }

    #[test]
    fn typed_getters_convert_what_fits() {
        let m = sample();
        assert_eq!(m.u64("n").unwrap(), 7);
        assert_eq!(m.f64("n").unwrap(), 7.0);
        assert_eq!(m.f64("eps").unwrap(), 1e-5);
        assert_eq!(m.str("name").unwrap(), "llama");
        assert!(m.bool("flag").unwrap());
        assert_eq!(m.i64s("ids").unwrap(), [-1, 2]);
        assert_eq!(m.f64s("ids").unwrap(), [-1.0, 2.0]);
    }

    #[test]
    fn errors_name_the_key_and_what_was_found() {
        let m = sample();
        for (e, words) in [
            (m.u64("absent").unwrap_err(), ["absent", "no key"]),
            (m.u64("minus").unwrap_err(), ["minus", "-7"]),
            (m.str("n").unwrap_err(), ["'n'", "integer 7"]),
            (m.strings("mixed").unwrap_err(), ["mixed", "index 0"]),
            (m.i64s("mixed").unwrap_err(), ["mixed", "\"x\" at index 1"]),
            (m.strings("name").unwrap_err(), ["array of strings", "llama"]),
        ] {
            let text = e.to_string();
            assert!(words.iter().all(|w| text.contains(w)), "{text}");
        }
    }
}
