//! Parts of a line as raw JSON text: reads them as strings and lists, and names what was found.

use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

/// Whether the value is an object.
pub fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// Whether the value is a list.
pub fn is_list(value: &RawValue) -> bool {
    value.get().starts_with('[')
}

/// Whether the value is a string.
pub fn is_string(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

/// The string in a field.
pub fn string(key: &str, value: &RawValue) -> Result<String> {
    crate::ensure!(is_string(value), "\"{key}\" is {}; expected a string", kind(value));
    serde_json::from_str(value.get()).map_err(|e| unreadable(&format!("\"{key}\""), &e))
}

/// Parses a list of T. `None` if the value is not a list or has other elements.
pub fn list<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Option<Vec<T>> {
    serde_json::from_str(value.get()).ok()
}

/// The object in a field, its keys in their order.
pub fn object(what: &str, value: &RawValue) -> Result<Map<String, Json>> {
    crate::ensure!(is_object(value), "{what} is {}; expected an object", kind(value));
    serde_json::from_str(value.get()).map_err(|e| unreadable(what, &e))
}

/// Any value in a field.
pub fn any(what: &str, value: &RawValue) -> Result<Json> {
    serde_json::from_str(value.get()).map_err(|e| unreadable(what, &e))
}

/// The error for a value that is JSON but cannot be read. Only a surrogate or deep nesting can
/// cause it.
fn unreadable(what: &str, e: &serde_json::Error) -> Error {
    let text = e.to_string();
    if text.contains("hex escape") {
        return Error::new(format!(
            "{what} holds half of a surrogate pair such as \\ud83d, which is not a character: the program that wrote it cut \
             a character in two; delete the escape or write the whole character"
        ));
    }
    Error::new(format!("{what} cannot be read ({text})"))
}

/// Describes a JSON value for error messages.
pub fn kind(value: &RawValue) -> String {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => {
            let start: String = match serde_json::from_str::<String>(text) {
                Ok(string) => string.chars().take(40).collect(),
                Err(_) => text[1..].chars().take(40).collect(),
            };
            format!("the string {start:?}")
        }
        Some(b'[') => format!("a list of {}", list::<IgnoredAny>(value).map_or(0, |list| list.len())),
        Some(b'{') => "an object".to_owned(),
        Some(b'-' | b'0'..=b'9') => format!("the number {}", text.chars().take(40).collect::<String>()),
        _ => text.to_owned(),
    }
}
