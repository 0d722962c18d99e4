//! Typed access to the fields of a JSON object; errors name the key, the expected type and the
//! value.
//!
//! Null counts as absent, as in transformers and PEFT. [`Fields::has`] distinguishes the two.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// A JSON object with typed access.
#[derive(Clone, Copy)]
pub struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The fields of a JSON value. Fails if it is not an object.
    pub fn of(value: &'a Value) -> Result<Self> {
        let object = value.as_object();
        object.map(Self).ok_or_else(|| Error::new(format!("expected a JSON object, found {}", excerpt(value))))
    }

    /// The value of a key, or `None` if it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key is present, even with the value null.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The value as a non-negative integer.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a non-negative integer", |v| v.as_u64().and_then(|v| usize::try_from(v).ok()))
    }

    /// The value as a number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// The value as true or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// The value as a string.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// The error for a value of the wrong type.
    pub fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        Error::new(format!("'{key}': expected {expected}, found {}", excerpt(found)))
    }

    fn typed<T>(&self, key: &str, expected: &str, cast: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        cast(value).map(Some).ok_or_else(|| self.wrong(key, expected, value))
    }
}

/// The value of a key that must be there.
pub fn required<T>(value: Option<T>, key: &str) -> Result<T> {
    value.ok_or_else(|| Error::new(format!("'{key}' is missing")))
}

/// The first 60 characters of a value's JSON.
pub(super) fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(60).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn null_is_absent_and_wrong_kinds_are_named() {
        let value = json!({"a": 3, "b": null, "c": "x", "d": 1.5});
        let fields = Fields::of(&value).unwrap();
        assert_eq!(fields.size("a").unwrap(), Some(3));
        assert_eq!((fields.size("b").unwrap(), fields.has("b"), fields.has("z")), (None, true, false));
        assert_eq!(fields.number("a").unwrap(), Some(3.0));
        let e = fields.size("d").unwrap_err().to_string();
        assert!(e.contains("'d'") && e.contains("1.5"), "{e}");
        assert!(fields.flag("c").is_err());
        let long = json!("é".repeat(500));
        assert!(Fields::of(&long).err().unwrap().to_string().chars().count() < 120);
    }
}
